"""Where LoDoPaB-CT keeps its samples: numbered HDF5 files, one data set `data` each, a sample a row.

    observation_{part}_{number:03d}.hdf5     (rows, A, D) float32
    ground_truth_{part}_{number:03d}.hdf5    (rows, H, W) float32
    patient_ids_rand_{part}.csv              a patient's number for each sample, one a line

The genuine files hold 128 rows each. Only the last *observation* file of a part is trimmed to what counts; the last
ground-truth file may hold more rows. Source: Leuschner et al., Scientific Data 8 (2021) 109.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from fbp_ray.errors import DataError
from fbp_ray.geometry import ParallelBeam

Kind = Literal["observation", "ground_truth"]
MAKE_DATA = "python -m fbp_ray.simulate --sample --out DIR"


class Place(NamedTuple):
    """A sample's place: the number of its file and the row therein."""

    file: int
    row: int


class Rows:
    """The map from a sample's index to its place, given the number of rows that count in each file."""

    def __init__(self, counts: Sequence[int]) -> None:
        self.counts = list(counts)
        self._ends = list(accumulate(counts))

    @property
    def files(self) -> int:
        """The number of files."""
        return len(self.counts)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Place:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        file = bisect_right(self._ends, index)
        return Place(file, index - (self._ends[file - 1] if file else 0))


def file_name(kind: Kind, part: str, number: int) -> str:
    """The name of one file, such as `observation_test_000.hdf5`."""
    return f"{kind}_{part}_{number:03d}.hdf5"


def find_files(folder: Path, kind: Kind, part: str) -> list[Path]:
    """A part's files of one kind in order, 000 first.

    Raises:
        DataError: the folder is missing, holds no file of that kind and part, or a number is left out.
    """
    if not folder.is_dir():
        raise DataError(f"there is no data folder {folder}; make one with: {MAKE_DATA}")
    numbers = {number for name, number in _numbered(folder, kind) if name == part}
    if not numbers:
        there = sorted({name for name, _ in _numbered(folder, kind)})
        has = f"it has the parts {', '.join(there)}" if there else "it has no LoDoPaB-CT files at all"
        raise DataError(f"{folder} has no {kind}_{part}_*.hdf5; {has}. Data are made with: {MAKE_DATA}")
    for number in range(max(numbers)):
        if number not in numbers:
            raise DataError(
                f"{folder} has {file_name(kind, part, max(numbers))} but not {file_name(kind, part, number)}; the "
                "numbers run from 000 without a gap: add the missing file, or take away those that follow it"
            )
    return [folder / file_name(kind, part, number) for number in range(len(numbers))]


def _numbered(folder: Path, kind: Kind) -> list[tuple[str, int]]:
    pattern = re.compile(rf"{kind}_([a-z]+)_(\d{{3,}})\.hdf5")
    matches = (pattern.fullmatch(path.name) for path in folder.iterdir())
    return [(match[1], int(match[2])) for match in matches if match]


MU_WATER = 20.0
MU_AIR = 0.02
MU_MAX = 3071 * (MU_WATER - MU_AIR) / 1000 + MU_WATER
"""Attenuation at 3071 HU, 81.35858 /m: every stored value, image or line integral, is divided by it."""


DESCRIPTION = "dataset.json"


def describe(folder: str | Path) -> dict[str, Any] | None:
    """The folder's `dataset.json` (geometry, photons, seed, sources, split), None where there is none.

    Raises:
        DataError: the file is there but holds no JSON object.
    """
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        return None
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); simulate the data again, or remove the file") from None
    if not isinstance(description, dict):
        raise DataError(f"{path} holds a JSON {type(description).__name__}, not an object; simulate the data again")
    return description


def geometry_of(folder: str | Path) -> ParallelBeam:
    """The geometry that a folder's data were made with: the one in its `dataset.json`, otherwise LoDoPaB-CT's.

    Raises:
        DataError: `dataset.json` is there but its geometry is missing or cannot be.
    """
    description = describe(folder)
    if description is None:
        return ParallelBeam.lodopab()
    try:
        return ParallelBeam.model_validate(description.get("geometry"))
    except ValidationError as error:
        raise DataError(
            f"{Path(folder) / DESCRIPTION} has no usable `geometry` ({error.errors()[0]['msg']}); simulate the data "
            "again, or remove the file if these are the genuine LoDoPaB-CT files"
        ) from None
