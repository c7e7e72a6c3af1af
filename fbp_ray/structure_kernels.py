"""The CPU kernel of `fbp_ray.structure`: the structural similarity of two images, and its gradient, in one pass each.

Rows of window sums are worked out as they are needed and stay in the processor's cache.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from fbp_ray.projector.compiler import Kernel


@numba.njit(inline="always")
def _along(column: Any, weights: Any, row: Any) -> None:
    """The weighted sums over neighbours along a row: (W,), (K,) -> the first W - K + 1 entries of `row`."""
    width = row.shape[0]
    row[:] = weights[0] * column[:width]
    for k in range(1, weights.shape[0]):
        for j in range(width):
            row[j] += weights[k] * column[j + k]


@Kernel
def similarity(first: Any, second: Any, weights: Any, constants: Any, result: Any, gradient: Any) -> None:
    """The mean structural similarity, into `result` (1,), and where `gradient` has rows its gradient to `first`.

    Args:
        first, second: (H, W), float32 or float64.
        weights: (K,), float64, of a window along either axis; their sum is 1.
        constants: c1, c2, what a covariance is multiplied by, and 0 to leave the luminances out, else 1.
        result: (1,), float64.
        gradient: (H, W), float64, or (0, 0).
    """
    size = weights.shape[0]
    height, width = first.shape[0] - size + 1, first.shape[1] - size + 1
    c1, c2, sample, luminous = constants[0], constants[1], constants[2], constants[3]
    wanted = gradient.shape[0] > 0
    columns, rows = np.empty((4, first.shape[1])), np.empty((4, width))
    maps = np.zeros((3, height if wanted else 0, width + 2 * size - 2))
    scale = 1.0 / (height * width)
    total = 0.0
    for i in range(height):
        columns[:] = 0
        for k in range(size):
            w = weights[k]
            for j in range(first.shape[1]):
                p, t = np.float64(first[i + k, j]), np.float64(second[i + k, j])
                columns[0, j] += w * p
                columns[1, j] += w * t
                columns[2, j] += w * (p * p + t * t)
                columns[3, j] += w * (p * t)
        for n in range(4):
            _along(columns[n], weights, rows[n])
        for j in range(width):
            p, t = rows[0, j], rows[1, j]
            variances = sample * (rows[2, j] - p * p - t * t) + c2
            covariance = 2 * sample * (rows[3, j] - p * t) + c2
            means, product = p * p + t * t + c1, 2 * p * t + c1
            contrast = covariance / variances
            light = product / means if luminous > 0 else 1.0
            rows[0, j] = light * contrast
            if wanted:
                to_covariance, to_variances = 2 * sample * light / variances, -sample * light * contrast / variances
                to_mean = -t * to_covariance - 2 * p * to_variances
                if luminous > 0:
                    to_mean += contrast * (2 * t - 2 * p * light) / means
                maps[0, i, j + size - 1] = scale * to_mean
                maps[1, i, j + size - 1] = scale * 2 * to_variances
                maps[2, i, j + size - 1] = scale * to_covariance
        for j in range(width):
            total += rows[0, j]
    result[0] = total * scale
    if not wanted:
        return
    padded, spread = np.empty((3, maps.shape[2])), np.empty((3, first.shape[1]))
    mirrored = weights[::-1].copy()
    for i in range(first.shape[0]):
        padded[:] = 0
        for k in range(max(0, i - height + 1), min(size, i + 1)):
            for n in range(3):
                for j in range(maps.shape[2]):
                    padded[n, j] += weights[k] * maps[n, i - k, j]
        for n in range(3):
            _along(padded[n], mirrored, spread[n])
        for j in range(first.shape[1]):
            gradient[i, j] = spread[0, j] + spread[1, j] * first[i, j] + spread[2, j] * second[i, j]
