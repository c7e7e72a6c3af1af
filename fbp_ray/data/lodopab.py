"""LoDoPaB-CT as torch data sets: the genuine files as they are, any part of them, or simulated ones.

Dimensions: N samples, A angles, D detector cells, H and W the image's axes (x and y; show `image.T`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fbp_ray.data.hdf5 import AGAIN, Stored, stored_in
from fbp_ray.data.layout import Kind, Place, Rows, file_name, find_files
from fbp_ray.data.plain import Array
from fbp_ray.data.rows import Block, RowReader
from fbp_ray.data.sampler import Numbers, blocks_of
from fbp_ray.errors import DataError, GeometryError
from fbp_ray.geometry import ParallelBeam


class Observation(NamedTuple):
    """What was measured. Also what a batch of them is, with B in front."""

    observation: Tensor
    """(A, D) float32: line integrals of attenuation divided by MU_MAX = 81.35858 /m, about 0 to 0.13 (metres)."""

    index: int  # type: ignore[assignment]  # rather than the method of a tuple
    """The sample's number within its part."""


class Sample(NamedTuple):
    """What was measured and what was there. Also what a batch of them is, with B in front."""

    observation: Tensor
    """(A, D) float32: line integrals of attenuation divided by MU_MAX = 81.35858 /m, about 0 to 0.13 (metres)."""

    ground_truth: Tensor
    """(H, W) float32: attenuation divided by MU_MAX, 0 to 1."""

    index: int  # type: ignore[assignment]  # rather than the method of a tuple
    """The sample's number within its part."""


T_co = TypeVar("T_co", bound=tuple[object, ...], covariant=True)


class _Part(Dataset[T_co]):
    """What `Observations` and `LoDoPaB` share: a part of a folder, counted by its observation files."""

    def __init__(self, folder: str | Path, part: str, geometry: ParallelBeam, samples: int | None = None) -> None:
        self.folder = Path(folder)
        self.part = part
        self.geometry = geometry
        files = find_files(self.folder, "observation", part)
        counts, self._together = _counts(files, geometry, samples)
        self._rows = Rows(counts)
        self._observations = RowReader(files[: self._rows.files])

    def __len__(self) -> int:
        return len(self._rows)

    def place(self, index: int) -> Place:
        """The number of the file that a sample lies in, and its row; raises IndexError beyond the last."""
        return self._rows[index]

    def name(self, index: int) -> str:
        """The sample's place in words, such as `observation_test_000.hdf5[5]`."""
        place = self.place(index)
        return f"{file_name('observation', self.part, place.file)}[{place.row}]"

    @property
    def patients(self) -> tuple[int, ...] | None:
        """The number of each sample's patient, None where there is no `patient_ids_rand_{part}.csv`.

        Raises:
            DataError: the file has fewer lines than there are samples, or a line that is no number.
        """
        path = self.folder / f"patient_ids_rand_{self.part}.csv"
        if not path.is_file():
            return None
        lines = path.read_text(encoding="utf-8").split()
        try:
            patients = tuple(int(line) for line in lines[: len(self)])
        except ValueError as error:
            raise DataError(f"{path} should hold a patient's number on each line ({error})") from None
        if len(patients) < len(self):
            raise DataError(f"{path} has {len(patients)} lines for {len(self)} samples; {AGAIN}")
        return patients

    def _read(self, reader: RowReader, kind: Kind, index: int) -> Tensor:
        place = self.place(index)
        with self._naming(kind, index):
            return torch.from_numpy(reader.read(place))

    @contextmanager
    def _naming(self, kind: Kind, index: int) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            raise DataError(f"sample {index} of {self.part} has no usable {kind}: {error}") from None


class Observations(_Part[Observation]):
    """The observations of a part alone; all there is of the part "challenge".

    Args:
        folder: where the HDF5 files lie, numbered from 000 to any number on, each with any number of rows.
        part: "train", "validation", "test" or "challenge".
        geometry: what the files are expected to hold.
        samples: take the first so many (a fair subset: the order is random), all by default.

    Raises:
        DataError: the folder or a file is missing or damaged, or there are fewer than `samples`. Reading a sample
            raises it too, where the file turns out to be damaged or holds values that are not finite.
        GeometryError: the files hold arrays of another shape.
    """

    def __getitem__(self, index: int) -> Observation:
        return Observation(self._read(self._observations, "observation", index), index)


class LoDoPaB(_Part[Sample]):
    """Pairs of observation and ground truth of a part.

    Arguments and errors as for `Observations`; besides, a DataError where a ground-truth file is missing or has fewer
    rows than the observation file of the same number. It may have more: the genuine last one is padded.
    """

    def __init__(self, folder: str | Path, part: str, geometry: ParallelBeam, samples: int | None = None) -> None:
        super().__init__(folder, part, geometry, samples)
        files = [self.folder / file_name("ground_truth", part, number) for number in range(self._rows.files)]
        for number, (ground_truth, needed) in enumerate(zip(files, self._rows.counts, strict=True)):
            observation = self._observations.paths[number]
            if not ground_truth.is_file():
                raise DataError(f"{observation} has no {ground_truth.name} beside it; {AGAIN}")
            stored = _stored(ground_truth, geometry.image_shape, "an image", "(rows, H, W)")
            rows = stored.shape[0]
            if rows < needed:
                raise DataError(f"{ground_truth} has {rows} rows, but {observation.name} has {needed}; {AGAIN}")
            self._together[number] = min(math.lcm(self._together[number], stored.together), needed)
        self._ground_truths = RowReader(files)

    def __getitem__(self, index: int) -> Sample:
        return Sample(
            self._read(self._observations, "observation", index),
            self._read(self._ground_truths, "ground_truth", index),
            index,
        )

    @property
    def blocks(self) -> Numbers:
        """(blocks, 2): what is best read together, as the first sample of each block and the one after its last.

        A block holds whole chunks of both files, so that none is read twice.
        """
        return blocks_of(self._rows.counts, self._together)

    def read_into(self, index: int, observation: Array, ground_truth: Array) -> None:
        """Reads a sample into arrays (A, D) and (H, W), contiguous; raises DataError as `dataset[index]` does."""
        place = self.place(index)
        with self._naming("observation", index):
            self._observations.read_into(place, observation)
        with self._naming("ground_truth", index):
            self._ground_truths.read_into(place, ground_truth)

    def read_block(self, first: int, end: int, used: Samples | None = None) -> Samples:
        """Reads the samples `first` to `end` - 1, all of one file; each chunk of its files is read once.

        Args:
            first, end: a block of `blocks`, or a part of one.
            used: a block that is used no more, to take its memory.

        Raises:
            DataError: a sample cannot be read.
        """
        place, count = self.place(first), end - first
        old = (None, None) if used is None else (used.observations.memory, used.ground_truths.memory)
        with self._naming("observation", first):
            observations = self._observations.read_block(place, count, old[0])
        with self._naming("ground_truth", first):
            return Samples(self, first, observations, self._ground_truths.read_block(place, count, old[1]))


class Samples(NamedTuple):
    """Consecutive samples that have been read together."""

    dataset: LoDoPaB
    first: int
    observations: Block
    ground_truths: Block

    def copy(self, index: int, observation: Array, ground_truth: Array) -> None:
        """Copies a sample to (A, D) and (H, W); raises DataError if it has values that are not finite."""
        with self.dataset._naming("observation", index):
            self.observations.copy_row(index - self.first, observation)
        with self.dataset._naming("ground_truth", index):
            self.ground_truths.copy_row(index - self.first, ground_truth)


def _counts(files: list[Path], geometry: ParallelBeam, samples: int | None) -> tuple[list[int], list[int]]:
    """The rows to take from each observation file, and those it is best read by.

    Files beyond the last one needed are not opened.
    """
    if samples is not None and samples < 1:
        raise DataError(f"samples is the number to take, 1 or more (all by default); got {samples}")
    wanted = sys.maxsize if samples is None else samples
    counts: list[int] = []
    together: list[int] = []
    for path in files:
        if sum(counts) == wanted:
            break
        stored = _stored(path, geometry.sinogram_shape, "a sinogram", "(rows, A, D)")
        counts.append(min(stored.shape[0], wanted - sum(counts)))
        together.append(stored.together)
    if sum(counts) < (samples or 1):
        raise DataError(
            f"{samples or 'some'} samples were asked for, but {files[0]} and those after it have {sum(counts)} in all; "
            "ask for fewer, or leave out `samples` to take all"
        )
    return counts, together


def _stored(path: Path, wanted: tuple[int, int], what: str, names: str) -> Stored:
    stored = stored_in(path)
    rows, *shape = stored.shape
    if tuple(shape) != wanted:
        raise GeometryError(
            f"{path}: {what} of this geometry makes `data` {names} = (rows, {wanted[0]}, {wanted[1]}), but it is "
            f"({rows}, {shape[0]}, {shape[1]}); pass the geometry that the data were made with: "
            "fbp_ray.data.geometry_of(folder)"
        )
    return stored
