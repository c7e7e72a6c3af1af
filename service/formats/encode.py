"""From images to bytes, piece by piece where the format allows: the first images are sent while others are computed."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np
import tifffile
from numpy.lib import format as npy
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from service.formats.pictures import Display, as_dicom, as_png, new_series

Image = NDArray[np.float32]
Images = AsyncIterator[Image]
Output = Literal["npy", "npz", "h5", "tif", "png", "dcm", "json"]
MEDIA_TYPES: dict[Output, str] = {
    "npy": "application/x-npy",
    "npz": "application/zip",
    "h5": "application/x-hdf5",
    "tif": "image/tiff",
    "png": "image/png",
    "dcm": "application/dicom",
    "json": "application/json",
}


class Wanted(NamedTuple):
    """What to make of the images."""

    output: Output
    images: int
    shape: tuple[int, int]
    alone: bool
    """One image as such, not a stack of one."""

    about: dict[str, Any]
    """What is said beside the values, where the format has room for it."""

    display: Display

    @property
    def media_type(self) -> str:
        """Of the whole answer."""
        return "application/zip" if self._archive else MEDIA_TYPES[self.output]

    @property
    def file_name(self) -> str:
        """What a browser would call it."""
        return "reconstruction." + ("zip" if self._archive else self.output)

    @property
    def _archive(self) -> bool:
        return not self.alone and self.output in ("png", "dcm")

    @property
    def whole_shape(self) -> tuple[int, ...]:
        """(H, W) of one image, (n, H, W) of a stack."""
        return self.shape if self.alone else (self.images, *self.shape)


def encode(wanted: Wanted, images: Images) -> AsyncIterator[bytes]:
    """The answer's bytes. Images are numbers in attenuation / MU_MAX, axis 0 = x; pictures show them transposed."""
    if wanted.output in ("h5", "tif"):
        return _whole(wanted, images)
    if wanted.output == "npy":
        return _npy(wanted, images)
    if wanted.output == "npz":
        return _npz(wanted, images)
    if wanted.output == "json":
        return _json(wanted, images)
    return _pictures(wanted, images)


async def _npy(wanted: Wanted, images: Images) -> AsyncIterator[bytes]:
    head = npy_header(wanted.whole_shape)
    async for image in images:
        yield head + image.tobytes()
        head = b""


def npy_header(shape: tuple[int, ...]) -> bytes:
    """What precedes the values of a float32 array in a .npy file."""
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()


async def _npz(wanted: Wanted, images: Images) -> AsyncIterator[bytes]:
    with _zip() as (archive, drain):
        with archive.open("reconstruction.npy", "w", force_zip64=True) as entry:
            entry.write(npy_header(wanted.whole_shape))
            async for image in images:
                entry.write(image.tobytes())
                yield drain()
        archive.writestr("about.json", json.dumps(wanted.about))
        archive.close()
        yield drain()


async def _json(wanted: Wanted, images: Images) -> AsyncIterator[bytes]:
    about = {**wanted.about, "shape": wanted.whole_shape}
    before = json.dumps(about)[:-1] + ', "data": ' + ("" if wanted.alone else "[")
    async for image in images:
        yield (before + await run_in_threadpool(_numbers, image)).encode()
        before = ", "
    yield b"}" if wanted.alone else b"]}"


def _numbers(image: Image) -> str:
    return json.dumps([[float(f"{value:.7g}") for value in row] for row in image.tolist()])


async def _pictures(wanted: Wanted, images: Images) -> AsyncIterator[bytes]:
    series = new_series(wanted.about)
    number = 0

    def picture(image: Image) -> bytes:
        if wanted.output == "png":
            return as_png(image, wanted.display)
        return as_dicom(image, wanted.display, series, number + 1)

    with _zip() as (archive, drain):
        async for image in images:
            content = await run_in_threadpool(picture, image)
            if wanted.alone:
                yield content
                continue
            archive.writestr(f"image_{number:04d}.{wanted.output}", content)
            number += 1
            yield drain()
        archive.close()
        if not wanted.alone:
            yield drain()


async def _whole(wanted: Wanted, images: Images) -> AsyncIterator[bytes]:
    """Formats whose beginning says where the end is."""
    found = [image async for image in images]
    stack = np.stack(found).reshape(wanted.whole_shape)
    yield await run_in_threadpool(_h5 if wanted.output == "h5" else _tif, stack, wanted.about)


def _h5(stack: NDArray[np.float32], about: dict[str, Any]) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        data = file.create_dataset("data", data=stack)
        data.attrs.update(
            {name: json.dumps(value) if isinstance(value, dict) else value for name, value in about.items()}
        )
    return content.getvalue()


def _tif(stack: NDArray[np.float32], about: dict[str, Any]) -> bytes:
    content = io.BytesIO()
    tifffile.imwrite(content, stack, photometric="minisblack", metadata={"about": json.dumps(about)})
    return content.getvalue()


class _Pipe(io.RawIOBase):
    """A file that is only written to, from front to back; what was written is taken away."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._place = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self._place += len(self._parts[-1])
        return len(self._parts[-1])

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


@contextmanager
def _zip() -> Iterator[tuple[zipfile.ZipFile, Callable[[], bytes]]]:
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        yield archive, pipe.take
