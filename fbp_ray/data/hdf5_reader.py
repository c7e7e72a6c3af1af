"""Reads rows of LoDoPaB-CT's HDF5 files, however HDF5 stores them: in chunks, compressed or virtual."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from fbp_ray.errors import DataError

Array = NDArray[np.float32]

MAX_OPEN = 4
"""Files that a reader keeps open at a time. Opening one is quick; an open HDF5 file takes memory."""

CHUNK_CACHE = 1 << 20
"""Bytes of chunks that HDF5 keeps for an open file. Rows are read once, but chunks that do not fit in it are slow."""

VIRTUAL_BLOCK = 8
"""Rows of a virtual data set to read at once: it opens other files, which takes as long as reading some rows."""

AGAIN = "download it again, or simulate the data again"


ALL = slice(None)


class Stored(NamedTuple):
    """How a file stores its data set `data`."""

    shape: tuple[int, int, int]
    """(rows, ., .)"""

    rows_per_block: int
    """Rows to read at once, counted from the first: those of a chunk."""


def inspect(path: Path) -> Stored:
    """How a file stores its rows.

    Raises:
        DataError: the file is damaged, or its `data` is missing or not a float32 array of three dimensions.
    """
    file, data, _ = _open(path)
    with file:
        if data.ndim != 3 or data.dtype != np.float32:
            raise DataError(
                f"{path}: `data` should be float32 of shape (rows, ., .), but it is {data.dtype} of shape "
                f"{data.shape}; {AGAIN}"
            )
        return Stored(data.shape, VIRTUAL_BLOCK if data.is_virtual else data.chunks[0] if data.chunks else 1)


def other_files(path: Path, name: str = "data", depth: int = 8) -> Iterator[Path]:
    """The other files that HDF5 would read for a data set: by links, virtual data sets and external storage.

    A name that is relative may mean two files, beside this one or in the working directory. A file that cannot be read
    leads nowhere.

    Args:
        path: the file.
        name: of the data set.
        depth: of data sets that are made of others; deeper ones raise DataError.
    """
    if depth == 0:
        raise DataError(f"{path} is made of files that are made of others, and so on; copy the data into one file")
    try:
        file = h5py.File(path, "r")
    except OSError:
        return
    with file:
        data = file.get(name)
        if not isinstance(data, h5py.Dataset):
            return
        here = Path(data.file.filename)
        if not here.samefile(path):
            yield here
        sources = [(source.file_name, source.dset_name) for source in data.virtual_sources()] if data.is_virtual else []
        sources = [(here if other == "." else other, inner) for other, inner in sources]
        stored = [other for other, _, _ in data.external or ()]
    for other in stored:
        yield from (here.parent / other, Path(other).absolute())
    for other, inner in sources:
        for candidate in (here.parent / other, Path(other).absolute()):
            if candidate != here:
                yield candidate
            yield from other_files(candidate, inner, depth - 1)


class Hdf5Reader:
    """Reads rows from a list of files and keeps the files used last open. Threads may share it.

    Nothing is open before the first read. A pickled copy and a forked child open their own files: HDF5 handles survive
    neither.

    Args:
        paths: the files.
        angles: which of axis 1, the angles of a sinogram, to take; all by default.
    """

    def __init__(self, paths: Sequence[Path], angles: slice = ALL) -> None:
        self.paths = list(paths)
        self.angles = angles
        self._forget_open_files()

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "angles": self.angles}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.paths, self.angles = state["paths"], state["angles"]
        self._forget_open_files()

    def _forget_open_files(self) -> None:
        self._files: OrderedDict[int, _OpenFile] = OrderedDict()
        self._lock = threading.Lock()
        self._process = os.getpid()

    def read(self, file: int, row: int, into: Array) -> None:
        """Reads the rows `row` to `row + n - 1` of a file into an array (n, ., .), contiguous.

        Raises:
            DataError: they cannot be read.
        """
        if self._process != os.getpid():
            self._forget_open_files()
        last = row + len(into) - 1
        try:
            with self._lock:  # HDF5 reads for one thread at a time anyway, and a file must not be closed meanwhile
                opened = self._opened(file)
                # All of a row is read: HDF5 is slow at taking a part of a chunk.
                whole = into if self.angles == ALL else np.empty((len(into), *opened.data.shape[1:]), np.float32)
                opened.data.read_direct(whole, np.s_[row : last + 1])
                if self.angles != ALL:
                    np.copyto(into, whole[:, self.angles])
                opened.check_length()
        except (OSError, TypeError, ValueError) as error:  # the latter: a file of another shape has taken its place
            rows = f"row {row}" if row == last else f"one of the rows {row} to {last}"
            raise DataError(
                f"{rows} of {self.paths[file]} cannot be read: {error}. The file may be damaged; {AGAIN}"
            ) from None

    def _opened(self, number: int) -> _OpenFile:
        if number in self._files:
            self._files.move_to_end(number)
        else:
            if len(self._files) == MAX_OPEN:
                self._files.popitem(last=False)[1].file.close()
            self._files[number] = _open(self.paths[number])
        return self._files[number]


class _OpenFile(NamedTuple):
    file: h5py.File
    data: Any
    length: int

    def check_length(self) -> None:
        """Raises OSError where the file has been cut short since it was opened: HDF5 would read zeros."""
        length = os.fstat(self.file.id.get_vfd_handle()).st_size
        if length < self.length:
            raise OSError(f"the file ends at byte {length}, it had {self.length} when it was opened")


def _open(path: Path) -> _OpenFile:
    """An open file and its data set `data`; raises DataError where HDF5 cannot read it or there is none."""
    try:
        file = h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE)
    except BlockingIOError:
        raise DataError(
            f"{path} is locked: another process has it open for writing. Wait until that has finished, or end it. If "
            "none has, the file system does not lock properly: set HDF5_USE_FILE_LOCKING=FALSE"
        ) from None
    except OSError as error:
        size = path.stat().st_size if path.exists() else 0
        raise DataError(
            f"{path} ({size} bytes) cannot be read as HDF5: {error}. It may be damaged or cut short; {AGAIN}"
        ) from None
    data = file.get("data")
    if not isinstance(data, h5py.Dataset):
        names = sorted(file)
        file.close()
        raise DataError(f"{path} has no data set `data`, only {names}; {AGAIN}")
    return _OpenFile(file, data, os.fstat(file.id.get_vfd_handle()).st_size)
