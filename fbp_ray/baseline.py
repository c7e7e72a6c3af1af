"""The classic FBP that every learned one is measured against: the Hann window with the best cut-off.

The cut-off that is best for SSIM blurs more than the one that is best for PSNR, so there are two, both chosen on the
validation part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

from fbp_ray.errors import DataError
from fbp_ray.settings import Frozen

if TYPE_CHECKING:
    from torch import Tensor

    from fbp_ray.geometry import ParallelBeam
    from fbp_ray.some_angles import SomeAngles

Figure = Literal["psnr", "ssim"]
COARSE = tuple(round(0.1 * k, 2) for k in range(2, 11))
PASSES = 2  # over the images, of a search
CUTOFF_SAMPLES = 32  # the cut-offs are chosen on so many validation samples at most
FINE = (-0.06, -0.04, -0.02, 0.02, 0.04, 0.06)


class Quality(NamedTuple):
    """PSNR and SSIM of one image, with its own range and with a fixed one; or their means over several images."""

    psnr: float
    ssim: float
    psnr_fr: float
    ssim_fr: float


def quality(prediction: Tensor, target: Tensor) -> list[Quality]:
    """The quality of each image of (B, H, W); without a range of its own, an image has a psnr and an ssim of nan."""
    import torch  # here and below, not above: a list of runs needs the figures, and no torch

    from fbp_ray.metrics import FIXED_RANGE, psnr, ssim, where_ranged

    columns = (
        where_ranged(psnr(prediction, target), target),
        where_ranged(ssim(prediction, target), target),
        psnr(prediction, target, FIXED_RANGE),
        ssim(prediction, target, FIXED_RANGE),
    )
    return [Quality(*row) for row in torch.stack(columns, dim=1).tolist()]


def mean_quality(rows: Iterable[Quality]) -> Quality:
    """The mean of each figure over the images; those without a range of their own count for the fixed range alone."""
    psnrs, ssims, *fixed = zip(*rows, strict=True)
    columns = ([value for value in column if not math.isnan(value)] for column in (psnrs, ssims))
    return Quality(*(sum(column) / len(column) if column else math.nan for column in (*columns, *fixed)))


class Baseline(Frozen):
    """The classic FBP on the validation part: the content of baseline.json."""

    hann_psnr: float | None = None
    """Mean PSNR in dB, with the Hann window whose cut-off is best for it; None without ground truth."""

    hann_ssim: float | None = None
    """Mean SSIM, with the Hann window whose cut-off is best for it; None without ground truth."""

    hann_psnr_cutoff: float
    hann_ssim_cutoff: float
    """Without ground truth both cut-offs are `hann_risk_cutoff`."""

    hann_risk: float | None = None
    """The mean of `fbp_ray.self_target.self_risk`, where the run learns without ground truth."""

    hann_risk_cutoff: float | None = None
    """Of the Hann window with the least mean squared error, as it is estimated without ground truth."""

    without_range: int = 0
    """Images of one value throughout, which no mean of PSNR or SSIM takes in."""

    @property
    def left_out(self) -> str:
        """How many images no mean takes in, as a sentence; empty for none."""
        if not self.without_range:
            return ""
        if self.without_range == 1:
            return "1 of the validation images has one value throughout: PSNR and SSIM leave it out"
        return f"{self.without_range} of the validation images have one value throughout: PSNR and SSIM leave them out"

    @property
    def start_cutoff(self) -> float:
        """That of a window that starts from the best Hann; chosen without ground truth where the run learns so."""
        return self.hann_psnr_cutoff if self.hann_risk_cutoff is None else self.hann_risk_cutoff

    def of(self, figure: Figure) -> float:
        """The baseline's psnr or ssim; nan without ground truth."""
        found = self.hann_psnr if figure == "psnr" else self.hann_ssim
        return math.nan if found is None else found

    def gain(self, figure: Figure, value: float) -> float:
        """How much better than the baseline a psnr (in dB) or an ssim is."""
        return value - self.of(figure)


class BestCutoffs(NamedTuple):
    """The Hann cut-offs that are best for either figure, as fractions of the Nyquist frequency."""

    psnr: float
    ssim: float


def best_hann(
    pairs: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    geometry: ParallelBeam,
    over_processes: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> BestCutoffs:
    """Searches the cut-offs 0.2, 0.3 .. 1.0, then in steps of 0.02 around the best.

    Args:
        pairs: gives batches of observation (B, A, D) and ground truth (B, H, W), anew at each call.
        geometry: theirs.
        over_processes: adds up a tensor over the processes that share the work, each with pairs of its own.
    """
    import torch

    from fbp_ray.metrics import has_range, psnr, ssim
    from fbp_ray.model import fbp

    def scores(cutoffs: Iterable[float]) -> dict[float, list[float]]:
        """The sums of PSNR and SSIM over all images that have a range, and their number, for each cut-off."""
        cutoffs = list(cutoffs)
        sums: Tensor | None = None
        with torch.no_grad():
            for observation, target in pairs():
                images = [fbp(observation, geometry, "hann", cutoff) for cutoff in cutoffs]
                ranged = has_range(target)
                figures = torch.stack(
                    [
                        torch.stack([psnr(i, target)[ranged].sum(), ssim(i, target)[ranged].sum(), ranged.sum()])
                        for i in images
                    ]
                )
                sums = figures if sums is None else sums + figures
        if sums is None or not (sums := over_processes(sums))[0, 2]:
            raise DataError(
                "there is no image to choose the Hann cut-off on: each has one value throughout; give validation "
                "samples that show something"
            )
        return dict(zip(cutoffs, sums.tolist(), strict=True))

    found = scores(COARSE)
    around = {max(found, key=lambda cutoff: found[cutoff][figure]) for figure in (0, 1)}
    found |= scores(sorted({round(c + step, 2) for c in around for step in FINE if round(c + step, 2) <= 1}))
    by_psnr, by_ssim = (max(found, key=lambda cutoff: found[cutoff][figure]) for figure in (0, 1))
    return BestCutoffs(by_psnr, by_ssim)


def best_hann_alone(
    sinograms: Callable[[], Iterable[Tensor]],
    geometry: ParallelBeam,
    over_processes: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> float:
    """As `best_hann`, the cut-off of the least mean squared error as it is estimated without ground truth."""
    import torch

    from fbp_ray.self_target import linear_risk

    def risks(cutoffs: Iterable[float]) -> dict[float, float]:
        cutoffs = list(cutoffs)
        sums = torch.zeros(len(cutoffs), dtype=torch.float64)
        with torch.no_grad():
            for sinogram in sinograms():
                found = [linear_risk(hann(cutoff), sinogram, geometry).sum() for cutoff in cutoffs]
                sums = sums.to(sinogram.device) + torch.stack(found)
        return dict(zip(cutoffs, over_processes(sums).tolist(), strict=True))

    found = risks(COARSE)
    coarse = min(found, key=lambda cutoff: found[cutoff])
    found |= risks(sorted(c for step in FINE if (c := round(coarse + step, 2)) <= 1))
    return min(found, key=lambda cutoff: found[cutoff])


def hann(cutoff: float) -> Callable[[Tensor, SomeAngles], Tensor]:
    """The classic FBP of some angles, with a Hann window."""
    from fbp_ray.model import fbp

    return lambda sinogram, some: fbp(sinogram, some, "hann", cutoff)
