"""How far the noise of neighbouring rays belongs together after rebinning: they are means over the same samples.

Names and dimensions as in `tables`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fbp_ray.geometry import FanBeam
from fbp_ray.rebinning.tables import TAPS, tables

_APART, _ANGLES = 8, 32  # cells up to which samples are shared, and angles over which the mean is taken


def correlation(fan: FanBeam) -> NDArray[np.float64]:
    """The mean covariance of rays 0, 1, .. 7 cells apart, from independent noise, where the sum of all is 1: (8,).

    A scan's noise differs from ray to ray, but this shape hardly does.
    """
    found = tables(fan)
    angles = np.linspace(0, found.shape[0] - 1, min(_ANGLES, found.shape[0])).astype(np.int64)
    cells = found.cell.size
    row = found.place[angles] // cells  # (a, L, D')
    weights = found.weights[angles]
    sums = np.zeros(_APART)
    for apart in range(min(_APART, cells)):
        here, there = slice(0, cells - apart), slice(apart, cells)
        share = np.zeros((angles.size, cells - apart))
        for one in range(TAPS):  # of samples in the same row
            for other in range(TAPS):
                same = row[..., here] + one == row[..., there] + other
                share += (weights[:, :, one, here] * weights[:, :, other, there] * same).sum(1)
        sums[apart] = float((share * _shared_cells(found.cell, found.cell_weights, apart)).mean())
    return np.asarray(sums / (sums[0] + 2 * sums[1:].sum()))


def _shared_cells(cell: NDArray[np.int32], weights: NDArray[np.floating], apart: int) -> NDArray[np.float64]:
    """What the places j and j + `apart` along a row have in common: (D' - apart,)."""
    count = cell.size - apart
    common = np.zeros(count)
    for one in range(TAPS):
        for other in range(TAPS):
            same = cell[:count] + one == cell[apart:] + other
            common += weights[one, :count] * weights[other, apart:] * same
    return common
