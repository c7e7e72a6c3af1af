"""Data sets of LoDoPaB-CT's size a sample, in the two ways in which its files can be chunked."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from fbp_ray.data import LoDoPaB
from fbp_ray.data.layout import Kind, file_name
from fbp_ray.geometry import ParallelBeam

Layout = Literal["a chunk a row", "h5py's chunks"]
LAYOUTS: tuple[Layout, ...] = ("a chunk a row", "h5py's chunks")
ROWS, FILES = 128, 3
TRAIN = 35_820
"""Training samples of LoDoPaB-CT."""


def folder_of(root: Path, layout: Layout) -> Path:
    """Where the data set of a layout lies."""
    return root / str(LAYOUTS.index(layout))


def write(root: Path, geometry: ParallelBeam) -> None:
    """Writes FILES files of ROWS samples in both layouts: 1 GB each. They are in the page cache then."""
    rng = np.random.default_rng(0)
    shapes: dict[Kind, tuple[int, int]] = {
        "observation": geometry.sinogram_shape,
        "ground_truth": geometry.image_shape,
    }
    for layout in LAYOUTS:
        folder = folder_of(root, layout)
        folder.mkdir(parents=True)
        for number in range(FILES):
            for kind, shape in shapes.items():
                chunks = (1, *shape) if layout == "a chunk a row" else True
                with h5py.File(folder / file_name(kind, "train", number), "w") as file:
                    data = file.create_dataset("data", (ROWS, *shape), "f4", chunks=chunks)
                    for first in range(0, ROWS, 32):
                        data[first : first + 32] = rng.random((32, *shape), dtype=np.float32)


def open_set(root: Path, layout: Layout, geometry: ParallelBeam) -> LoDoPaB:
    """The data set of a layout."""
    return LoDoPaB(folder_of(root, layout), "train", geometry)


def as_many_as_lodopab(root: Path, layout: Layout) -> Path:
    """A folder with as many files as LoDoPaB-CT has for training: the first pair of a layout by as many names."""
    folder = root / f"many-{LAYOUTS.index(layout)}"
    folder.mkdir()
    kinds: tuple[Kind, ...] = ("observation", "ground_truth")
    for number in range(-(-TRAIN // ROWS)):
        for kind in kinds:
            (folder / file_name(kind, "train", number)).hardlink_to(
                folder_of(root, layout) / file_name(kind, "train", 0)
            )
    return folder
