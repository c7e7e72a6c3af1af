"""Rows read from a list of HDF5 files, opened when first needed and safe to carry into other processes."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from fbp_ray.data.layout import Place
from fbp_ray.data.plain import Places, PlainFile, places_of, version_of
from fbp_ray.errors import DataError

MOST_OPEN = 4
"""Files that a reader keeps open at a time. Opening one takes less than 0.1 ms; an open HDF5 file takes memory."""

CHUNK_CACHE = 1 << 20
"""Bytes of chunks that HDF5 keeps for an open file. A block is read once, but chunks that cannot be kept are slow."""

VIRTUAL_BLOCK = 8
"""Rows of a virtual data set that are read together: it opens other files, which takes as long as reading some rows."""

AGAIN = "download it again, or simulate the data again"


class Stored(NamedTuple):
    """What a file's data set `data` is."""

    shape: tuple[int, int, int]
    """(rows, ., .)"""

    together: int
    """The rows that are best read together, counted from the first: those of a chunk."""


def stored_in(path: Path) -> Stored:
    """What a file holds.

    Raises:
        DataError: the file is damaged, or its `data` is missing or not a float32 array of three dimensions.
    """
    with open_file(path) as file:
        data = data_of(file, path)
        if data.ndim != 3 or data.dtype != np.float32:
            raise DataError(
                f"{path}: `data` should be float32 of shape (rows, ., .), but it is {data.dtype} of shape "
                f"{data.shape}; {AGAIN}"
            )
        together = VIRTUAL_BLOCK if data.is_virtual else data.chunks[0] if data.chunks else 1
        return Stored(data.shape, together)


def open_file(path: Path) -> h5py.File:
    """Opens a file for reading; raises DataError where HDF5 cannot read it."""
    try:
        return h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE)
    except OSError as error:
        size = path.stat().st_size if path.exists() else 0
        raise DataError(
            f"{path} ({size} bytes) cannot be read as HDF5: {error}. It may be damaged or cut short; {AGAIN}"
        ) from None


def data_of(file: h5py.File, path: Path) -> Any:
    """The data set `data` of an open file; raises DataError where there is none."""
    data = file.get("data")
    if not isinstance(data, h5py.Dataset):
        raise DataError(f"{path} has no data set `data`, only {sorted(file)}; {AGAIN}")
    return data


class _Hdf5File:
    """An open HDF5 file whose rows are read through HDF5: those that are compressed, or in chunks of several."""

    def __init__(self, file: h5py.File, data: Any) -> None:
        self._file = file  # HDF5 closes its data sets with it
        self._data = data
        self.shape: tuple[int, ...] = data.shape[1:]

    def read(self, first: int, buffer: NDArray[np.float32]) -> None:
        self._data.read_direct(buffer, np.s_[first : first + len(buffer)])


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
        self._open: OrderedDict[int, PlainFile | _Hdf5File] = OrderedDict()
        self._lock = threading.Lock()
        self._process = os.getpid()

    def read(self, place: Place) -> NDArray[np.float32]:
        """One row, float32; raises DataError as `read_into` does."""
        values = np.empty((1, *self._file(place.file).shape), np.float32)
        self.read_into(place, values)
        row: NDArray[np.float32] = values[0]
        return row

    def read_into(self, place: Place, buffer: NDArray[np.float32]) -> None:
        """Reads consecutive rows of one file.

        Args:
            place: the first of them.
            buffer: (rows, ., .), contiguous; as many rows are read as it has.

        Raises:
            DataError: rows cannot be read, or hold values that are not finite.
        """
        path, rows = self.paths[place.file], _words(place.row, len(buffer))
        try:
            self._file(place.file).read(place.row, buffer)
        except OSError as error:
            raise DataError(f"{rows} of {path} cannot be read: {error}. The file may be damaged; {AGAIN}") from None
        # NaN and infinity show in one or the other, and this takes half the time of looking at each value.
        if not (np.isfinite(buffer.max()) and np.isfinite(buffer.min())):
            bad = int(np.count_nonzero(~np.isfinite(buffer)))
            raise DataError(f"{rows} of {path} has {bad} values that are NaN or infinite; {AGAIN}")

    def _file(self, number: int) -> PlainFile | _Hdf5File:
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

    def _opened(self, number: int) -> PlainFile | _Hdf5File:
        path, known = self.paths[number], self._places.get(number)
        if known is not None and path.exists() and version_of(path) == known.version:
            return PlainFile(path, known)
        file = open_file(path)
        data = data_of(file, path)
        places = places_of(data, path)
        if places is None:
            return _Hdf5File(file, data)
        file.close()
        self._places[number] = places
        return PlainFile(path, places)


def _words(first: int, count: int) -> str:
    return f"row {first}" if count == 1 else f"rows {first} to {first + count - 1}"
