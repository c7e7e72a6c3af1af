"""The ways in which HDF5 can store the rows of a LoDoPaB-CT file, and a data set in each of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from fbp_ray.geometry import ParallelBeam

Write = Callable[[Path, NDArray[np.float32]], None]


def _create(**how: object) -> Write:
    def write(path: Path, values: NDArray[np.float32]) -> None:
        with h5py.File(path, "w", userblock_size=512 if "fletcher32" in how else 0) as file:
            file.create_dataset("data", data=values, **how)

    return write


def rows(path: Path, values: NDArray[np.float32]) -> None:
    """A chunk a row, as the simulator writes."""
    _create(chunks=(1, *values.shape[1:]))(path, values)


def blocks(path: Path, values: NDArray[np.float32]) -> None:
    """Chunks of 8 rows and parts of them, as `chunks=True` makes of large rows."""
    _create(chunks=(min(8, len(values)), *((size + 2) // 3 for size in values.shape[1:])))(path, values)


def virtual(path: Path, values: NDArray[np.float32]) -> None:
    """Rows that lie in another file."""
    rows(path.with_suffix(".source"), values)
    layout = h5py.VirtualLayout(values.shape, "f4")
    layout[:] = h5py.VirtualSource(path.with_suffix(".source"), "data", values.shape)
    with h5py.File(path, "w", libver="latest") as file:
        file.create_virtual_dataset("data", layout)


LAYOUTS: dict[str, Write] = {
    "rows": rows,
    "contiguous": _create(),
    "blocks": blocks,
    "compressed": _create(chunks=True, compression="gzip"),
    "checked": _create(chunks=True, fletcher32=True),
    "virtual": virtual,
}


def write_layout(folder: Path, geometry: ParallelBeam, layout: str, counts: tuple[int, ...] = (20, 13)) -> Path:
    """Writes a part "train" of random values."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(layout))
    for number, count in enumerate(counts):
        for kind, shape in (("observation", geometry.sinogram_shape), ("ground_truth", geometry.image_shape)):
            values = rng.random((count, *shape), dtype=np.float32)
            LAYOUTS[layout](folder / f"{kind}_train_{number:03d}.hdf5", values)
    return folder
