"""Rows read from a list of files, opened when first needed and safe to carry into other threads and processes."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fbp_ray.data.hdf5 import AGAIN, Hdf5File, data_of, open_file
from fbp_ray.data.layout import Place
from fbp_ray.data.plain import Array, Chunks, Places, PlainFile, places_of, version_of
from fbp_ray.errors import DataError

MOST_OPEN = 4
"""Files that a reader keeps open at a time. Opening one takes less than 0.1 ms; an open HDF5 file takes memory."""


class Block:
    """Consecutive rows of a file that have been read together."""

    def __init__(self, path: Path, first: int, rows: Chunks) -> None:
        self._path = path
        self._first = first
        self._rows = rows

    @property
    def memory(self) -> Array:
        """What it lies in, for another block once this one is used no more."""
        return self._rows.memory

    def copy_row(self, row: int, to: Array) -> None:
        """Copies a row, counted from the block's first, to `to`; raises DataError if a value is not finite."""
        self._rows.copy_row(row, to)
        _check_finite(to, self._path, self._first + row)


class RowReader:
    """Reads rows from a list of files; keeps the files used last open. Threads may read at once.

    Nothing is open before the first read. A copy that is pickled, and a child that is forked, open their own files:
    HDF5 handles do not survive either.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.__setstate__({"paths": list(paths)})

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.paths: list[Path] = state["paths"]
        self._places: dict[int, Places] = {}
        self._forget()

    def _forget(self) -> None:
        self._open: OrderedDict[int, PlainFile | Hdf5File] = OrderedDict()
        self._lock = threading.Lock()
        self._process = os.getpid()

    def read(self, place: Place) -> Array:
        """One row, float32; raises DataError as `read_into` does."""
        values: Array = np.empty(self._file(place.file).shape[1:], np.float32)
        self.read_into(place, values)
        return values

    def read_into(self, place: Place, to: Array) -> None:
        """Reads one row into `to`, (., .) and contiguous.

        Raises:
            DataError: it cannot be read, or holds values that are not finite.
        """
        try:
            self._file(place.file).read_row(place.row, to)
        except OSError as error:
            raise _unreadable(f"row {place.row}", self.paths[place.file], error) from None
        _check_finite(to, self.paths[place.file], place.row)

    def read_block(self, place: Place, count: int, memory: Array | None = None) -> Block:
        """Reads `count` rows of one file from `place` on; each chunk of the file is read once.

        Args:
            place: the first of them.
            count: how many.
            memory: of a block that is used no more; it is used again if it is large enough.

        Raises:
            DataError: they cannot be read.
        """
        path = self.paths[place.file]
        try:
            return Block(path, place.row, self._file(place.file).read_block(place.row, count, memory))
        except OSError as error:
            raise _unreadable(f"one of the rows {place.row} to {place.row + count - 1}", path, error) from None

    def _file(self, number: int) -> PlainFile | Hdf5File:
        if self._process != os.getpid():
            self._forget()
        with self._lock:
            if number in self._open:
                self._open.move_to_end(number)
            else:
                self._open[number] = self._opened(number)
                if len(self._open) > MOST_OPEN:
                    self._open.popitem(last=False)
            return self._open[number]

    def _opened(self, number: int) -> PlainFile | Hdf5File:
        path, known = self.paths[number], self._places.get(number)
        if known is not None and path.exists() and version_of(path) == known.version:
            return PlainFile(path, known)
        file = open_file(path)
        data = data_of(file, path)
        places = places_of(data, path)
        if places is None:
            return Hdf5File(file, data)
        file.close()
        self._places[number] = places
        return PlainFile(path, places)


def _unreadable(rows: str, path: Path, error: OSError) -> DataError:
    return DataError(f"{rows} of {path} cannot be read: {error}. The file may be damaged; {AGAIN}")


def _check_finite(values: Array, path: Path, row: int) -> None:
    # NaN and infinity show in one or the other, and this takes half the time of looking at each value.
    if not (np.isfinite(values.max()) and np.isfinite(values.min())):
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise DataError(f"row {row} of {path} has {bad} values that are NaN or infinite; {AGAIN}")
