"""Which sample of a data folder holds which row of the scan, and reading rows in the scan's order.

A scan's rows are shared out among the parts. Its `dataset.json` says which row each sample is:
`"rows": {"train": [0, 80], "validation": [80, 90], "test": [90, 100]}`, for each part its first row and the one after
its last, or the row of each sample. Where it does not say, a part's samples are taken as rows, in their order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fbp_ray.data import LoDoPaB, describe
from fbp_ray.data.hdf5_reader import Array
from fbp_ray.data.layout import DESCRIPTION, find_parts
from fbp_ray.errors import DataError
from fbp_ray.geometry import Geometry
from fbp_ray.memory import available_bytes, keep_no_copy


class Run(NamedTuple):
    """Rows of the scan that follow one another in a part too."""

    part: str
    sample: int
    """The first one's number in the part."""

    row: int
    """The first one's number in the scan."""

    length: int


class Rows:
    """Rows of a scan, read in their order.

    Args:
        folder: the data.
        geometry: what its files are expected to hold.
        runs: the rows.
        every, first_angles: the angles that are taken, as for `LoDoPaB`.
    """

    def __init__(
        self, folder: Path, geometry: Geometry, runs: Sequence[Run], every: int = 1, first_angles: int | None = None
    ) -> None:
        self.runs = list(runs)
        self.parts = {
            part: LoDoPaB(folder, part, geometry, every=every, truth=False, first_angles=first_angles)
            for part in dict.fromkeys(run.part for run in runs)
        }
        self.ends = np.cumsum([run.length for run in runs]).tolist()
        self.shape = next(iter(self.parts.values())).geometry.sinogram_shape
        self.many = 4 * self.ends[-1] * math.prod(self.shape) > available_bytes() / 2

    def __len__(self) -> int:
        return int(self.ends[-1])

    def read(self, first: int, into: Array) -> None:
        """Reads the rows from the `first`-th on, as many as fit into an array (n, A, D), contiguous.

        Raises:
            DataError: one cannot be read, or has values that are not finite; it is named.
        """
        for part, sample, where in self._pieces(first, first + len(into)):
            self.parts[part].read(sample, into[where], np.empty((where.stop - where.start, 0, 0), np.float32))
            if self.many:
                with self.parts[part].file(sample).open("rb") as file:
                    keep_no_copy(file.fileno())

    def _pieces(self, first: int, end: int) -> Iterator[tuple[str, int, slice]]:
        """What can be read at once, as each lies in one file: part, first sample, place among the rows."""
        done = first
        number = int(np.searchsorted(self.ends, first, side="right"))
        while done < end:
            run, left = self.runs[number], self.ends[number] - done
            sample = run.sample + run.length - left
            files = self.parts[run.part]
            count = min(left, end - done)
            while files.place(sample + count - 1).file != files.place(sample).file:
                count -= files.place(sample + count - 1).row + 1
            yield run.part, sample, slice(done - first, done - first + count)
            done += count
            number += count == left


def find_rows(folder: Path, geometry: Geometry, part: str | None, wanted: str | None) -> list[Run]:
    """The rows of a data folder, in the scan's order.

    Args:
        folder: the data.
        geometry: theirs.
        part: these rows alone.
        wanted: FIRST:END, FIRST:END:STEP or one number; all by default.

    Raises:
        DataError: the folder or a part is missing, does not say which rows it holds, or has no such rows.
    """
    numbers = _numbers(folder)
    parts = [part] if part else list(find_parts(folder))
    if not part and numbers is None and len(parts) > 1:
        raise DataError(
            f"{folder} does not say which rows of a scan its parts {', '.join(parts)} hold (`rows` in its "
            f"{DESCRIPTION}); choose one of them: --part {parts[-1]}"
        )
    found: dict[int, tuple[str, int]] = {}
    for name in parts:
        length = len(LoDoPaB(folder, name, geometry, truth=False))
        rows = list(range(length)) if numbers is None else numbers.get(name, [])
        if len(rows) == 2 and rows[1] - rows[0] == length:  # a block: its first, and the one after its last
            rows = list(range(*rows))
        if len(rows) != length:
            raise DataError(
                f"{folder / DESCRIPTION} lists {len(rows)} rows of the {name} part, which has {length} samples; put "
                "the list right, or make the data again"
            )
        for sample, row in enumerate(rows):
            if row in found:
                raise DataError(
                    f"{folder / DESCRIPTION} has the row {row} twice, as sample {found[row][1]} of {found[row][0]} and "
                    f"{sample} of {name}; put the list right, or make the data again"
                )
            found[row] = name, sample
    return list(_runs(found, _chosen(found, wanted, folder)))


def _numbers(folder: Path) -> dict[str, list[int]] | None:
    """The rows of each part, None where the data do not say."""
    rows: Any = (describe(folder) or {}).get("rows")
    if rows is None:
        return None
    if not isinstance(rows, dict) or not all(
        isinstance(of, list) and all(type(row) is int and row >= 0 for row in of) for of in rows.values()
    ):
        raise DataError(
            f'{folder / DESCRIPTION} should have `rows` as lists of numbers by part, such as {{"test": [0, 1]}}; put '
            "it right, or make the data again"
        )
    return rows


def _chosen(found: dict[int, tuple[str, int]], wanted: str | None, folder: Path) -> list[int]:
    """The numbers of the rows that are wanted, ascending."""
    there = sorted(found)
    first, end = there[0], there[-1] + 1
    if wanted is None:
        return there
    begin, _, rest = wanted.partition(":")
    stop, _, step = rest.partition(":")
    if ":" not in wanted:
        stop = str(int(wanted) + 1)
    low, high = int(begin or first), int(stop or end)
    if low < first or high > end or low >= high:
        raise DataError(f"--rows {wanted} asks for rows from {low} to {high - 1}, {folder} has {first} to {end - 1}")
    chosen = [row for row in range(low, high, int(step or 1)) if row in found]
    if not chosen:
        raise DataError(
            f"--rows {wanted} names none of the {len(there)} rows that {folder} has from {first} to {end - 1}"
        )
    return chosen


def _runs(found: dict[int, tuple[str, int]], rows: list[int]) -> Iterator[Run]:
    begun: Run | None = None
    for row in rows:
        part, sample = found[row]
        if begun and (part, sample, row) == (begun.part, begun.sample + begun.length, begun.row + begun.length):
            begun = begun._replace(length=begun.length + 1)
            continue
        if begun:
            yield begun
        begun = Run(part, sample, row, 1)
    if begun:
        yield begun
