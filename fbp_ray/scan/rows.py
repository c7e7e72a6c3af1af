"""The detector rows of a scan one after the other, in bounded memory, however its file stores them.

Projections that fit in memory are read once. Others are read some rows at a time where the file is laid out for that.
Where it is not (an image a chunk, or a TIFF file an image), they are first copied, some projections at a time, to a
file in which the rows lie one after the other.

Dimensions: A angles, R detector rows, D detector columns.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fbp_ray.errors import DataError
from fbp_ray.scan.raw import Array, Frames, Indices

Advance = Callable[[int], None]


class RowReader:
    """Reads rows of projections.

    Args:
        projections: (A, R, D).
        first, last: the rows that will be read: the first, and the one after the last.
        budget: bytes to hold at a time.
    """

    def __init__(self, projections: Frames, first: int, last: int, budget: float) -> None:
        self._projections = projections
        self.first, self.last = first, last
        self._count, self._width = projections.shape[0], projections.shape[2]
        self._row_bytes = self._count * self._width * projections.dtype.itemsize
        self.together = max(1, int(budget // self._row_bytes))
        self._budget = budget
        self._held: Array | None = None
        self._copy: Path | None = None

    @property
    def scratch_bytes(self) -> int:
        """What the copy takes on the disk, 0 where there is none."""
        rows = self.last - self.first
        fits = rows <= self.together
        return 0 if fits or self._projections.rows_together <= self.together else rows * self._row_bytes

    def prepare(self, scratch: Path, advance: Advance) -> None:
        """Reads everything where it fits in memory, else makes the copy where one is needed.

        Args:
            scratch: a file to make; whoever makes its folder removes it.
            advance: is told how many projections were read.
        """
        if self.last - self.first <= self.together:
            self._held = self._some(np.arange(self._count), slice(self.first, self.last)).transpose(1, 0, 2)
            advance(self._count)
        elif self.scratch_bytes:
            self._write_copy(scratch, advance)
            self._copy = scratch
        else:
            advance(self._count)

    def blocks(self) -> list[tuple[int, int]]:
        """All rows in pieces that fit in memory, as (first, one after the last), whole chunks where there are any."""
        step = self.together
        if self._held is None and self._copy is None:
            step = max(1, step // self._projections.rows_together) * self._projections.rows_together
        starts = [self.first, *range((self.first // step + 1) * step, self.last, step)]
        return list(zip(starts, [*starts[1:], self.last], strict=True))

    def read(self, first: int, last: int) -> Array:
        """Some rows, (r, A, D)."""
        if self._held is not None:
            return self._held[first - self.first : last - self.first]
        if self._copy is not None:
            shape = (last - first, self._count, self._width)
            with self._copy.open("rb") as file:
                file.seek((first - self.first) * self._row_bytes)
                return np.fromfile(file, self._projections.dtype, int(np.prod(shape))).reshape(shape)
        return self._some(np.arange(self._count), slice(first, last)).transpose(1, 0, 2)

    def _some(self, numbers: Indices, rows: slice) -> Array:
        try:
            return self._projections.read(numbers, rows)
        except OSError as error:
            raise DataError(f"a projection between {numbers[0]} and {numbers[-1]} cannot be read: {error}") from None

    def _write_copy(self, scratch: Path, advance: Advance) -> None:
        rows = slice(self.first, self.last)
        image = (self.last - self.first) * self._width * self._projections.dtype.itemsize
        chunk = self._projections.frames_together
        step = max(1, int(self._budget // image) // chunk) * chunk
        with scratch.open("wb") as file:
            for start in range(0, self._count, step):
                numbers = np.arange(start, min(start + step, self._count))
                images = self._some(numbers, rows).transpose(1, 0, 2)
                for row, values in enumerate(images):
                    offset = row * self._row_bytes + start * self._width * values.itemsize
                    os.pwrite(file.fileno(), np.ascontiguousarray(values).tobytes(), offset)
                advance(len(numbers))
