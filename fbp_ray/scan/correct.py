"""From counts to line integrals: dead pixels, binning, flats and darks, air, zingers, the negative logarithm.

A count n beside a dark d and a flat f is the share t = (n - d) / (f - d) that passes, and -log(t) the line integral.
The flat is that of the projection's time: between the medians of the flats before and after, by the number of
projections; or the median of all.

Dimensions: A angles, R detector rows, D detector columns; of one binned row, b rows of the detector.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fbp_ray.errors import ConfigError, DataError
from fbp_ray.scan import CorrectConfig, ScanConfig
from fbp_ray.scan.raw import Flats, Frames, RawScan

Values = NDArray[np.float32]
LEAST_COUNT = 0.5
"""What a count of none stands for, as the logarithm needs one; of values that are no whole numbers 1e-4 of the flat."""
NEIGHBOURS = 9  # columns of the median by which a dead pixel is known
DEAD, HOT = 0.25, 4.0  # of that median
MOST_DEAD = 0.1  # of all pixels; more is no defect
DARK_FRAME = 0.01  # of the ordinary projection's light


class Fixed(NamedTuple):
    """What of the detector is the same for all projections, after dead pixels and binning."""

    dark: Values
    """(R, D)"""

    flats: list[Values]
    """(R, D) each, in order of time."""

    times: list[float]
    """When, by the number of projections before them."""

    dead: NDArray[np.bool_]
    """(R, D) of the detector as it is, before binning."""

    gain: float | None
    """Counts a photon, of repeated flats; None where there are none."""


class Cleaned(NamedTuple):
    """A row's line integrals, and what was done about them."""

    integrals: Values
    """(A, D)"""

    zingers: int
    floored: int
    """Counts of none or less."""

    light: Values
    """(A,), the mean share that passes."""


def measure(raw: RawScan, config: ScanConfig, rows: slice) -> Fixed:
    """Flats and darks of some rows of the detector, the dead pixels and the gain.

    Raises:
        DataError: there are no flats, or they are no brighter than the darks.
    """
    budget = 1e9 * config.memory / 4
    chosen, shape = _chosen(raw.flats, config.correct), (rows.stop - rows.start, raw.projections.shape[2])
    if config.read.values != "counts":
        return Fixed(np.zeros(shape, np.float32), [np.ones(shape, np.float32)], [0.0], np.zeros(shape, bool), None)
    if not chosen:
        raise DataError(
            f"{raw.source} has no flats (images of the open beam), without which counts are no line integrals; name "
            "them (--read.flats), or say that the values are corrected: --read.values transmission, or integrals"
        )
    dark = np.zeros(shape, np.float32) if raw.darks is None else median(raw.darks, rows, budget)
    flats = [median_of(group, rows, budget) for group in chosen]
    light = np.mean([flat - dark for flat in flats], axis=0)
    usual = float(np.median(light[np.isfinite(light)])) if np.isfinite(light).any() else math.nan
    if not usual > 0:
        raise DataError(
            f"{raw.source}: the flats (median {float(np.median(flats[0])):g}) are no brighter than the darks (median "
            f"{float(np.median(dark)):g}); were they swapped, or taken with the shutter closed? Name others: "
            "--read.flats, --read.darks"
        )
    dead = dead_pixels(light) if config.correct.dead else np.zeros(shape, bool)
    _check_lit(light, dead, rows.start)
    whole = [binned(filled(image[:, None], dead)[:, 0], config.bin) for image in (dark, *flats)]
    floor = 1e-6 * usual
    flats = [np.maximum(flat, whole[0] + floor) for flat in whole[1:]]
    times = [float(np.mean([flat.time for flat in group])) for group in chosen]
    return Fixed(whole[0], flats, times, dead, gain_of(raw.flats, dark, rows, budget, dead))


def _chosen(flats: tuple[Flats, ...], correct: CorrectConfig) -> list[tuple[Flats, ...]]:
    """The flats in groups of one median each."""
    times = {flat.time for flat in flats}
    if correct.flat == "interpolate" and len(times) < 2:
        raise ConfigError(
            "--correct.flat interpolate needs flats from before and from after the projections, but these were taken "
            "at one time, or their times are not known; leave it out"
        )
    if correct.flat == "median" or len(times) < 2:
        return [flats] if flats else []
    return [tuple(flat for flat in flats if flat.time == time) for time in sorted(times)]


def median_of(group: tuple[Flats, ...], rows: slice, budget: float) -> Values:
    """The median of all images of several groups of flats: (R, D)."""
    return _median([flat.frames for flat in group], rows, budget)


def median(frames: Frames, rows: slice, budget: float) -> Values:
    """The median of images, (n, R, D) -> (R, D), some rows at a time."""
    return _median([frames], rows, budget)


def _median(groups: list[Frames], rows: slice, budget: float) -> Values:
    count, width = sum(one.shape[0] for one in groups), groups[0].shape[2]
    step = max(1, int(budget / (count * width * 8)))
    pieces = []
    for first in range(rows.start, rows.stop, step):
        some = slice(first, min(first + step, rows.stop))
        images = [one.read(np.arange(one.shape[0]), some).astype(np.float32) for one in groups]
        pieces.append(np.median(np.concatenate(images), axis=0).astype(np.float32))
    return np.concatenate(pieces)


def gain_of(
    flats: tuple[Flats, ...], dark: Values, rows: slice, budget: float, dead: NDArray[np.bool_]
) -> float | None:
    """Counts a photon: the variance of flats beside their mean, by differences of successive ones (R, D).

    A beam that grows or fades is not taken for noise: each flat is scaled to the one before it.
    """
    found = []
    for flat in flats:
        count = min(flat.frames.shape[0], max(2, int(budget / (dark.size * 8))))
        if count < 2:
            continue
        images = flat.frames.read(np.arange(count), rows).astype(np.float32) - dark
        images = images[:, ~dead]
        level = images.mean(1, keepdims=True)
        if (level <= 0).any():
            continue
        scale = level[0] / level
        images *= scale
        noise = np.median(np.square(np.diff(images, axis=0)), axis=1) / 0.4549  # the median of chi squared
        found.append(float((noise / (scale[1:] + scale[:-1])[:, 0]).mean() / level[0, 0]))
    gain = float(np.mean(found)) if found else 0.0
    return gain if gain > 0 else None


def dead_pixels(light: Values) -> NDArray[np.bool_]:
    """Pixels whose flat is far from those around it in the row: (R, D)."""
    half = NEIGHBOURS // 2
    padded = np.pad(light, ((0, 0), (half, half)), mode="reflect")
    around = np.empty_like(light)
    for first in range(0, len(light), 64):
        windows = np.lib.stride_tricks.sliding_window_view(padded[first : first + 64], NEIGHBOURS, axis=1)
        around[first : first + 64] = np.median(windows, axis=-1)
    dead: NDArray[np.bool_] = (light <= DEAD * around) | (light > HOT * np.maximum(around, 0)) | ~np.isfinite(light)
    return dead


def _check_lit(light: Values, dead: NDArray[np.bool_], first: int) -> None:
    dim = np.flatnonzero((light <= 0).mean(1) > 0.5)
    if dim.size:
        raise DataError(
            f"{dim.size} rows, the first {first + dim[0]}, get no light in the flats; leave them out: --rows FIRST END"
        )
    if dead.mean() > MOST_DEAD:
        raise DataError(
            f"{100 * dead.mean():.0f} % of the detector's pixels look dead in the flats; look at those, or switch this "
            "off: --correct.dead false"
        )


def filled(images: Values, dead: NDArray[np.bool_]) -> Values:
    """Images (R, A, D) whose dead pixels (R, D) lie on the line between the nearest others in the row."""
    if not dead.any():
        return images
    images = images.copy()
    for row in np.flatnonzero(dead.any(1)):
        gone, good = np.flatnonzero(dead[row]), np.flatnonzero(~dead[row])
        if not good.size:
            continue
        after = np.searchsorted(good, gone)
        left, right = good[np.maximum(after - 1, 0)], good[np.minimum(after, good.size - 1)]
        share = np.where(right > left, (gone - left) / np.maximum(right - left, 1), 0.0).astype(np.float32)
        images[row][:, gone] = images[row][:, left] * (1 - share) + images[row][:, right] * share
    return images


def binned(images: Values, size: int) -> Values:
    """Sums of so many rows and columns: (R, .., D) -> (R // size, .., D // size); what is left over is cut off."""
    if size == 1:
        return images
    rows, width = images.shape[0] // size, images.shape[-1] // size
    cut = images[: rows * size, ..., : width * size]
    return np.asarray(cut.reshape(rows, size, *cut.shape[1:-1], width, size).sum((1, -1)), dtype=np.float32)


def clean(counts: Values, fixed: Fixed, row: int, config: ScanConfig, whole_numbers: bool) -> Cleaned:
    """The line integrals of one binned row.

    Args:
        counts: (A, D), without dead pixels, binned.
        fixed: of the detector.
        row: which of its rows.
        config: the settings.
        whole_numbers: the values are counts as a detector gives them.
    """
    if config.read.values == "signal":
        signal = counts / np.float32(config.bin**2)
        zingers = replace_zingers(signal, config.correct.zingers) if config.correct.zingers else 0
        if config.correct.air:
            signal -= air(signal, config.correct.air)
        return Cleaned(signal, zingers, 0, signal.mean(1))
    if config.read.values == "integrals":
        passed = np.exp(-counts / config.bin**2)
    else:
        light = [flat[row] - fixed.dark[row] for flat in fixed.flats]
        flat = light[0] if len(light) == 1 else _between(light, fixed.times, len(counts))
        passed = (counts - fixed.dark[row]) / (flat if config.read.values == "counts" else config.bin**2)
    if config.correct.air:
        passed = passed / air(passed, config.correct.air)
    zingers = replace_zingers(passed, config.correct.zingers) if config.correct.zingers else 0
    least = LEAST_COUNT / flat if whole_numbers and config.read.values == "counts" else np.float32(1e-4)
    if config.read.values == "integrals":
        least = np.float32(1e-30)
    floored = int(np.count_nonzero(~(passed > (least if config.read.values == "integrals" else 0))))
    integrals = np.asarray(-np.log(np.maximum(passed, least)), dtype=np.float32)
    return Cleaned(integrals, zingers, floored, passed.mean(1))


def _between(light: list[Values], times: list[float], count: int) -> Values:
    """The flat of each projection: (A, D)."""
    numbers = np.arange(count) + 0.5
    place = np.interp(numbers, times, np.arange(len(times)))
    low = np.minimum(place.astype(int), len(times) - 2)
    share = (place - low)[:, None].astype(np.float32)
    stack = np.stack(light)
    return np.asarray(stack[low] * (1 - share) + stack[low + 1] * share, dtype=np.float32)


def air(passed: Values, columns: int) -> Values:
    """What passes through air in each projection, on the line between the means of so many columns at either side.

    (A, D) -> (A, D). Raises ConfigError where there are not so many columns.
    """
    width = passed.shape[1]
    if 2 * columns > width:
        raise ConfigError(f"--correct.air {columns} at either side is more than the {width} columns; give fewer")
    left, right = passed[:, :columns].mean(1), passed[:, -columns:].mean(1)
    middle = (columns - 1) / 2
    share = ((np.arange(width) - middle) / (width - 1 - 2 * middle)).astype(np.float32)
    return np.asarray(np.maximum(left[:, None] * (1 - share) + right[:, None] * share, 1e-6), dtype=np.float32)


def replace_zingers(passed: Values, threshold: float) -> int:
    """Replaces, in place, values (A, D) that stand out of all around them in the projections before and after.

    The roots of counts have the same noise everywhere, whose standard deviation is that of differences in time. A gap
    in the object that moves a column from one projection to the next is among those around it. Returns how many.
    """
    if len(passed) < 3:
        return 0
    root = np.sqrt(np.maximum(passed, 0))
    wide = np.maximum(root, np.maximum(np.roll(root, 1, 1), np.roll(root, -1, 1)))
    around = np.empty_like(root)
    around[1:-1] = np.maximum(wide[:-2], wide[2:])
    around[0], around[-1] = wide[1], wide[-2]
    noise = 1.4826 * float(np.median(np.abs(root[2:] - 2 * root[1:-1] + root[:-2]))) / 6**0.5
    found = root - around > threshold * max(noise, 1e-6)
    angle, column = np.nonzero(found)
    before, after = np.maximum(angle - 1, 0), np.minimum(angle + 1, len(passed) - 1)
    before, after = np.where(angle == 0, after, before), np.where(angle == len(passed) - 1, before, after)
    passed[angle, column] = (passed[before, column] + passed[after, column]) / 2
    return len(angle)


def check_light(light: NDArray[np.floating[Any]], floored: float, values: str, source: str) -> None:
    """Raises DataError where projections are dark or no numbers, or where many counts are none or less.

    Args:
        light: (A,), the mean share that passes.
        floored: the share of the values that are none or less, or integrals beyond what can pass.
        values: what is stored.
        source: of the scan, for messages.
    """
    if (bad := np.flatnonzero(~np.isfinite(light))).size:
        out = f"leave them out: --read.skip {_listed(bad)}, or the rows with such values: --rows"
        if bad.size == len(light):
            out = "leave out the rows with such values, --rows, or give counts without them: a dead pixel is 0"
        raise DataError(f"{source}: {bad.size} of {len(light)} projections have values that are NaN or infinite; {out}")
    if floored > 0.02 and values == "integrals":
        raise DataError(
            f"{source}: {100 * floored:.1f} % of the values are above 69, but no ray comes out of that; if they are in "
            "units of their own, as dark-field electrons or fluorescence: --read.values signal"
        )
    usual = float(np.median(light))
    dark = np.flatnonzero(~(light > DARK_FRAME * usual)) if usual > 0 else np.arange(len(light))
    if dark.size == len(light):
        raise DataError(
            f"{source}: all projections are dark (no brighter than the darks); was the shutter closed, or are flats, "
            "darks and projections mixed up? Name others: --read.data, --read.darks"
        )
    if dark.size:
        raise DataError(
            f"{source}: {dark.size} of {len(light)} projections are dark (less than {100 * DARK_FRAME:g} % of the "
            f"others' light); leave them out: --read.skip {_listed(dark)}"
        )
    if floored > 0.02:
        what = "counts are not above the darks" if values == "counts" else "values are 0 or negative"
        raise DataError(
            f"{source}: {100 * floored:.1f} % of the {what}, so that they have no logarithm; give the right darks "
            "(--read.darks), leave out rows without light (--rows), or say what the values are: --read.values"
        )


def _listed(numbers: NDArray[np.int64]) -> str:
    return ",".join(map(str, numbers[:20])) + (",.." if len(numbers) > 20 else "")
