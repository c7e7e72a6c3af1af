"""Rows that lie in an HDF5 file as plain bytes, and are read as such: faster than through HDF5, and by many threads.

HDF5 holds a lock over all of its files while it reads. Where a row is stored as it is, whole and neither compressed nor
filtered, only its place in the file is asked of HDF5, once; so LoDoPaB-CT files need no open HDF5 file while they are
read, whatever their number.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Places(NamedTuple):
    """Where the rows of one file's data set lie."""

    shape: tuple[int, ...]
    """Of a row."""

    offsets: NDArray[np.int64]
    """(rows,): the first byte of each row."""

    version: tuple[int, ...]
    """Tells a file from another that has taken its place."""


def version_of(path: Path) -> tuple[int, ...]:
    """A file's inode, size and time of change; raises OSError where there is none."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def places_of(data: Any, path: Path) -> Places | None:
    """Where the rows of the HDF5 data set `data` lie; None where they are not plain bytes one after another."""
    rows, shape = data.shape[0], data.shape[1:]
    properties = data.id.get_create_plist()
    filtered = properties.get_nfilters() or data.external or data.file.userblock_size
    if filtered or data.is_virtual or not data.dtype.isnative or not hasattr(os, "preadv"):
        return None
    offsets = np.full(rows, -1, np.int64)
    if data.chunks is None:
        first = data.id.get_offset()
        if first is not None:
            offsets[:] = first + np.arange(rows) * data.dtype.itemsize * int(np.prod(shape))
    elif data.chunks == (1, *shape):
        data.id.chunk_iter(lambda chunk: offsets.__setitem__(chunk.chunk_offset[0], chunk.byte_offset))
    if (offsets < 0).any():  # chunks of another shape, or rows that were never written
        return None
    return Places(shape, offsets, version_of(path))


class PlainFile:
    """An open file whose rows are read by their places. Threads may read at once."""

    def __init__(self, path: Path, places: Places) -> None:
        self.path = path
        self.places = places
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row."""
        return self.places.shape

    def read(self, first: int, buffer: NDArray[np.float32]) -> None:
        """Reads rows from `first` on into `buffer`, as many as it has; raises OSError where the file ends early."""
        for row, place in zip(buffer, self.places.offsets[first : first + len(buffer)].tolist(), strict=True):
            rest = memoryview(row).cast("B")
            while rest:
                count = os.preadv(self._descriptor, [rest], place)
                if count == 0:
                    raise OSError(f"the file ends at byte {place}")
                rest, place = rest[count:], place + count

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)
