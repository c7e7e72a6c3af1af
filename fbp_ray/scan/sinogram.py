"""Stripe removal in a sinogram, and cells beside a detector that the object reaches beyond.

Dimensions: A angles, D detector cells.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fbp_ray.errors import ConfigError
from fbp_ray.scan import StripesConfig
from fbp_ray.scan.extra import algotom

Values = NDArray[np.float32]
BEYOND = 0.05  # of a sinogram's highest values: what the outermost cells have where the object goes on


def without_stripes(sinogram: Values, stripes: StripesConfig) -> Values:
    """A sinogram (A, D) without what is the same at all angles in single columns, by algotom.

    Source: Vo, Atwood and Drakopoulos, Optics Express 26 (2018) 28396: algorithms 6, 5 and 3 (all), 3 (sorting) or 2
    (filtering). A sinogram without the noise by which 6 and 5 know what stands out gets 3 alone.

    Raises:
        ConfigError: the medians are wider than the detector.
    """
    if stripes.method == "none":
        return sinogram
    removal: Any = algotom("prep.removal")
    width = sinogram.shape[1]
    size, large = stripes.size or max(5, width // 50 | 1), stripes.large or max(9, width // 20 | 1)
    if max(size, large) > width:
        raise ConfigError(
            f"--stripes.size {size} and --stripes.large {large} are columns of a detector of {width}; give fewer"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if stripes.method == "all":
            try:
                found = removal.remove_all_stripe(sinogram, stripes.snr, large, size)
            except ValueError:  # too few cells differ from the median for algotom to know what stands out
                found = removal.remove_stripe_based_sorting(sinogram, size)
        elif stripes.method == "sorting":
            found = removal.remove_stripe_based_sorting(sinogram, size)
        else:
            found = removal.remove_stripe_based_filtering(sinogram, 3, size)
    return np.asarray(found, dtype=np.float32)


def edges(sinograms: Values, sides: tuple[bool, bool]) -> tuple[float, float]:
    """What the outermost cells of sinograms (n, A, D) at these sides have on average, and the highest values."""
    cells = max(1, sinograms.shape[2] // 100)
    both = [(sinograms[:, :, :cells], sides[0]), (sinograms[:, :, -cells:], sides[1])]
    outer = np.concatenate([outermost for outermost, counts in both if counts], axis=2)
    return float(outer.mean()), float(np.percentile(sinograms, 99.5))


def padded(sinogram: Values, pad: tuple[int, int]) -> Values:
    """(A, D) -> (A, before + D + after): from the outermost values along a cosine to 0, so that the ramp meets no step.

    The outermost value is a mean over a few angles and cells, whose noise would be drawn out to streaks.
    """
    if not any(pad):
        return sinogram
    kernel = np.ones(min(5, len(sinogram)), np.float32)
    norm = np.convolve(np.ones(len(sinogram)), kernel, "same")

    def side(outermost: Values, cells: int) -> Values:
        fall = 0.5 + 0.5 * np.cos(np.pi * (np.arange(cells) + 1) / (cells + 1))
        mean = np.convolve(outermost.mean(1), kernel, "same") / norm
        return np.asarray(mean[:, None] * fall, dtype=np.float32)

    left, right = side(sinogram[:, :4], pad[0]), side(sinogram[:, -4:], pad[1])
    return np.concatenate([left[:, ::-1], sinogram, right], axis=1)
