"""The file that a volume is written to: made whole at once, empty, then filled slab by slab in any order.

TIFF and HDF5 keep the volume as one block of numbers behind a header. So each slab has its place from the beginning,
machines that share a disk write theirs at the same time, and nothing is copied at the end. In a Zarr a slab is a row of
chunks, and each chunk a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray

from fbp_ray.errors import ConfigError
from fbp_ray.memory import keep_no_copy

Array = NDArray[np.float32]
Write = Callable[[int, Array], None]
"""Writes images (n, H, W) from a row of the volume on, and returns once they are on the disk."""

ATTRIBUTES = ("unit", "axes", "voxel_size_m")
CHUNK = 512  # pixels along x and y of a Zarr's chunks


class Layout(NamedTuple):
    """What a volume holds."""

    shape: tuple[int, int, int]
    """(rows, H, W)"""

    slab: int
    """Rows that are written at a time."""

    about: dict[str, Any]
    """What is said in the file: unit, axes, sizes, geometry, method."""


def create(path: Path, layout: Layout) -> None:
    """Makes the file of a volume with all that is said in it and no values yet, which take no place on most disks.

    Raises:
        ConfigError: Zarr is not installed.
    """
    if path.suffix == ".zarr":
        _create_zarr(path, layout)
        return
    temporary = path.with_name(f"new{path.suffix}")
    (_create_hdf5 if _is_hdf5(path) else _create_tiff)(temporary, layout)
    temporary.replace(path)


def open_for_writing(path: Path) -> Write:
    """What writes images into a volume that `create` has made; threads and machines may share the volume."""
    if path.suffix == ".zarr":
        return _zarr_writer(path)
    if _is_hdf5(path):
        with h5py.File(path, "r", locking=False) as file:
            begin, shape = file["data"].id.get_offset(), file["data"].shape
    else:
        with tifffile.TiffFile(path) as tif:
            begin, shape = tif.pages.first.dataoffsets[0], (len(tif.pages), *tif.pages.first.shape)
    size = 4 * shape[1] * shape[2]

    def write(row: int, images: Array) -> None:
        with path.open("r+b") as file:
            file.seek(begin + row * size)
            file.write(np.ascontiguousarray(images, "<f4").data)
            file.flush()
            _to_disk(file.fileno())

    return write


def _to_disk(file: int) -> None:
    """Waits until the disk has what was written; nobody reads it soon."""
    os.fsync(file)
    keep_no_copy(file)


def read_about(path: Path) -> dict[str, Any] | None:
    """What a volume says of itself; None for any other file."""
    with contextlib.suppress(Exception):  # whatever another file makes its reader raise
        if path.suffix == ".zarr":
            text = json.loads((path / "zarr.json").read_text())["attributes"]["about"]
        elif _is_hdf5(path):
            with h5py.File(path, "r") as file:
                text = file["about"].asstr()[()]
        else:
            with tifffile.TiffFile(path) as tif:
                text = tif.pages.first.description
        about = json.loads(text)
        return about if isinstance(about, dict) else None
    return None


def allocated(path: Path) -> int:
    """The bytes that a file or a folder takes on the disk; holes in a file take none."""
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(512 * file.stat().st_blocks for file in files if file.exists())


def size(count: float) -> str:
    """A number of bytes in words: 1.15 MB."""
    scale, unit = next(((s, u) for s, u in ((1e9, "GB"), (1e6, "MB")) if count >= s), (1e3, "kB"))
    return f"{count / scale:.3g} {unit}"


def require_zarr() -> None:
    """Raises ConfigError where the package for Zarr is not installed."""
    try:
        import zarr  # noqa: F401
    except ImportError:
        raise ConfigError(
            "a .zarr needs a package that is not installed: pip install 'fbp-ray[zarr]'; or write .h5 or .tif"
        ) from None


def _is_hdf5(path: Path) -> bool:
    return path.suffix.lower() in (".h5", ".hdf5")


def _create_tiff(path: Path, layout: Layout) -> None:
    per_centimetre = 0.01 / layout.about["voxel_size_m"][-1]
    tifffile.imwrite(
        path,
        shape=layout.shape,
        dtype="<f4",
        bigtiff=True,
        photometric="minisblack",
        description=json.dumps(layout.about),
        metadata=None,
        software="fbp-ray",
        resolution=(per_centimetre, per_centimetre),
        resolutionunit="CENTIMETER",
    )


def _create_hdf5(path: Path, layout: Layout) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)  # so that it has its place in the file now
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)  # the same volume has the same bytes
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple(layout.shape)
        h5py.h5d.create(file.id, b"data", h5py.h5t.IEEE_F32LE, space, properties)
        file["data"].attrs.update({name: layout.about[name] for name in ATTRIBUTES})
        file.create_dataset("about", data=json.dumps(layout.about))  # an attribute has room for 64 kB alone


def _create_zarr(path: Path, layout: Layout) -> None:
    require_zarr()
    import zarr

    temporary = path.with_name("new.zarr")
    shutil.rmtree(temporary, ignore_errors=True)
    rows, height, width = layout.shape
    zarr.create_array(
        temporary,
        shape=layout.shape,
        chunks=(min(layout.slab, rows), min(CHUNK, height), min(CHUNK, width)),
        dtype="<f4",
        compressors=None,  # noise does not get shorter
        dimension_names=layout.about["axes"],
        attributes={
            **{name: layout.about[name] for name in ATTRIBUTES},
            "about": json.dumps(layout.about),
        },
    )
    temporary.replace(path)


def _zarr_writer(path: Path) -> Write:
    require_zarr()
    import zarr

    array = zarr.open_array(path, mode="r+")
    slab = array.chunks[0]

    def write(row: int, images: Array) -> None:
        chunks = path / "c" / str(row // slab)
        shutil.rmtree(chunks, ignore_errors=True)  # what somebody who was killed has begun
        array[row : row + len(images)] = images
        for chunk in chunks.rglob("*"):
            if chunk.is_file():
                with chunk.open("rb") as file:
                    _to_disk(file.fileno())

    return write
