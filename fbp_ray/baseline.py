"""The classic FBP that every learned one is measured against: the Hann window with the best cut-off.

The cut-off that is best for SSIM blurs more than the one that is best for PSNR, so there are two, both chosen on the
validation part.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

from fbp_ray.errors import DataError
from fbp_ray.settings import Frozen, cache_folder

if TYPE_CHECKING:
    from torch import Tensor

    from fbp_ray.geometry import Geometry
    from fbp_ray.split import PartOfScan, Split

Figure = Literal["psnr", "ssim"]
STEP = 0.02
CUTOFFS = range(10, 51)  # of STEP: 0.2 to 1
PASSES = 3  # over the images, of a search; seldom more
KEPT = "hann"  # the folder of the cache for cut-offs that were found
CUTOFF_SAMPLES = 32  # the cut-offs are chosen on so many validation samples at most


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

    prediction, target = prediction.double(), target.double()  # once for all four
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
    geometry: Geometry,
    over_processes: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> BestCutoffs:
    """Searches the cut-offs 0.20, 0.22 .. 1.

    Args:
        pairs: gives batches of observation (B, A, D) and ground truth (B, H, W), anew at each call.
        geometry: theirs.
        over_processes: adds up a tensor over the processes that share the work, each with pairs of its own.
    """
    import torch

    from fbp_ray.metrics import has_range, psnr, ssim
    from fbp_ray.model import fbp

    def scores(cutoffs: list[float]) -> list[list[float]]:
        """The sums of PSNR and SSIM over all images that have a range, for each cut-off."""
        sums: Tensor | None = None
        with torch.no_grad():
            for observation, target in pairs():
                ranged, exact = has_range(target), target.double()
                images = (fbp(observation, geometry, "hann", cutoff).double() for cutoff in cutoffs)
                figures = torch.stack(
                    [
                        torch.stack([psnr(i, exact)[ranged].sum(), ssim(i, exact)[ranged].sum(), ranged.sum()])
                        for i in images
                    ]
                )
                sums = figures if sums is None else sums + figures
        if sums is None or not (sums := over_processes(sums))[0, 2]:
            raise DataError(
                "there is no image to choose the Hann cut-off on: each has one value throughout; give validation "
                "samples that show something"
            )
        return [row[:2] for row in sums.tolist()]

    return BestCutoffs(*_highest(scores))


def best_hann_alone(
    scans: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    split: Split,
    over_processes: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> float:
    """As `best_hann`, the cut-off of the least mean squared error as it is estimated without ground truth.

    Args:
        scans: gives batches of observation (B, A, D) and the samples' numbers (B,), anew at each call.
        split: how scans are split.
        over_processes: as for `best_hann`.
    """
    import torch

    from fbp_ray.self_target import linear_risk

    def scores(cutoffs: list[float]) -> list[list[float]]:
        sums = torch.zeros(len(cutoffs), dtype=torch.float64)
        with torch.no_grad():
            for sinogram, index in scans():
                found = [linear_risk(hann(cutoff), sinogram, index, split).sum() for cutoff in cutoffs]
                sums = sums.to(sinogram.device) + torch.stack(found)
        return [[-risk] for risk in over_processes(sums).tolist()]

    return _highest(scores)[0]


def _highest(scores: Callable[[list[float]], list[list[float]]]) -> list[float]:
    """The cut-off at which each figure is highest, of those in steps of 0.02 from 0.2 to 1; each has one peak.

    In steps of 0.2, of 0.1 about the best, at the peak of the parabola through those, and on from there while a
    neighbour is better.

    Args:
        scores: the figures at some cut-offs, a row each.
    """
    found: dict[int, list[float]] = {}  # by the number of steps of STEP

    def look(numbers: Iterable[int]) -> bool:
        new = sorted({number for number in numbers if number in CUTOFFS} - found.keys())
        if new:
            found.update(zip(new, scores([round(STEP * number, 2) for number in new]), strict=True))
        return bool(new)

    def best() -> list[int]:
        count = len(next(iter(found.values())))
        return [max(found, key=lambda number: found[number][figure]) for figure in range(count)]

    def peak(middle: int, figure: int) -> int:
        if middle - 5 not in found or middle + 5 not in found:
            return middle
        low, centre, high = (found[middle + away][figure] for away in (-5, 0, 5))
        curvature = low - 2 * centre + high
        return middle + round(2.5 * (low - high) / curvature) if curvature < 0 else middle

    look(range(CUTOFFS.start, CUTOFFS.stop, 10))
    look(number + away for number in best() for away in (-5, 5))
    peaks = [peak(number, figure) for figure, number in enumerate(best())]
    look(number + away for number in peaks for away in (-1, 0, 1))
    while look(number + away for number in best() for away in (-1, 1)):
        pass
    return [round(STEP * number, 2) for number in best()]


def content_key(pairs: Iterable[tuple[Tensor, Tensor]], geometry: Geometry) -> str:
    """Names a scan and the samples that cut-offs are chosen on by their content, wherever it lies.

    Args:
        pairs: batches of observation (B, A, D) and ground truth (B, H, W).
        geometry: theirs.
    """
    digest = hashlib.sha256(geometry.model_dump_json().encode())
    for batch in pairs:
        for sample in zip(*batch, strict=True):
            for array in sample:
                digest.update(array.cpu().numpy())
    return digest.hexdigest()[:32]


def known_cutoffs(key: str) -> BestCutoffs | None:
    """What `keep_cutoffs` kept under this key; None for nothing, or nothing that can be used."""
    try:
        low, high = json.loads((cache_folder() / KEPT / f"{key}.json").read_text())
        return BestCutoffs(float(low), float(high))
    except (OSError, RuntimeError, ValueError, TypeError):
        return None


def keep_cutoffs(key: str, cutoffs: BestCutoffs) -> None:
    """Keeps cut-offs for other runs on these data; where nothing can be written they are found again each time."""
    from fbp_ray.storage import write_atomically

    with contextlib.suppress(OSError, RuntimeError):  # the latter: there is no home folder
        write_atomically(cache_folder() / KEPT / f"{key}.json", json.dumps(cutoffs))


def hann(cutoff: float) -> Callable[[Tensor, PartOfScan], Tensor]:
    """The classic FBP of a part of a scan, with a Hann window."""
    from fbp_ray.model import fbp

    return lambda sinogram, some: fbp(sinogram, some, "hann", cutoff)
