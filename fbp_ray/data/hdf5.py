"""LoDoPaB-CT's HDF5 files: what is in them, and reading rows through HDF5."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from fbp_ray.data.plain import Array, Chunks
from fbp_ray.errors import DataError

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


class Hdf5File:
    """An open HDF5 file whose rows are read through HDF5: compressed ones, or those of a virtual data set."""

    def __init__(self, file: h5py.File, data: Any) -> None:
        self._file = file  # HDF5 closes its data sets with it
        self._data = data
        self.shape: tuple[int, ...] = data.shape

    def read_row(self, row: int, to: Array) -> None:
        """Reads one row into `to`, contiguous; raises OSError where it cannot."""
        self._data.read_direct(to, np.s_[row])

    def read_block(self, first: int, count: int, memory: Array | None) -> Chunks:
        """Reads `count` rows from `first` on, into `memory` if it is as large as need be; raises OSError."""
        size = int(np.prod(self.shape[1:]))
        if memory is None or memory.size < count * size:
            memory = np.empty(count * size, np.float32)
        rows = memory[: count * size].reshape(count, *self.shape[1:])
        self._data.read_direct(rows, np.s_[first : first + count])
        return Chunks(rows[:, None, None, None], 0, memory)
