"""From a body to a stack of sinograms, whatever format it has."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from python_multipart.exceptions import FormParserError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from torch import Tensor

from fbp_ray.geometry import ParallelBeam
from service.formats.arrays import read_npy, read_npz, read_raw
from service.formats.guarded import ReaderPool
from service.problems import Problem

LARGEST = 1e6
"""No line integral is as large in any unit; beyond it images would not be finite."""

_MAGIC = (
    (b"\x93NUMPY", "npy"),
    (b"PK\x03\x04", "npz"),
    (b"\x89HDF\r\n\x1a\n", "h5"),
    (b"II*\x00", "tif"),
    (b"MM\x00*", "tif"),
    (b"II+\x00", "tif"),
    (b"MM\x00+", "tif"),
)
FORMATS = ".npy, .npz, .h5 (LoDoPaB-CT's layout), .tif, or raw little-endian float32 with X-Shape: angles,cells"


class Stack(NamedTuple):
    """Sinograms that may be reconstructed."""

    sinograms: Tensor
    """(n, A, D) float32."""

    alone: bool
    """One was sent as such, not as a stack of one."""


def decode(
    body: bytes | bytearray,
    shape: str | None,
    geometry: ParallelBeam,
    model: str,
    stack: int,
    most: int,
    guarded: ReaderPool,
) -> Stack:
    """The sinograms in a body.

    Args:
        body: the file, or raw values.
        shape: of raw values.
        geometry: that of the model.
        model: its name, for messages.
        stack: the most sinograms.
        most: bytes when unpacked.
        guarded: reads HDF5 and TIFF.

    Raises:
        Problem: 400, 413, 415 or 422: no such file, not the model's shape, or values that are not finite.
    """
    array = _array(body, shape, most, guarded)
    return Stack(as_sinograms(array, geometry, model, stack), array.ndim == 2)


def as_sinograms(array: NDArray[Any], geometry: ParallelBeam, model: str, stack: int) -> Tensor:
    """Checks shape and values; (n, A, D) float32.

    Raises:
        Problem: 413 for too many, 422 for another shape or values that are not finite.
    """
    angles, cells = geometry.sinogram_shape
    if array.ndim not in (2, 3) or array.shape[-2:] != (angles, cells) or 0 in array.shape:
        turned = array.ndim in (2, 3) and array.shape[-2:] == (cells, angles) and cells != angles
        hint = "swap its last two axes" if turned else f"GET /models/{model} describes its scan"
        raise Problem(
            422,
            f"the model {model} takes a sinogram of ({angles}, {cells}) = (angles, cells), or a stack of them "
            f"(n, {angles}, {cells}), but this has the shape {array.shape}; {hint}",
        )
    sinograms = array.reshape(-1, angles, cells)
    if len(sinograms) > stack:
        raise Problem(
            413, f"a request may have {stack} sinograms, but this has {len(sinograms)}; send the stack in parts"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        sinograms = np.ascontiguousarray(sinograms, dtype=np.float32)
    if not sinograms.flags.writeable:
        sinograms = sinograms.copy()
    found = torch.from_numpy(sinograms)
    for index, sinogram in enumerate(found):
        low, high = (float(value) for value in torch.aminmax(sinogram))  # NaN comes through both
        if not (low >= -LARGEST and high <= LARGEST):
            raise Problem(422, f"{_which(index, len(found))} {_what_is_wrong(sinogram)}", index=index)
    return found


def _which(index: int, count: int) -> str:
    return "the sinogram" if count == 1 else f"sinogram {index} of {count} (counted from 0)"


def _what_is_wrong(sinogram: Tensor) -> str:
    bad = ~torch.isfinite(sinogram)
    if bad.any():
        angle, cell = (int(place) for place in bad.nonzero()[0])
        return (
            f"has {int(bad.sum())} values that are NaN or infinite, the first at angle {angle}, cell {cell}; a cell "
            "without a photon counts as 0.1 photon in LoDoPaB-CT. Nothing was reconstructed"
        )
    return f"has values beyond {LARGEST:g}, which no line integral has; is the unit right? Nothing was reconstructed"


def _array(body: bytes | bytearray, shape: str | None, most: int, guarded: ReaderPool) -> NDArray[Any]:
    if not body:
        raise Problem(400, f"the body is empty; send a sinogram as {FORMATS}")
    if shape is not None:
        return read_raw(body, shape)
    kind = next((kind for magic, kind in _MAGIC if body.startswith(magic)), None)
    if kind == "npy":
        return read_npy(body)
    if kind == "npz":
        return read_npz(body, most)
    if kind in ("h5", "tif"):
        return guarded.read(kind, bytes(body))  # type: ignore[arg-type]
    raise Problem(415, f"the body begins with {bytes(body[:8])!r}, which is no format that is known; send {FORMATS}")


async def file_of_form(headers: Headers, body: bytearray, most: int) -> bytes:
    """The one file of a multipart form.

    Raises:
        Problem: 400, the form is damaged, or holds none or several.
    """

    async def stream() -> AsyncGenerator[bytes, None]:
        file = io.BytesIO(body)
        while chunk := file.read(1 << 20):
            yield chunk

    try:
        parser = MultiPartParser(headers, stream(), max_files=1, max_fields=0)
        form = await parser.parse()
    except (MultiPartException, FormParserError, KeyError, ValueError, AssertionError) as error:
        why = getattr(error, "message", "") or str(error) or type(error).__name__
        raise Problem(
            400, f"the form cannot be read: {why}; send one file, for example curl -F sinogram=@scan.npy"
        ) from None
    try:
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        if len(files) != 1:
            raise Problem(400, "the form holds no file; send one, for example curl -F sinogram=@scan.npy")
        content = await files[0].read()
    finally:
        await form.close()
    return content
