"""The angles of a scan: what part of the circle each stands for, and whether they are degrees by mistake."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FAR = 10 * math.pi  # five turns: real scans seldom go on so long, and degrees soon do


def like_degrees(theta: NDArray[np.float64]) -> bool:
    """Whether angles look like degrees: they go round more than once, and in a way that scans in radians do not."""
    looks = np.unique(theta)
    furthest = np.abs(looks).max()
    far = bool(furthest > FAR)
    if looks.size == 1:
        return far
    steps = np.diff(looks)
    step, span = float(steps.mean()), float(np.ptp(looks))
    few_or_odd = looks.size < 4 or np.ptp(steps) > step / 10
    if span < 2.1 * math.pi or (few_or_odd and furthest < 4 * math.pi):
        return False
    if np.median(np.abs(np.diff(theta))) > 2 * math.pi:
        return True
    ends = (span, span + step)
    golden = (math.pi * k / step - (1 + math.sqrt(5)) / 2 for k in (1, 2))
    if any(-0.1 < n < 9 and _whole(n, 2e-3) for n in golden):  # the golden angle and its smaller kin, also as 2.4
        return any(_whole(end / 180) for end in ends)
    if any(_whole(end / 5) for end in ends) or (far and any(_whole(r) for r in (2 * ends[0], 2 * ends[1], 100 * step))):
        return True
    median = float(np.median(steps))
    if median > 0.2:  # 12 degrees; parts of a turn are whole degrees, or end where the turn does
        return looks.size > 3 and not (
            _whole(math.degrees(step), 5e-3) or any(_whole(end / math.pi, 1e-3) for end in ends)
        )
    regular = np.mean(np.abs(steps - median) < median / 4) > 1 / 3  # of random ones it is a sixth
    return far and not regular and median > 0.01


def _whole(ratio: float, within: float = 1e-5) -> bool:
    return abs(ratio - round(ratio)) < within


def angle_weights(theta: NDArray[np.float64], period: float, wedge: float) -> NDArray[np.float64]:
    """The part of the period that each angle stands for; see `ParallelBeam.angle_weights`."""
    theta = np.mod(theta, period)
    order = np.argsort(theta, kind="stable")
    gaps = np.diff(theta[order], append=theta[order[0]] + period)
    spacing = period / theta.size
    repeated = _near(gaps, max(1e-9, 0.01 * spacing), spacing)
    ordinary = np.sort(gaps[~repeated])
    for wedges in (2, 1):
        if ordinary.size > wedges and ordinary[-wedges] > max(wedge, 4 * ordinary[-wedges - 1]):
            smallest, ordinary = ordinary[-wedges], ordinary[:-wedges]
            gaps = np.where(gaps >= smallest, ordinary.mean(), gaps)
            break
    alike = repeated | _near(gaps, ordinary[-1] / 10, ordinary[-1] / 2)
    group = _chains(alike)
    each = (gaps + np.roll(gaps, 1)) / 2
    shared = np.bincount(group, each) / np.bincount(group)
    weights = np.empty_like(theta)
    weights[order] = shared[group]
    return weights


def _near(gaps: NDArray[np.float64], gap: float, extent: float) -> NDArray[np.bool_]:
    """Which angles belong together with the next one: less than `gap` apart, all of them within `extent`."""
    near = gaps < gap
    group = _chains(near)
    return near & (np.bincount(group, np.where(near, gaps, 0))[group] <= extent)


def _chains(joined: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Numbers the groups of angles of which each is joined to the next, cyclic."""
    group = np.concatenate([[0], np.cumsum(~joined[:-1])])
    if joined[-1]:
        group[group == group[-1]] = 0
    return group


class Arc(NamedTuple):
    """Angles of a scan that follow each other without a gap."""

    order: NDArray[np.int64]
    """Their numbers in the scan, (n,)."""

    angles: NDArray[np.float64]
    """They themselves, ascending, (n,)."""

    closed: bool
    """Whether the first one follows the last, a turn later."""


def arcs(theta: NDArray[np.float64]) -> list[Arc]:
    """The arcs of a scan. A gap is wider than four steps and 6 degrees.

    Each turn of several has arcs of its own. Where turns jump about (golden angles) all angles count modulo the turn,
    and of those that repeat each other each is on an arc of its own.
    """
    turn, widest = 2 * math.pi, math.radians(6)
    order = np.argsort(theta, kind="stable")
    places = theta[order] - theta.min()
    if places[-1] > turn - 1e-9 and np.diff(places).max() <= widest:
        layer = np.floor(places / turn + 1e-9).astype(np.int64)
    else:
        places = np.mod(places, turn)
        places[places > turn - 1e-9] = 0
        again = np.argsort(places, kind="stable")
        order, places = order[again], places[again]
        layer = repeats(places)
    if layer.any():
        parts = [np.flatnonzero(layer == number) for number in range(layer.max() + 1)]
        inner = ((order[part], arc) for part in parts for arc in arcs(theta.min() + places[part]))
        return [arc._replace(order=numbers[arc.order]) for numbers, arc in inner]
    places += theta.min()
    steps = np.diff(places, append=places[0] + turn)
    ends = np.flatnonzero(steps > max(widest, 4 * float(np.median(steps))))
    if ends.size == 0:
        return [Arc(order, places, closed=True)]
    first = int(ends[-1]) + 1  # the last gap is cut, and what follows it comes before what it follows
    order, cuts = np.roll(order, -first), np.mod(ends[:-1] - first, places.size) + 1
    places = np.concatenate([places[first:] - turn, places[:first]])
    return [Arc(*part, closed=False) for part in zip(np.split(order, cuts), np.split(places, cuts), strict=True)]


def repeats(places: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of the ascending places each one repeats."""
    steps = np.diff(places)
    again = np.concatenate([[False], steps < 1e-3 * float(steps.mean() if steps.size else 0)])
    runs = np.cumsum(~again) - 1
    return np.asarray(np.arange(places.size) - np.flatnonzero(~again)[runs])
