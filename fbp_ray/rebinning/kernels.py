"""The CPU kernels of a rebinning: along the detector, along the angles, and both transposed. See `tables` for names.

Dimensions as there, and B samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fbp_ray.projector.compiler import Kernel


@Kernel
def along_cells(sinogram: Any, order: Any, cell: Any, weights: Any, rows: Any, first: int, last: int) -> None:
    """(A, D) -> the rows `first:last` of (R, D')."""
    for r in range(first, last):
        source, target = sinogram[order[r]], rows[r]
        for j in range(cell.size):
            at = np.uint64(cell[j])
            target[j] = (
                weights[0, j] * source[at]
                + weights[1, j] * source[at + np.uint64(1)]
                + weights[2, j] * source[at + np.uint64(2)]
                + weights[3, j] * source[at + np.uint64(3)]
            )


@Kernel
def along_angles(rows: Any, place: Any, weights: Any, result: Any, first: int, last: int) -> None:
    """(R x D',) -> the angles `first:last` of (A', D')."""
    cells = place.shape[2]
    one, two, three = np.uint64(cells), np.uint64(2 * cells), np.uint64(3 * cells)
    for a in range(first, last):
        target = result[a]
        target[:] = 0
        for n in range(place.shape[1]):
            w0, w1, w2, w3 = weights[a, n, 0], weights[a, n, 1], weights[a, n, 2], weights[a, n, 3]
            where = place[a, n]
            for j in range(cells):
                at = np.uint64(where[j])
                target[j] += (
                    w0[j] * rows[at] + w1[j] * rows[at + one] + w2[j] * rows[at + two] + w3[j] * rows[at + three]
                )


@Kernel
def to_angles(sinogram: Any, place: Any, weights: Any, rows: Any, first: int, last: int) -> None:
    """The transpose of `along_angles`, (A', D') -> (R, D'): columns `first:last` of the left half, and their mirror's.

    A look from the other side is in the mirrored column, so no other columns add to these.
    """
    cells = place.shape[2]
    one, two, three = np.uint64(cells), np.uint64(2 * cells), np.uint64(3 * cells)
    flat = rows.reshape(-1)
    halves = ((first, last), (max(cells - last, last), cells - first))
    for begin, end in halves:
        rows[:, begin:end] = 0
    for begin, end in halves:
        for a in range(place.shape[0]):
            source = sinogram[a]
            for n in range(place.shape[1]):
                w0, w1, w2, w3 = weights[a, n, 0], weights[a, n, 1], weights[a, n, 2], weights[a, n, 3]
                where = place[a, n]
                for j in range(begin, end):
                    at = np.uint64(where[j])
                    flat[at] += w0[j] * source[j]
                    flat[at + one] += w1[j] * source[j]
                    flat[at + two] += w2[j] * source[j]
                    flat[at + three] += w3[j] * source[j]


@Kernel
def to_cells(rows: Any, order: Any, cell: Any, weights: Any, result: Any, first: int, last: int) -> None:
    """The transpose of `along_cells`, (B, R, D') -> (B, A, D), for the samples `first:last`."""
    for b in range(first, last):
        result[b] = 0
        for r in range(order.size):
            source, target = rows[b, r], result[b, order[r]]
            for j in range(cell.size):
                at = np.uint64(cell[j])
                for t in range(4):
                    target[at + np.uint64(t)] += weights[t, j] * source[j]
