"""The figures of a method over a part: means, and confidence intervals over patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fbp_ray.baseline import Quality, mean_quality

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

    def intervals(self, beside: Scores | None = None) -> dict[str, Interval | None]:
        """Those of all figures by name."""
        return {figure: self.interval(figure, beside) for figure in Quality._fields}

    def _column(self, figure: str) -> Array:
        return np.array([getattr(image, figure) for image in self.images])
