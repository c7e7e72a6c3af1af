"""A scan as it was measured: projections that are read when they are needed, flats, darks and angles.

Dimensions: A angles (projections), R detector rows, D detector columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fbp_ray.errors import DataError

Array = NDArray[Any]
Indices = NDArray[np.int64]
Axes = tuple[int | None, int | None, int]
"""Which axes of a stored array are the image's number, its rows and its columns; None where there is one."""


@dataclass(frozen=True)
class Frames:
    """Images of the detector, (n, R, D), that stay where they are until they are read.

    Args:
        shape: (n, R, D).
        dtype: of the values.
        read: some of them, by number, and some rows, as an array (a, r, D) of this dtype.
        frames_together: how many images are best read at once.
        rows_together: how many rows are best read at once: R where an image is only read whole.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    read: Callable[[Indices, slice], Array]
    frames_together: int = 1
    rows_together: int = 1

    def some(self, numbers: Indices) -> Frames:
        """Those of these numbers, in this order."""
        shape = (len(numbers), *self.shape[1:])
        return Frames(
            shape, self.dtype, lambda n, rows: self.read(numbers[n], rows), self.frames_together, self.rows_together
        )


class Stored(Protocol):
    """An array that may lie in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all its axes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its values."""

    def __getitem__(self, key: Any, /) -> Any: ...


def arranged(stored: Stored, axes: Axes) -> Frames:
    """A stored array of two or three axes as images.

    Args:
        stored: a NumPy array, an HDF5 data set, or what is sliced like them.
        axes: what its axes are.
    """
    shape = tuple(1 if axis is None else int(stored.shape[axis]) for axis in axes)
    there = [axis for axis in axes if axis is not None]
    chunks = getattr(stored, "chunks", None) or (1,) * len(stored.shape)

    def read(numbers: Indices, rows: slice) -> Array:
        pieces = []
        for first, last in runs(numbers) if axes[0] is not None else [(0, 1)]:
            key = [slice(None)] * len(there)
            if axes[0] is not None:
                key[axes[0]] = slice(first, last)
            if axes[1] is not None:
                key[axes[1]] = rows
            piece = np.asarray(stored[tuple(key)]).transpose(there)
            if axes[0] is None:
                piece = piece[None]
            pieces.append(piece if axes[1] is not None else piece[:, None][:, rows])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    together = (chunks[axis] if axis is not None else 1 for axis in axes[:2])
    return Frames((shape[0], shape[1], shape[2]), stored.dtype, read, *together)


def runs(numbers: Indices) -> Iterator[tuple[int, int]]:
    """Numbers as ranges of consecutive ones: (first, one after the last)."""
    if not len(numbers):
        return
    starts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 2) != 1)
    for start, end in zip(starts, [*starts[1:], len(numbers)], strict=True):
        yield int(numbers[start]), int(numbers[end - 1]) + 1


class Flats(NamedTuple):
    """Flats that were taken together, and when."""

    frames: Frames
    time: float
    """Where among the projections: the number of those before them."""


@dataclass(frozen=True)
class RawScan:
    """A scan of a parallel beam.

    Args:
        projections: (A, R, D).
        angles: (A,), radians.
        flats: in order of time; empty for transmissions and line integrals.
        darks: (n, R, D), or None.
        pixel_size: metres, None where the file does not say.
        source: what it was read from, in words.
    """

    projections: Frames
    angles: NDArray[np.float64]
    flats: tuple[Flats, ...]
    darks: Frames | None
    pixel_size: float | None
    source: str


def check(raw: RawScan) -> RawScan:
    """The scan, whose parts fit one another.

    Raises:
        DataError: they do not.
    """
    count, *detector = raw.projections.shape
    if raw.projections.dtype.kind not in "uif":
        raise DataError(f"{raw.source}: the projections are {raw.projections.dtype}, not numbers; name others")
    if count < 2 or raw.projections.shape[2] < 2:
        raise DataError(
            f"{raw.source} has {count} projection{'s'[: count != 1]} of {raw.projections.shape[2]} columns; a scan has "
            "many of both; name other data, of three dimensions: --read.data"
        )
    if len(raw.angles) != count:
        raise DataError(
            f"{raw.source} has {count} projections but {len(raw.angles)} angles; there is one a projection: name the "
            "right ones (--read.angles), or leave projections out (--read.skip)"
        )
    if not np.isfinite(raw.angles).all():
        raise DataError(
            f"{raw.source}: {np.count_nonzero(~np.isfinite(raw.angles))} angles are NaN or infinite, the first of "
            f"projection {int(np.argmin(np.isfinite(raw.angles)))}; leave those projections out: --read.skip"
        )
    named = [("flats", flats.frames) for flats in raw.flats] + ([("darks", raw.darks)] if raw.darks else [])
    for name, frames in named:
        if list(frames.shape[1:]) != detector:
            raise DataError(
                f"{raw.source}: the {name} are {frames.shape[1]} x {frames.shape[2]} (rows x columns), but the "
                f"projections {detector[0]} x {detector[1]}; give {name} of the same detector and binning "
                f"(--read.{name})"
            )
    return raw


def turned(raw: RawScan) -> RawScan:
    """The scan with the axis along its columns, where it lies along the rows of the stored images."""
    flats = tuple(flat._replace(frames=_turned(flat.frames)) for flat in raw.flats)
    darks = None if raw.darks is None else _turned(raw.darks)
    return RawScan(_turned(raw.projections), raw.angles, flats, darks, raw.pixel_size, raw.source)


def _turned(frames: Frames) -> Frames:
    count, rows, columns = frames.shape

    def read(numbers: Indices, some: slice) -> Array:
        return frames.read(numbers, slice(0, rows))[:, :, some].swapaxes(1, 2)

    return Frames((count, columns, rows), frames.dtype, read, frames.frames_together, columns)


def skip(raw: RawScan, numbers: tuple[int, ...]) -> RawScan:
    """The scan without the projections of these numbers; raises DataError where one does not exist."""
    count = raw.projections.shape[0]
    if any(number >= count for number in numbers):
        raise DataError(
            f"--read.skip {max(numbers)}, but {raw.source} has {count} projections, numbered from 0; leave it out"
        )
    kept = np.setdiff1d(np.arange(count), numbers)
    flats = tuple(flat._replace(time=flat.time - sum(n < flat.time for n in set(numbers))) for flat in raw.flats)
    return RawScan(raw.projections.some(kept), raw.angles[kept], flats, raw.darks, raw.pixel_size, raw.source)


Unit = Literal["degrees", "radians"]


def unit_in(text: object) -> Unit | None:
    """The unit that a file's attribute names."""
    word = (text.decode(errors="replace") if isinstance(text, bytes) else str(text)).strip().lower()
    return "degrees" if word.startswith("deg") or word == "°" else "radians" if word.startswith("rad") else None


def in_radians(angles: Array, told: Literal["auto", "degrees", "radians"], stored: Unit | None = None) -> Array:
    """Angles (A,) in radians, those of many turns modulo 2 pi.

    Args:
        angles: as they are stored.
        told: the unit that somebody gave.
        stored: the unit that the file names.

    Raises:
        DataError: the span is far from a half and a full circle in either unit, or not one of a scan in the unit told.
    """
    angles = np.asarray(angles, dtype=np.float64).ravel()
    if len(angles) < 2 or not np.isfinite(angles).all():
        return angles
    span = float(np.ptp(angles)) * len(angles) / (len(angles) - 1)
    units: list[tuple[Unit, float, int]] = [("degrees", 180.0, 20), ("radians", math.pi, 4)]
    possible = [name for name, half, most in units if _turns(span, half, most)]
    unit: Unit | None = stored if told == "auto" else told
    came = f"the angles run from {angles.min():g} to {angles.max():g}"
    if unit is None:
        if not possible:
            raise DataError(
                f"{came}, which is far from a half or a full circle in degrees and in radians; say which they are: "
                "--read.angle_unit degrees, or radians"
            )
        unit = possible[0]
    elif told == "auto" and possible and unit not in possible:
        raise DataError(
            f"{came} and are said to be {unit}, but are a half or a full circle in {possible[0]}; say which they are: "
            f"--read.angle_unit {possible[0]}, or {unit}"
        )
    radians = np.deg2rad(angles) if unit == "degrees" else angles
    reach = math.degrees(float(np.ptp(radians)))
    if not 20 <= reach <= 36000 or (unit == "radians" and reach > 3600 and _turns(span, 180.0, 20)):
        other = "radians" if unit == "degrees" else "degrees"
        raise DataError(
            f"{came}, which in {unit} is a scan over {reach:.4g} degrees; were {other} meant? Give --read.angle_unit "
            f"{other}, or angles that span 20 degrees or more"
        )
    return np.mod(radians, 2 * math.pi) if np.ptp(radians) > 2.05 * math.pi else radians


def _turns(span: float, half: float, most: int) -> bool:
    """Whether a span is a whole number of half circles, up to `most`, give or take a tenth of one."""
    halves = span / half
    return 0.85 <= halves <= most + 0.1 and abs(halves - round(halves)) <= 0.1


def axes_of(shape: tuple[int, ...], angles: int, order: Literal["auto", "projections", "sinograms"], name: str) -> Axes:
    """Which axes of a stack are (angle, row, column).

    Args:
        shape: of the stack, (A, D) of one row or of three axes.
        angles: how many there are, 0 where that is not known.
        order: as told.
        name: of the stack, for messages.

    Raises:
        DataError: that is not clear.
    """
    if len(shape) == 2:
        return (0, None, 1)
    if len(shape) != 3:
        raise DataError(f"{name}: a scan has three axes, angle, row and column, but this has the shape {tuple(shape)}")
    if order == "auto":
        fits = [axis for axis in (0, 1) if shape[axis] == angles]
        if len(fits) != 1:
            known = f"there are {angles} angles" if angles else "no angles are given with it"
            raise DataError(
                f"{name} has the shape {tuple(shape)}, and {known}; say what it is: --read.order projections (angle, "
                "row, column), or sinograms (row, angle, column)"
            )
        return (0, 1, 2) if fits == [0] else (1, 0, 2)
    return (0, 1, 2) if order == "projections" else (1, 0, 2)


def images_of(stored: Stored, like: Frames) -> Frames:
    """Flats or darks: one image, or several along whichever axis makes them fit the projections."""
    if len(stored.shape) == 2 and like.shape[1] == 1 and stored.shape[1] == like.shape[2]:  # (n, D) of one row
        return arranged(stored, (0, None, 1))
    if len(stored.shape) == 2:
        return arranged(stored, (None, 0, 1))
    if len(stored.shape) != 3:
        raise DataError(f"flats and darks are one image or several, but these have the shape {tuple(stored.shape)}")
    by_rows = stored.shape[0] == like.shape[1] != stored.shape[1]
    return arranged(stored, (1, 0, 2) if by_rows else (0, 1, 2))
