"""The CPU kernels of `fbp_ray.filters.bands`: means over tiles of angles and cells, and gains between the tiles.

A tile's value stands at its centre; beyond the outermost centres it is constant. Each kernel works on one sample's
arrays, float32 or float64: A angles, D cells, S and T tiles.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from fbp_ray.projector.compiler import Kernel

_LN_10 = math.log(10.0)
TILE = 4  # angles and cells; the loops over a tile's cells are written out for it


@Kernel
def tile_means(values: Any, cells: int, squared: bool, means: Any) -> None:
    """(A, D or more) -> (S, T). Whole rows, so that they are known to be contiguous."""
    angles = values.shape[0]
    column = np.empty(cells, values.dtype)
    for s in range(means.shape[0]):
        first, last = TILE * s, min(TILE * s + TILE, angles)
        column[:] = 0
        for a in range(first, last):
            if squared:
                for d in range(cells):
                    column[d] += values[a, d] * values[a, d]
            else:
                for d in range(cells):
                    column[d] += values[a, d]
        for t in range(means.shape[1]):
            end = min(TILE * t + TILE, cells)
            total = column[TILE * t]
            for d in range(TILE * t + 1, end):
                total += column[d]
            means[s, t] = total / ((last - first) * (end - TILE * t))


@Kernel
def times_means(values: Any, means: Any) -> None:
    """In place: values (A, D) -> the gradient to them, where the mean squares' gradients are `means` (S, T)."""
    angles, cells = values.shape
    for a in range(angles):
        s = a // TILE
        rows = min(TILE * s + TILE, angles) - TILE * s
        for d in range(cells):
            t = d // TILE
            columns = min(TILE * t + TILE, cells) - TILE * t
            values[a, d] *= 2 * means[s, t] / (rows * columns)


@numba.njit(inline="always")
def _rows(count: Any, a: Any) -> Any:
    """The rows of tiles that an angle lies between, and how near it is to the second, 0 to 1."""
    position = min(max((a + 0.5) / TILE - 0.5, 0.0), count - 1.0)
    s = int(position)
    return s, min(s + 1, count - 1), position - s


@numba.njit(inline="always")
def _gains_along(gains: Any, a: Any, row: Any) -> None:
    """The gains of an angle at the centres of the tiles, in row[1:-1]; beyond the outermost they are constant."""
    count = gains.shape[1]
    s, after, near = _rows(gains.shape[0], a)
    for t in range(count):
        row[t + 1] = gains[s, t] + gains.dtype.type(near) * (gains[after, t] - gains[s, t])
    row[0], row[count + 1] = row[1], row[count]


@Kernel
def add_interpolated(band: Any, gains: Any, first: int, result: Any) -> None:
    """result (angles from `first` on, D) += gains (S, T), interpolated, x band (A, D or more)."""
    count = gains.shape[1]
    row = np.empty(count + 2, gains.dtype)
    spread = np.empty((count, TILE), gains.dtype)
    flat = spread.reshape(count * TILE)
    for n in range(result.shape[0]):
        _gains_along(gains, first + n, row)
        for t in range(count):
            here, left, right = row[t + 1], row[t] - row[t + 1], row[t + 2] - row[t + 1]
            spread[t, 0] = here + gains.dtype.type(0.375) * left
            spread[t, 1] = here + gains.dtype.type(0.125) * left
            spread[t, 2] = here + gains.dtype.type(0.125) * right
            spread[t, 3] = here + gains.dtype.type(0.375) * right
        for d in range(result.shape[1]):
            result[n, d] += flat[d] * band[first + n, d]


@Kernel
def sum_to_tiles(along: Any, band: Any, gains: Any) -> None:
    """gains (S, T) += what `add_interpolated` spreads, gathered: the sum over (A, D) of along x band x its weights."""
    count = gains.shape[1]
    row = np.empty(count + 2, gains.dtype)
    for a in range(along.shape[0]):
        row[:] = 0
        for d in range(along.shape[1]):
            t = d // TILE
            offset = (d - TILE * t + 0.5) / TILE - 0.5
            product = along[a, d] * band[a, d]
            row[t + 1] += (1 - abs(offset)) * product
            row[t + (0 if offset < 0 else 2)] += abs(offset) * product
        row[1] += row[0]
        row[count] += row[count + 1]
        s, after, near = _rows(gains.shape[0], a)
        for t in range(count):
            gains[s, t] += (1 - near) * row[t + 1]
            gains[after, t] += near * row[t + 1]


@Kernel
def look_up(
    means: Any, energies: Any, noise: Any, table: Any, scale: Any, variances: Any, levels: Any, least: Any, gains: Any
) -> None:
    """Each tile's gains: what `BandWindow` says in torch's operations.

    means (S, T) of the line integrals; energies (M, S, T), or no bands; noise (M,) energy of noise of variance 1;
    table (M, N, E); scale: photons, unit; variances, levels: first and last entry; gains (M, S, T).
    """
    count_s, count_t = means.shape
    number, by_energy = table.shape[1], energies.shape[0] > 0
    photons, unit = scale
    log_photons = math.log(photons)
    row, local = np.empty(count_t, means.dtype), np.empty(count_t, means.dtype)
    across, along, signal = np.empty(count_t), np.zeros(count_t), np.empty(count_t)
    for s in range(count_s):
        _smooth(means, s, row, local)
        for t in range(count_t):
            variance = (unit * local[t] - log_photons) / _LN_10
            across[t] = _place(variance, variances, number)
            signal[t] = math.exp(-_LN_10 * min(max(variance, -12.0), 12.0))
        for m in range(gains.shape[0]):
            if by_energy:
                _smooth(energies[m], s, row, local)
                for t in range(count_t):
                    local[t] = local[t] * signal[t] / noise[m] + least
                for t in range(count_t):
                    along[t] = _place(math.log10(local[t]), levels, table.shape[2])
            for t in range(count_t):
                n, e = int(across[t]), int(along[t])
                n_next, e_next = min(n + 1, number - 1), min(e + 1, table.shape[2] - 1)
                first = table[m, n, e] + (along[t] - e) * (table[m, n, e_next] - table[m, n, e])
                second = table[m, n_next, e] + (along[t] - e) * (table[m, n_next, e_next] - table[m, n_next, e])
                gains[m, s, t] = first + (across[t] - n) * (second - first)


@numba.njit(inline="always")
def _smooth(values: Any, s: Any, row: Any, result: Any) -> None:
    """Row s of values (S, T), each weighed with its neighbours in both directions."""
    count = values.shape[1]
    above, below = max(s - 1, 0), min(s + 1, values.shape[0] - 1)
    for t in range(count):
        row[t] = values[above, t] / 4 + values[s, t] / 2 + values[below, t] / 4
    for t in range(count):
        result[t] = row[max(t - 1, 0)] / 4 + row[t] / 2 + row[min(t + 1, count - 1)] / 4


@numba.njit(inline="always")
def _place(value: Any, ends: Any, number: Any) -> Any:
    """Where a value stands among `number` entries, 0 to number - 1; what is no number in the middle."""
    place = (value - ends[0]) * ((number - 1) / (ends[1] - ends[0]))
    if place != place:
        place = 0.5 * (number - 1)
    return min(max(place, 0.0), number - 1.0)
