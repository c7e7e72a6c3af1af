"""Where the rotation axis falls on the detector.

Over the half circle, a scan and its mirror image about the axis make up the full circle, whose Fourier transform is
empty outside a double wedge; about another column it is not (Vo et al., Optics Express 22 (2014) 19078; the wedge is
algotom's).
Over the full circle, each projection is the mirror image of the opposite one about the axis, and correlates best there;
so it is found in half acquisition too.

Dimensions: n rows, A angles, D detector columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fbp_ray.errors import DataError
from fbp_ray.scan.extra import algotom, scipy_module

Array = NDArray[np.float32]
Columns = NDArray[np.float64]
Metric = Callable[[Array, Columns], NDArray[np.float64]]
"""(A, D), columns -> a number for each column, least at the axis."""

SEARCHED = 512  # columns and angles to which a sinogram is reduced for the first search
SMOOTHING = 2.0  # cells and angles: a curve that is smooth, and shifts that need no care
LEAST_OVERLAP = 0.15  # of the detector, seen from both sides


class Axis(NamedTuple):
    """The axis, and how it was found."""

    column: float
    """From 0 at the centre of the first."""

    spread: float
    """The median distance, in columns, of what single rows say; 0 where it was given."""

    columns: list[float]
    """Those that were tried, ascending, near the axis."""

    metric: list[float]
    """What each got, from 0 for the best to 1 for the worst."""

    method: str


def find_axis(sinograms: Array, theta: NDArray[np.float64]) -> Axis:
    """The axis by sinograms of some rows.

    Args:
        sinograms: (n, A, D), line integrals without stripes, which look like an axis in the middle.
        theta: (A,), radians.

    Raises:
        DataError: the scan is over less than the half circle, or shows nothing that turns.
    """
    turn = np.mod(theta - theta.min(), 2 * math.pi) if np.ptp(theta) > 2 * math.pi else theta - theta.min()
    order = np.argsort(turn, kind="stable")
    step = float(np.median(np.diff(turn[order]))) if len(turn) > 1 else 0.0
    reach = float(turn.max()) + step
    half = order[turn[order] < math.pi - step / 4]
    sinograms = _smooth_in_time(sinograms, order, step)
    if reach < 0.94 * math.pi:
        raise DataError(
            f"the axis is found by looks from opposite sides, but the angles span {math.degrees(reach):.4g} degrees, "
            "less than a half circle; say where it falls: --axis.column, which in the middle is "
            f"{(sinograms.shape[2] - 1) / 2:g}"
        )
    if reach > 1.94 * math.pi:
        other = order[np.abs(turn[order][None] - turn[half][:, None] - math.pi).argmin(1)]
        # What is the same at all angles is symmetric about the axis, or a stripe, which is not.
        sinograms = sinograms - sinograms.mean(1, keepdims=True)
        pairs = np.stack([sinograms[:, half], sinograms[:, other]], 1)
        return _search(pairs, pairs, _opposite, "opposite projections")
    ends = np.stack([sinograms[:, order[:2]], sinograms[:, order[-1:-3:-1]]], 1)
    return _search(ends, sinograms[:, half], _double_wedge, "double wedge")


def _smooth_in_time(sinograms: Array, order: NDArray[np.int64], step: float) -> Array:
    """Sinograms smoothed over as many angles as move what is halfway to the edge by a cell: noise moves the axis."""
    sigma = min(3.0, 4 / (sinograms.shape[2] * max(step, 1e-9)))
    smooth: Any = scipy_module("ndimage").gaussian_filter1d
    smoothed = np.empty_like(sinograms)
    smoothed[:, order] = smooth(sinograms[:, order], sigma, axis=1, mode="nearest")
    return smoothed


def _search(pairs: Array, sinograms: Array, metric: Metric, method: str) -> Axis:
    """The column of the least metric.

    Args:
        pairs: (n, 2, A', D), opposite projections, which tell roughly where to look.
        sinograms: (n, ..., D), what the metric takes.
        metric: tells exactly.
        method: its name.
    """
    width = pairs.shape[-1]
    factor = max(1, round(width / SEARCHED))
    margin = max(1, round(LEAST_OVERLAP * width / factor / 2))
    columns = np.arange(margin, width // factor - margin, dtype=np.float64)
    coarse = _total(_reduced(pairs.swapaxes(0, 1).reshape(1, 2, -1, width), factor), _opposite, columns)
    best = float(columns[coarse.argmin()]) * factor + (factor - 1) / 2
    fine = _reduced(sinograms, 1)
    steps = ((2.0, 4.0 * factor), (0.5, 2.0), (0.1, 0.5))
    for step, radius in steps:
        columns = np.clip(best + np.arange(-round(radius / step), round(radius / step) + 1) * step, 1, width - 2)
        curves = np.stack([metric(one, columns) for one in fine])
        best = _least(columns, curves.sum(0))
    wide = np.clip(best + np.arange(-20, 21) * max(0.25, width / 640), 1, width - 2)
    shown = _total(fine[:: 1 + len(fine) // 3], metric, wide)
    if not np.isfinite(shown).all() or np.ptp(shown) == 0:
        raise DataError(
            "the axis cannot be found, since nothing turns in these rows; choose others (--rows), or say where it "
            "falls (--axis.column)"
        )
    single = np.array([_least(columns, curve) for curve in curves])
    return Axis(
        round(best, 3),
        round(float(np.median(np.abs(single - best))), 3),
        [round(float(column), 3) for column in wide],
        [round(float(value), 5) for value in (shown - shown.min()) / np.ptp(shown)],
        method,
    )


def _total(sinograms: Array, metric: Metric, columns: Columns) -> NDArray[np.float64]:
    return np.asarray(sum(metric(one, columns) for one in sinograms))


def _least(columns: Columns, curve: NDArray[np.float64]) -> float:
    """The column of the least value, between the columns that were tried by a parabola through its neighbours."""
    at = int(curve.argmin())
    if not 1 <= at < len(curve) - 1:
        return float(columns[at])
    low, middle, high = curve[at - 1 : at + 2]
    bend = low - 2 * middle + high
    return float(columns[at] + (0.5 * (low - high) / bend if bend > 0 else 0.0) * (columns[1] - columns[0]))


def _reduced(sinograms: Array, factor: int) -> Array:
    """Sinograms (.., A, D) smoothed, and means of so many columns and of enough angles."""
    smooth: Any = scipy_module("ndimage").gaussian_filter
    angles, width = sinograms.shape[-2:]
    together = max(1, round(angles / SEARCHED))
    whole = sinograms[..., : angles // together * together, : width // factor * factor]
    means = whole.reshape(*whole.shape[:-2], angles // together, together, width // factor, factor).mean((-3, -1))
    return np.asarray(smooth(means, (0,) * (means.ndim - 1) + (SMOOTHING,)), dtype=np.float32)


def _double_wedge(sinogram: Array, columns: Columns) -> NDArray[np.float64]:
    """The energy outside the double wedge, which has less noise than algotom's sum of moduli."""
    shift: Any = scipy_module("ndimage").shift
    angles, width = sinogram.shape
    mask = algotom("prep.calculation").make_inverse_double_wedge_mask(2 * angles, width, 0.25 * width)
    outside = np.fft.ifftshift(mask)[:, : width // 2 + 1]
    flipped, filling = np.fliplr(sinogram), np.flipud(sinogram)
    found = []
    for column in columns:
        by = 2 * column - (width - 1)
        moved = shift(flipped, (0, by), order=3)
        unseen = slice(0, math.ceil(by)) if by > 0 else slice(width - math.ceil(-by), width)
        moved[:, unseen] = filling[:, unseen]
        spectrum = np.fft.rfft2(np.concatenate([sinogram, moved]))
        found.append(float((np.square(np.abs(spectrum)) * outside).sum()))
    return np.asarray(found)


def _opposite(pair: Array, columns: Columns) -> NDArray[np.float64]:
    """1 minus the correlation of projections (2, A, D) with the opposite ones, mirrored about each column."""
    shift: Any = scipy_module("ndimage").shift
    one, other = pair[0], pair[1][:, ::-1]
    width = one.shape[1]
    found = []
    for column in columns:
        by = 2 * column - (width - 1)
        moved = shift(other, (0, by), order=3, mode="nearest")
        seen = slice(math.ceil(max(by, 0)), math.floor(min(width + by, width)))
        a, b = one[:, seen] - one[:, seen].mean(), moved[:, seen] - moved[:, seen].mean()
        found.append(1 - float((a * b).sum() / max(math.sqrt(float((a * a).sum() * (b * b).sum())), 1e-30)))
    return np.asarray(found)
