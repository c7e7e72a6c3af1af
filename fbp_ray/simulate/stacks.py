"""CT slices from .npz files with an index.json beside them.

Each .npz holds `hu`, (slices, rows, columns) in HU, and may hold `patient`, a name for each slice. The index is a list:

    [{"file": "a.npz", "patient": "A-0001", "collection": "LIDC-IDRI", "licence": "CC BY 3.0", "split": "train"}]

`split` is train, validation or test, for all of the entries or for none.
"""

from __future__ import annotations

import zlib
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fbp_ray.errors import DataError
from fbp_ray.simulate.source import Origin, Part, Slice, Source

INDEX = "index.json"


class _Entry(BaseModel):
    """One line of the index; whatever else it says is of no use here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    file: str
    patient: str
    collection: str
    licence: str
    split: Part | None = None


def stack_folder(folder: Path) -> Source:
    """The slices that a folder's index.json lists.

    Raises:
        DataError: the index is damaged or mixes entries with and without `split`, or a file is missing, damaged, or
            without an array `hu` of slices.
    """
    path = folder / INDEX
    try:
        entries = TypeAdapter(list[_Entry]).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path} is not a list of entries as expected: {place}: {first['msg']}") from None
    if len({entry.split is None for entry in entries}) > 1:
        raise DataError(f"{path}: give `split` (train, validation or test) in every entry, or in none")
    slices = [piece for entry in entries for piece in _slices(folder, entry)]
    if not slices:
        raise DataError(f"{path} lists no slices")
    divided = entries[0].split is not None
    return Source(
        "CT slices from .npz files",
        tuple(slices),
        tuple(Origin(entry.patient, entry.collection, entry.licence) for entry in entries),
        split=f"as {INDEX} says" if divided else "",
    )


def _slices(folder: Path, entry: _Entry) -> list[Slice]:
    path = folder / entry.file
    if not path.is_file():
        raise DataError(f"{folder / INDEX} names {entry.file}, which is not there; add it, or take out its entry")
    try:
        with path.open("rb") as file, NpzFile(file, allow_pickle=False) as arrays:
            if "hu" not in arrays:
                raise DataError(f"{path} should have an array `hu` (slices, rows, columns), but has {sorted(arrays)}")
            stack: NDArray[np.generic] = arrays["hu"]
            patients = arrays["patient"] if "patient" in arrays else np.full(stack.shape[:1], entry.patient)
    except (OSError, ValueError, BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if stack.ndim != 3 or stack.dtype.kind not in "iuf" or patients.shape != stack.shape[:1]:
        raise DataError(
            f"{path}: `hu` should be numbers of shape (slices, rows, columns) and `patient`, where there is one, a "
            f"name for each slice; got {stack.dtype} {stack.shape} and {patients.shape}"
        )
    return [
        Slice(f"{entry.file}[{number}]", str(patients[number]), partial(stack.__getitem__, number), entry.split)
        for number in range(len(stack))
    ]
