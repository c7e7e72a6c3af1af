"""The classic FBP that every learned one is measured against: the Hann window with the best cut-off.

The cut-off that is best for SSIM blurs more than the one that is best for PSNR, so there are two, both chosen on the
validation part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fbp_ray.errors import DataError
from fbp_ray.geometry import ParallelBeam
from fbp_ray.metrics import FIXED_RANGE, psnr, ssim
from fbp_ray.model import fbp
from fbp_ray.settings import Frozen

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
    """The quality of each image of (B, H, W)."""
    columns = (
        psnr(prediction, target),
        ssim(prediction, target),
        psnr(prediction, target, FIXED_RANGE),
        ssim(prediction, target, FIXED_RANGE),
    )
    return [Quality(*row) for row in torch.stack(columns, dim=1).tolist()]


def mean_quality(rows: Iterable[Quality]) -> Quality:
    """The mean of each figure over the images."""
    rows = list(rows)
    return Quality(*(sum(column) / len(rows) for column in zip(*rows, strict=True)))


class Baseline(Frozen):
    """The classic FBP on the validation part: the content of baseline.json."""

    hann_psnr: float
    """Mean PSNR in dB, with the Hann window whose cut-off is best for it."""

    hann_ssim: float
    """Mean SSIM, with the Hann window whose cut-off is best for it."""

    hann_psnr_cutoff: float
    hann_ssim_cutoff: float

    def of(self, figure: Figure) -> float:
        """The baseline's psnr or ssim."""
        return self.hann_psnr if figure == "psnr" else self.hann_ssim

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

    def scores(cutoffs: Iterable[float]) -> dict[float, list[float]]:
        """The sums of PSNR and SSIM over all images, for each cut-off."""
        cutoffs = list(cutoffs)
        sums: Tensor | None = None
        with torch.no_grad():
            for observation, target in pairs():
                images = [fbp(observation, geometry, "hann", cutoff) for cutoff in cutoffs]
                figures = torch.stack([torch.stack([psnr(i, target).sum(), ssim(i, target).sum()]) for i in images])
                sums = figures if sums is None else sums + figures
        if sums is None:
            raise DataError("there is no image to choose the Hann cut-off on; give more validation samples")
        return dict(zip(cutoffs, over_processes(sums).tolist(), strict=True))

    found = scores(COARSE)
    around = {max(found, key=lambda cutoff: found[cutoff][figure]) for figure in (0, 1)}
    found |= scores(sorted({round(c + step, 2) for c in around for step in FINE if round(c + step, 2) <= 1}))
    by_psnr, by_ssim = (max(found, key=lambda cutoff: found[cutoff][figure]) for figure in (0, 1))
    return BestCutoffs(by_psnr, by_ssim)
