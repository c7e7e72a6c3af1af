"""LoDoPaB-CT as a torch data set: the genuine files as they are, any part of them, or simulated ones.

Dimensions: A angles, D detector cells, H and W the image's axes (x and y; show `image.T`).
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fbp_ray.data.hdf5_reader import AGAIN, ALL, Array, Hdf5Reader, Stored, inspect
from fbp_ray.data.layout import file_name, find_observations
from fbp_ray.data.sampler import IntArray, blocks_of
from fbp_ray.errors import DataError, GeometryError
from fbp_ray.geometry import Geometry
from fbp_ray.settings import expand_home


class Sample(NamedTuple):
    """A measured sinogram and its ground-truth image; also a batch of them, with B in front of the shapes."""

    observation: Tensor
    """(A, D) float32: line integrals of attenuation divided by MU_MAX = 81.35858 /m, about 0 to 0.13 (metres)."""

    ground_truth: Tensor
    """(H, W) float32: attenuation divided by MU_MAX, 0 to 1. (0, 0) where it is not read (`LoDoPaB`, truth)."""

    index: int  # type: ignore[assignment]  # rather than the method of a tuple
    """The sample's number within its part."""


class Place(NamedTuple):
    """Where a sample lies: the number of its file and the row in it."""

    file: int
    row: int


class LoDoPaB(Dataset[Sample]):
    """Pairs of observation and ground truth of a part, counted by its observation files.

    Args:
        folder: where the HDF5 files lie, numbered from 000 to any number on, each with any number of rows.
        part: "train", "validation" or "test".
        geometry: what the files are expected to hold.
        samples: take the first so many (a fair subset: the order is random), all by default.
        every: take each so many of the angles, from the first on; `geometry` becomes that of the samples.
        truth: False reads no ground truth, which need not be there.
        first_angles: of the first so many of the angles alone, all by default.

    Raises:
        DataError: the folder or a file is missing or damaged, there are fewer than `samples`, or a ground-truth file
            has fewer rows than its observation file (more are fine: the genuine last one is padded). Reading a sample
            raises it too, where the file turns out to be damaged or holds values that are not finite.
        GeometryError: the files hold arrays of another shape.
    """

    blocks: IntArray
    """(blocks, 2): what is best read at once, as the first sample of each block and the one after its last.

    A block holds whole chunks of both files, so that none is read twice."""

    image_shape: tuple[int, int]
    """(H, W) of the ground truths, (0, 0) where they are not read."""

    def __init__(
        self,
        folder: str | Path,
        part: str,
        geometry: Geometry,
        samples: int | None = None,
        every: int = 1,
        truth: bool = True,
        first_angles: int | None = None,
    ) -> None:
        self.folder = Path(expand_home(str(folder)))
        self.part = part
        self.geometry = geometry.part(first_angles, every)
        self.every = every
        self.first_angles = first_angles
        self.truth = truth
        self.image_shape = geometry.image_shape if truth else (0, 0)
        self._ends: list[int] = []  # the samples of all files up to each one
        if samples is not None and samples < 1:
            raise DataError(f"samples is the number to take, 1 or more (all by default); got {samples}")
        wanted = sys.maxsize if samples is None else samples
        found = find_observations(self.folder, part)
        observations: list[Path] = []
        ground_truths: list[Path] = []
        counts: list[int] = []
        rows_per_block: list[int] = []
        for number, observation in enumerate(found):
            if len(self) == wanted:  # the files that follow are not needed, and not opened
                break
            ground_truth = self.folder / file_name("ground_truth", part, number) if truth else None
            count, together = _inspect_pair(observation, ground_truth, geometry, wanted - len(self))
            observations.append(observation)
            if ground_truth is not None:
                ground_truths.append(ground_truth)
            counts.append(count)
            rows_per_block.append(together)
            self._ends.append(len(self) + count)
        if len(self) < (samples or 1):
            raise DataError(
                f"{samples or 'some'} samples were asked for, but {found[0]} and those after it have {len(self)} in "
                "all; ask for fewer, or leave out `samples` to take all"
            )
        self.blocks = blocks_of(counts, rows_per_block)
        self._observations = Hdf5Reader(
            observations, ALL if first_angles is None and every == 1 else slice(None, first_angles, every)
        )
        self._ground_truths = Hdf5Reader(ground_truths)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Sample:
        observation = np.empty((1, *self.geometry.sinogram_shape), np.float32)
        ground_truth = np.empty((1, *self.image_shape), np.float32)
        self.read(index, observation, ground_truth)
        return Sample(torch.from_numpy(observation[0]), torch.from_numpy(ground_truth[0]), index)

    def read(self, first: int, observations: Array, ground_truths: Array) -> None:
        """Reads the samples `first` to `first + n - 1`, all of one file, into arrays (n, A, D) and (n, H, W).

        Args:
            first: the first of them.
            observations, ground_truths: contiguous; how many they hold says how many are read.

        Raises:
            DataError: one cannot be read, or has values that are not finite; it is named.
        """
        file, row = self.place(first)
        for kind, reader, arrays in (
            ("observation", self._observations, observations),
            ("ground_truth", self._ground_truths, ground_truths),
        ):
            if not reader.paths:
                continue
            try:
                reader.read(file, row, arrays)
            except DataError as error:
                raise DataError(f"sample {first} of {self.part} has no usable {kind}: {error}") from None
            for offset, array in enumerate(arrays):
                finite = np.isfinite(array)
                if not finite.all():
                    raise DataError(
                        f"sample {first + offset} of {self.part} has no usable {kind}: row {row + offset} of "
                        f"{reader.paths[file]} has {np.count_nonzero(~finite)} values that are NaN or infinite; {AGAIN}"
                    )

    def place(self, index: int) -> Place:
        """The number of the file that a sample lies in, and its row; raises IndexError beyond the last."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        file = bisect_right(self._ends, index)
        return Place(file, index - (self._ends[file - 1] if file else 0))

    def file(self, index: int) -> Path:
        """The file that a sample's observation lies in; raises IndexError beyond the last."""
        return self._observations.paths[self.place(index).file]

    def name(self, index: int) -> str:
        """The sample's place in words, such as `observation_test_000.hdf5[5]`."""
        place = self.place(index)
        return f"{file_name('observation', self.part, place.file)}[{place.row}]"


def _inspect_pair(observation: Path, ground_truth: Path | None, geometry: Geometry, wanted: int) -> tuple[int, int]:
    """The rows to take of a pair of files, `wanted` at most, and how many of them to read at once."""
    stored = _inspect(observation, geometry.sinogram_shape, "a sinogram", "(rows, A, D)")
    count = min(stored.shape[0], wanted)
    if ground_truth is None:
        return count, max(1, min(stored.rows_per_block, count))
    if not ground_truth.is_file():
        raise DataError(f"{observation} has no {ground_truth.name} beside it; {AGAIN}")
    beside = _inspect(ground_truth, geometry.image_shape, "an image", "(rows, H, W)")
    if beside.shape[0] < count:
        raise DataError(f"{ground_truth} has {beside.shape[0]} rows, but {observation.name} has {count}; {AGAIN}")
    return count, max(1, min(math.lcm(stored.rows_per_block, beside.rows_per_block), count))


def _inspect(path: Path, wanted: tuple[int, int], what: str, names: str) -> Stored:
    stored = inspect(path)
    rows, *shape = stored.shape
    if tuple(shape) != wanted:
        raise GeometryError(
            f"{path}: {what} of this geometry makes `data` {names} = (rows, {wanted[0]}, {wanted[1]}), but it is "
            f"({rows}, {shape[0]}, {shape[1]}); pass the geometry that the data were made with: "
            "fbp_ray.data.geometry_of(folder)"
        )
    return stored
