"""Writes a folder in the layout of LoDoPaB-CT, whole or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from fbp_ray.data.layout import DESCRIPTION, file_name
from fbp_ray.errors import RunError
from fbp_ray.geometry import ParallelBeam
from fbp_ray.simulate.source import Origin, Part

ROWS = 128
"""Samples a file, as in LoDoPaB-CT."""


def check_room(target: Path, samples: int, geometry: ParallelBeam) -> None:
    """Raises RunError where the disk has no room for so many samples: HDF5 takes a full disk badly."""
    needed = 4 * samples * (math.prod(geometry.sinogram_shape) + math.prod(geometry.image_shape))
    there = next(folder for folder in target.parents if folder.exists())
    free = shutil.disk_usage(there).free
    if needed * 1.02 > free:
        raise RunError(
            f"{samples} samples take {needed / 1e9:.2f} GB, but the disk of {there} has {free / 1e9:.2f} GB left; "
            "choose another --out, or fewer samples (--train, --validation, --test)"
        )


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target to write to; it becomes the target at the end, and is removed where that fails.

    Raises:
        RunError: the folder cannot be written.
    """
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        draft.mkdir(parents=True)
        yield draft
        draft.replace(target)
    except OSError as error:
        raise RunError(f"{target} could not be written: {error}; nothing was kept") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def file_pair(
    folder: Path, part: Part, number: int, rows: int, geometry: ParallelBeam
) -> Iterator[tuple[h5py.Dataset, h5py.Dataset]]:
    """The data sets of one observation file (rows, A, D) and its ground-truth file (rows, H, W), a chunk a row."""
    with (
        h5py.File(folder / file_name("observation", part, number), "w") as observation,
        h5py.File(folder / file_name("ground_truth", part, number), "w") as ground_truth,
    ):
        yield (
            _create(observation, rows, geometry.sinogram_shape),
            _create(ground_truth, rows, geometry.image_shape),
        )


def _create(file: h5py.File, rows: int, shape: tuple[int, int]) -> h5py.Dataset:
    return file.create_dataset("data", shape=(rows, *shape), dtype="float32", chunks=(1, *shape))


def write_patients(folder: Path, part: Part, numbers: Sequence[int]) -> None:
    """The number of each sample's patient, one a line."""
    text = "".join(f"{number}\n" for number in numbers)
    (folder / f"patient_ids_rand_{part}.csv").write_text(text, encoding="utf-8")


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """`dataset.json`: what the data are and how they were made."""
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def attribution(origins: Sequence[Origin]) -> str:
    """What the licences of the scans ask to be said, as Markdown."""
    lines = [
        "# Attribution",
        "",
        "These data were simulated from CT scans of the collections below: slices were cropped, converted to",
        "attenuation and projected with noise. Not for diagnosis.",
        "",
    ]
    for origin in origins:
        reference = f" Source: {origin.reference}." if origin.reference else ""
        lines.append(f"- {origin.collection}, patient {origin.patient}. Licence: {origin.licence}.{reference}")
    return "\n".join(lines) + "\n"
