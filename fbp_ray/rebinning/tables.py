"""Which samples of a fan-beam scan make each ray of the parallel beam, and how much each counts.

The ray (theta, s) of a parallel beam is that of a fan beam at

    gamma = arcsin(s / source_to_axis)      beta = theta + gamma
    -gamma                                  beta = theta - gamma + pi

the second one run through the other way. Each turn of the source gives it up to two looks. gamma, and so the place on
the detector, is the same for all theta. So the fan is interpolated twice: along the detector to the s of the parallel
cells, which makes of the angles' projections `rows`, and then along beta. Both times by the polynomial of degree 3
through the four nearest samples (Lagrange's), whatever their distances.

The looks at a ray are averaged. Of equal looks each counts the same; one counts less towards the ends of an arc, and
towards the ends of a detector that is off the middle, so that nothing begins abruptly for the ramp to run over (in the
spirit of Parker, Med. Phys. 9 (1982) 254). Their weights add up to 1 for every ray.

Dimensions: A angles, D cells of the fan; A', D' those of the parallel beam; R rows; L looks; T = 4 samples.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fbp_ray.angles import Arc, arcs
from fbp_ray.caches import cached
from fbp_ray.errors import GeometryError
from fbp_ray.geometry import FanBeam, ParallelBeam, RegularAngles

TAPS = 4
_BEFORE = TAPS // 2 - 1  # of the samples of an interpolation, those before the one that comes next
_FINER = 2  # than a fan's own parallel beam is the one that it is interpolated from
_FADING = math.pi / 4  # the longest that a look takes to count in full, in radians
_LEAST = 1e-6  # of a look's weight: the only look at a ray counts in full, wherever it is
_NOT_MEASURED = 1e-3  # of the rays: below it they are corners of the fan, where nothing is

Floats = NDArray[np.floating]


class Tables(NamedTuple):
    """A rebinning. Rows are the projections of the arcs' angles in order, those of a full circle with a few repeated.

    Args:
        order: (R,) the angle that each row is the projection of.
        cell: (D',) the first of T cells for each place along a row.
        cell_weights: (T, D') theirs.
        place: (A', L, D') where, in the rows one after the other, the first of T samples is; the others are in the
            next rows.
        weights: (A', L, T, D') theirs.
        source: (A, D).
    """

    order: NDArray[np.int64]
    cell: NDArray[np.int32]
    cell_weights: Floats
    place: NDArray[np.int32]
    weights: Floats
    source: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """(A', D')."""
        return self.place.shape[0], self.place.shape[2]


class _Look(NamedTuple):
    """A side from which an arc sees rays: what it counts (A', D'), 0 where it sees none, and `place` and `weights`."""

    counts: Floats
    place: NDArray[np.int64]
    weights: Floats


@cached(4)
def tables(fan: FanBeam, dtype: DTypeLike = np.float64) -> Tables:
    """The rebinning of a scan to `fan.parallel`, with weights of the type.

    It warns where some of the rays were never measured; they are 0.

    Raises:
        GeometryError: there are too few angles or cells to interpolate between.
    """
    found = [arc for arc in arcs(fan.theta) if arc.order.size >= TAPS]
    if not found or fan.cells < TAPS:
        raise GeometryError(
            f"a fan beam of {fan.num_angles} angles and {fan.cells} cells cannot be rebinned: it takes {TAPS} angles "
            f"that follow each other, and {TAPS} cells; give the whole scan"
        )
    position = _positions(fan)
    cell = np.clip(np.floor(position).astype(np.int64) - _BEFORE, 0, fan.cells - TAPS)
    cell_weights = _lagrange(cell + np.arange(TAPS, dtype=np.float64)[:, None], position)
    orders, looks, rows = [], [], 0
    for arc in found:
        numbers = np.arange(arc.order.size)
        if arc.closed:
            numbers = np.pad(numbers, (_BEFORE, TAPS // 2), mode="wrap")
        looks += list(_looks(fan, arc, position, rows))
        orders.append(arc.order[numbers])
        rows += numbers.size
    place, weights = _together(fan, looks)
    return Tables(
        np.concatenate(orders),
        cell.astype(np.int32),
        cell_weights.astype(dtype),
        place,
        weights.astype(dtype),
        fan.sinogram_shape,
    )


def fine_parallel(fan: FanBeam) -> ParallelBeam:
    """The parallel beam that a fan beam's line integrals are interpolated from: twice as fine as `fan.parallel`."""
    coarse = fan.parallel
    count = _FINER * coarse.num_angles
    angles = RegularAngles(count=count, first=math.pi / (2 * count), step=math.pi / count)
    fine = {"angles": angles, "cells": _FINER * coarse.cells + 2 * TAPS, "cell_size": coarse.cell_size / _FINER}
    return coarse.model_copy(update=fine)


@cached(4)
def projection_tables(fan: FanBeam, dtype: DTypeLike = np.float64) -> Tables:
    """The way back, from the full circle of `fine_parallel`, the second half of which is the first, mirrored."""
    fine = fine_parallel(fan)
    angles, cells = 2 * fine.num_angles, fine.cells
    theta, s = fan.rays
    position = s[0] / fine.cell_size + (cells - 1) / 2
    cell = np.clip(np.floor(position).astype(np.int64) - _BEFORE, 0, cells - TAPS)
    at = np.mod(theta * angles / (2 * math.pi) - 0.5, angles)  # in angles, the first of which is half a step from 0
    row = np.minimum(at.astype(np.int64), angles - 1)  # of the angle before the nearest that comes before
    samples = np.arange(TAPS, dtype=np.float64)
    return Tables(
        np.pad(np.arange(angles), (_BEFORE, TAPS // 2), mode="wrap"),
        cell.astype(np.int32),
        _lagrange(cell + samples[:, None], position).astype(dtype),
        (row * fan.cells + np.arange(fan.cells))[:, None].astype(np.int32),
        _lagrange(row - _BEFORE + samples[:, None, None], at).swapaxes(0, 1)[:, None].astype(dtype),
        (angles, cells),
    )


def _positions(fan: FanBeam) -> NDArray[np.float64]:
    """Where on the detector, in cells, the rays of the parallel cells fall: (D',)."""
    gamma = _gamma(fan)
    along = fan.source_to_detector * (np.tan(gamma) if fan.detector == "flat" else gamma)
    position = (along + fan.axis_offset) / fan.cell_size + (fan.cells - 1) / 2
    return np.asarray(np.round(position, 9))  # what falls on a cell's centre stays there


def _gamma(fan: FanBeam) -> NDArray[np.float64]:
    return np.asarray(np.arcsin(fan.parallel.detector / fan.source_to_axis))


def _lagrange(nodes: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights of samples in the polynomial through them: (T, ...), (...) -> (T, ...)."""
    weights = np.ones_like(nodes)
    for i in range(TAPS):
        for j in range(TAPS):
            if i != j:
                weights[i] *= (at - nodes[j]) / (nodes[i] - nodes[j])
    return weights


def _looks(fan: FanBeam, arc: Arc, position: NDArray[np.float64], rows: int) -> Iterator[_Look]:
    """The looks that an arc gives, the rows of which are numbered from `rows` on."""
    turn, parallel = 2 * math.pi, fan.parallel
    first, last = float(arc.angles[0]), float(arc.angles[-1])
    nodes, step = arc.angles, float(np.median(np.diff(arc.angles)))
    if arc.closed:
        nodes = np.concatenate([nodes[-_BEFORE:] - turn, nodes, nodes[: TAPS // 2] + turn])
    column = np.arange(parallel.cells)
    for opposite in (False, True):
        along = column[::-1] if opposite else column
        wanted = parallel.theta[:, None] + (math.pi - _gamma(fan) if opposite else _gamma(fan))
        turns = (
            [0]
            if arc.closed
            else range(math.floor((first - wanted.max()) / turn), math.ceil((last - wanted.min()) / turn) + 1)
        )
        for number in turns:
            beta = first + np.mod(wanted - first, turn) if arc.closed else wanted + number * turn
            counts = _seen(fan, position)[along] * _fading(arc, beta, step)
            if not counts.any():
                continue
            beta = beta if arc.closed else np.clip(beta, first, last)
            row = np.clip(np.searchsorted(nodes, beta, "right") - 1 - _BEFORE, 0, nodes.size - TAPS)
            weights = _lagrange(nodes[row + np.arange(TAPS)[:, None, None]], beta)
            yield _Look(counts, (rows + row) * parallel.cells + along, weights)


def _seen(fan: FanBeam, position: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the looks of each parallel cell count, (D',): less towards the ends of a detector that is off the middle."""
    from_end = np.minimum(position, fan.cells - 1 - position)
    axis = fan.axis_offset / fan.cell_size + (fan.cells - 1) / 2
    nearer, off = min(axis, fan.cells - 1 - axis), abs(fan.cells - 1 - 2 * axis)
    width = min(2 * nearer, max(8, off)) if off > 1 else 1e-9
    return np.where(from_end >= 0, np.clip(from_end / max(width, 1e-9), math.sqrt(_LEAST), 1) ** 2, 0)


def _fading(arc: Arc, beta: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """What looks at angles beta count: those within half a step of an arc, and less towards its ends."""
    if arc.closed:
        return np.ones_like(beta)
    first, last = arc.angles[0], arc.angles[-1]
    span = last - first
    width = min(_FADING, 2 * (span - math.pi) if span > math.pi + step else span / 2)
    from_end = np.minimum(beta - first, last - beta)
    return np.where(from_end >= -step / 2, np.clip(from_end / width, math.sqrt(_LEAST), 1) ** 2, 0)


def _together(fan: FanBeam, looks: list[_Look]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """`place` and `weights` of the looks at each ray, whichever they are, from the first on."""
    counts = np.stack([look.counts for look in looks])
    total, number = counts.sum(0), np.count_nonzero(counts, axis=0)
    _warn_of_unmeasured(fan, float(np.mean(number == 0)))
    angles, cells = fan.parallel.sinogram_shape
    # Where there is no look, the ray's own column: another thread adds to the others while the transpose is made.
    place = np.tile(np.arange(cells, dtype=np.int32), (angles, number.max(), 1))
    weights = np.zeros((angles, number.max(), TAPS, cells))
    done = np.zeros((angles, cells), np.int64)
    for look in looks:
        k, column = np.nonzero(look.counts)
        place[k, done[k, column], column] = look.place[k, column]
        share = look.counts[k, column] / total[k, column]
        weights[k, done[k, column], :, column] = (look.weights[:, k, column] * share).T
        done[k, column] += 1
    return place, weights


def _warn_of_unmeasured(fan: FanBeam, part: float) -> None:
    if part > _NOT_MEASURED:
        spans = ", ".join(f"{math.degrees(np.ptp(arc.angles)):.1f}" for arc in arcs(fan.theta))
        warnings.warn(
            f"{100 * part:.1f} % of the rays were not measured and count as 0, which shows as streaks: the scan spans "
            f"{spans} degrees, and it takes {math.degrees(fan.short_scan):.1f} to see each ray of this fan; scan as "
            "much, or choose an axis_offset nearer to 0",
            stacklevel=2,
        )
