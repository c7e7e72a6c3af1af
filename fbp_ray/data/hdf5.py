"""HDF5 files read a row at a time, opened when first needed and safe to carry into other processes."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fbp_ray.data.layout import Place
from fbp_ray.errors import DataError

MOST_OPEN = 64
"""Files that a process keeps open at a time, of each kind; an ordinary limit is 1024 for all its files."""

AGAIN = "download it again, or simulate the data again"


def shape_of(path: Path) -> tuple[int, int, int]:
    """The shape of a file's data set `data`, (rows, ...).

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
        rows, first, second = data.shape
        return rows, first, second


def open_file(path: Path) -> h5py.File:
    """Opens a file for reading; raises DataError where HDF5 cannot read it."""
    try:
        return h5py.File(path, "r")
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


class RowReader:
    """Reads rows from a list of files; keeps the files used last open.

    Nothing is open before the first read. A copy that is pickled, and a child that is forked, open their own files:
    HDF5 handles do not survive either.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self._open: OrderedDict[int, tuple[h5py.File, Any]] = OrderedDict()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.paths = state["paths"]
        self._open = OrderedDict()
        self._process = os.getpid()

    def read(self, place: Place) -> NDArray[np.float32]:
        """One row, float32; raises DataError where it cannot be read or holds a value that is not finite."""
        # The file stays bound until the row is read: HDF5 closes its data sets with it.
        handle, data = self._handle(place.file)
        try:
            values: NDArray[np.float32] = data[place.row]
        except OSError as error:
            raise DataError(
                f"row {place.row} of {handle.filename} cannot be read: {error}. The file may be damaged; {AGAIN}"
            ) from None
        if not np.isfinite(values).all():
            bad = int(np.count_nonzero(~np.isfinite(values)))
            raise DataError(f"row {place.row} of {handle.filename} has {bad} values that are NaN or infinite; {AGAIN}")
        return values

    def _handle(self, number: int) -> tuple[h5py.File, Any]:
        if self._process != os.getpid():
            self._open.clear()
            self._process = os.getpid()
        if number in self._open:
            self._open.move_to_end(number)
        else:
            file = open_file(self.paths[number])
            self._open[number] = file, data_of(file, self.paths[number])
            if len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
        return self._open[number]
