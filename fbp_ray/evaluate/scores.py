"""The figures of a method over a part: means, confidence intervals over patients, and what others have published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fbp_ray.baseline import Quality, mean_quality
from fbp_ray.settings import Frozen

Array = NDArray[np.float64]
Interval = tuple[float, float]
DRAWS, SEED = 2000, 0


def interval(values: Array, patients: NDArray[np.generic], draws: int = DRAWS, seed: int = SEED) -> Interval | None:
    """The bootstrap 95 % confidence interval of the mean over images; None with fewer than two patients.

    Patients are drawn with replacement, each with all of their images, since images of one patient resemble each other.

    Args:
        values: a figure for each image; those that are nan are left out.
        patients: whose each image is.
        draws: how often patients are drawn.
        seed: of the draws.
    """
    there = ~np.isnan(values)
    _, who = np.unique(patients[there], return_inverse=True)
    sums, counts = np.bincount(who, values[there]), np.bincount(who)
    if len(sums) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class Scores:
    """The figures of one method over a part."""

    images: list[Quality]
    patients: list[str] | None
    """Whose each image is; None where the data do not tell."""

    @property
    def mean(self) -> Quality:
        """The mean of each figure over the images."""
        return mean_quality(self.images)

    def interval(self, figure: str, beside: Scores | None = None) -> Interval | None:
        """The 95 % interval of a mean, or of the mean gain over another method on the same images."""
        if self.patients is None:
            return None
        values = self._column(figure) - (0 if beside is None else beside._column(figure))
        return interval(values, np.array(self.patients))

    def intervals(self) -> dict[str, Interval | None]:
        """Those of all figures by name."""
        return {figure: self.interval(figure) for figure in Quality._fields}

    def _column(self, figure: str) -> Array:
        return np.array([getattr(image, figure) for image in self.images])


Set = Literal["test", "challenge"]


class Published(Frozen):
    """What somebody has published on LoDoPaB-CT, with each image's own range; without a source it is refused."""

    method: str
    on: Set
    """The public test part (trained on all of the training part), or the challenge set, whose images are secret."""

    psnr: float
    ssim: float
    source: Annotated[str, Field(pattern=r"https://\S+")]


IMAGES: dict[Set, int] = {"test": 3553, "challenge": 3678}
_REVIEW = (
    "Otero Baguer, Leuschner, Schmidt, Inverse Problems 36 (2020) 094004, https://doi.org/10.1088/1361-6420/aba415"
)
_CHALLENGE = "Leuschner et al., J. Imaging 7 (2021) 44, https://doi.org/10.3390/jimaging7030044"
PUBLISHED = tuple(
    Published(method=method, on=on, psnr=psnr, ssim=ssim, source=source)
    for on, source, rows in (
        (
            "test",
            _REVIEW,
            (
                ("FBP, Hann 0.641", 30.37, 0.739),
                ("iRadonMAP", 30.99, 0.749),
                ("TV", 32.95, 0.803),
                ("learned gradient descent", 34.67, 0.817),
                ("FBP + U-Net", 35.48, 0.837),
                ("learned primal-dual", 35.73, 0.843),
            ),
        ),
        (
            "challenge",
            _CHALLENGE,
            (
                ("FBP", 30.19, 0.727),
                ("TV", 33.36, 0.830),
                ("DIP + TV", 34.41, 0.845),
                ("MS-D-CNN", 35.85, 0.858),
                ("FBP + U-Net", 36.00, 0.862),
                ("ISTA U-Net", 36.09, 0.862),
                ("learned primal-dual", 36.25, 0.866),
            ),
        ),
    )
    for method, psnr, ssim in rows
)
