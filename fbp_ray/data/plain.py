"""Rows that lie in an HDF5 file as plain bytes, and are read as such: by many threads at once, and faster than by HDF5.

HDF5 holds a lock over all of its files while it reads. Where rows are neither compressed nor filtered, only the places
of their bytes are asked of it, once; so no HDF5 file stays open while LoDoPaB-CT is read, whatever the number of files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Places(NamedTuple):
    """Where one file's data set (N, A, D) lies: in chunks (n, a, d), those at the far ends as large as the others."""

    shape: tuple[int, int, int]
    chunk: tuple[int, int, int]

    offsets: NDArray[np.uint32] | NDArray[np.uint64]
    """(N / n, A / a, D / d), each rounded up: the first byte of each chunk."""

    version: tuple[int, ...]
    """Tells a file from another that has taken its place."""


def version_of(path: Path) -> tuple[int, ...]:
    """A file's inode, size and time of change; raises OSError where there is none."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def places_of(data: Any, path: Path) -> Places | None:
    """Where the HDF5 data set `data`, of three dimensions, lies; None where it does not lie there as plain bytes."""
    filtered = data.id.get_create_plist().get_nfilters() or data.external or data.file.userblock_size
    if filtered or data.is_virtual or not data.dtype.isnative or not hasattr(os, "preadv"):
        return None
    chunk = data.chunks or (1, *data.shape[1:])
    grid = tuple(-(-size // step) for size, step in zip(data.shape, chunk, strict=True))
    found: list[tuple[tuple[int, ...], int]] = []
    if data.chunks is not None:
        data.id.chunk_iter(lambda info: found.append((info.chunk_offset, info.byte_offset)))
    elif data.id.get_offset() is not None:
        step = data.dtype.itemsize * int(np.prod(data.shape[1:]))
        found = [((row, 0, 0), data.id.get_offset() + row * step) for row in range(data.shape[0])]
    if len(found) < np.prod(grid):  # some were never written
        return None
    version = version_of(path)
    offsets = np.zeros(grid, np.uint32 if version[1] < 2**32 else np.uint64)
    where = np.array([position for position, _ in found]) // chunk
    offsets[tuple(where.T)] = [offset for _, offset in found]
    return Places(data.shape, chunk, offsets, version)


class PlainFile:
    """An open file whose rows are read by their places. Threads may read at once."""

    def __init__(self, path: Path, places: Places) -> None:
        self.shape = places.shape
        self._places = places
        self._whole = places.chunk == (1, *places.shape[1:])
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read_row(self, row: int, to: Array) -> None:
        """Reads one row into `to` (A, D), contiguous; raises OSError where the file ends early."""
        if self._whole:
            self._read_at(int(self._places.offsets[row, 0, 0]), to.data.cast("B"))
        else:
            self.read_block(row, 1, None).copy_row(0, to)

    def read_block(self, first: int, count: int, memory: Array | None) -> Chunks:
        """Reads the chunks of `count` rows from `first` on, into `memory` if it is as large as need be.

        Raises:
            OSError: the file ends early.
        """
        rows = self._places.chunk[0]
        offsets = self._places.offsets[first // rows : (first + count - 1) // rows + 1]
        size = int(np.prod(self._places.chunk))
        if memory is None or memory.size < offsets.size * size:
            memory = np.empty(offsets.size * size, np.float32)
        flat = offsets.reshape(-1).astype(np.int64)
        # Most chunks follow each other, and those that do are read in one go.
        starts = np.flatnonzero(np.diff(flat, prepend=-1) != size * memory.itemsize)
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(flat)], strict=True):
            self._read_at(int(flat[start]), memory[start * size : end * size].data.cast("B"))
        chunks = memory[: offsets.size * size].reshape(*offsets.shape, *self._places.chunk)
        return Chunks(chunks, first % rows, memory)

    def _read_at(self, offset: int, rest: memoryview) -> None:
        while rest:
            count = os.preadv(self._descriptor, [rest], offset)
            if count == 0:
                raise OSError(f"the file ends at byte {offset}")
            rest, offset = rest[count:], offset + count


class Chunks:
    """Rows of a file that have been read together, as they are stored: in chunks.

    Args:
        chunks: (N / n, A / a, D / d, n, a, d).
        skip: the rows before the block's first.
        memory: what `chunks` lie in.
    """

    def __init__(self, chunks: Array, skip: int, memory: Array) -> None:
        self.memory = memory
        self._chunks = chunks
        self._skip = skip

    def copy_row(self, row: int, to: Array) -> None:
        """Puts the parts of a row, counted from the block's first, together in `to` (A, D)."""
        number, within = divmod(self._skip + row, self._chunks.shape[3])
        parts = self._chunks[number, :, :, within]
        for along, rows, height in _pieces(to.shape[0], parts.shape[2]):
            for across, columns, width in _pieces(to.shape[1], parts.shape[3]):
                piece = parts[along, across, :height, :width].transpose(0, 2, 1, 3)
                to[rows, columns].reshape(piece.shape)[...] = piece


def _pieces(size: int, step: int) -> Iterator[tuple[slice, slice, int]]:
    """Whole chunks along an axis, then the last one if it is cut: which, where they belong, the length of each."""
    whole = size // step
    if whole:
        yield slice(whole), slice(whole * step), step
    if size % step:
        yield slice(whole, None), slice(whole * step, None), size % step
