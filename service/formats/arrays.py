""".npy, .npz and raw float32: checked before anything is made of them, no pickles, no more unpacked than allowed."""

from __future__ import annotations

import io
import math
import re
import zipfile
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from service.formats.sandbox import NAMES
from service.problems import Problem

LONGEST_HEADER = 1024
_SHAPE = re.compile(r"\s*\d{1,7}(\s*[,x]\s*\d{1,7}){1,2}\s*")
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_npy(content: bytes | bytearray | memoryview, what: str = "the body") -> NDArray[Any]:
    """The array of a .npy file, a view of its bytes where that can be.

    Raises:
        Problem: it is cut short, damaged, or holds something else than floating-point numbers.
    """
    file = io.BytesIO(memoryview(content)[: LONGEST_HEADER + 64])
    try:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise Problem(400, f"{what} is .npy of version {version}, which holds records; save a plain float32 array")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file, max_header_size=LONGEST_HEADER)
    except Problem:
        raise
    except Exception as error:  # whatever numpy makes of a stranger's header
        raise Problem(400, f"{what} is not whole .npy: {_first_line(error)}; save it with numpy.save") from None
    check_dtype(dtype, what)
    begin, size = file.tell(), math.prod(shape) * dtype.itemsize
    if len(content) != begin + size:
        raise Problem(
            400,
            f"{what} should have {begin + size} bytes for an array of shape {shape} and type {dtype}, but has "
            f"{len(content)}; was it cut short? Send it again",
        )
    try:
        return np.frombuffer(content, dtype, offset=begin).reshape(shape, order="F" if fortran else "C")
    except ValueError:  # negative lengths whose product is right, or one beyond all measure beside a zero
        raise Problem(400, f"{what} has the shape {shape}, which no array has; save it with numpy.save") from None


def read_npz(content: bytes | bytearray, most: int) -> NDArray[Any]:
    """The array of a .npz file: its only one, or the one that is called data, sinogram or observation.

    Raises:
        Problem: it is damaged, holds none or several, or more than `most` bytes unpacked.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()[:64]}
            named = [name for name in NAMES if name in entries]
            name = named[0] if named else next(iter(entries), None)
            if name is None or (not named and len(entries) > 1):
                raise Problem(
                    400,
                    f".npz should hold one array, or one called data, but this holds {sorted(entries)[:8]}; save it "
                    "with numpy.savez(file, data=sinogram)",
                )
            info = entries[name]
            if info.compress_type not in _PACKED:
                raise Problem(400, f"`{name}` in the .npz is packed in an unusual way; use numpy.savez")
            with archive.open(info) as file:
                unpacked = file.read(most + 1)
    except Problem:
        raise
    except Exception as error:  # whatever zipfile makes of a stranger's archive
        raise Problem(400, f"the body is not whole .npz: {_first_line(error)}; save it with numpy.savez") from None
    if len(unpacked) > most:
        raise Problem(413, f"`{name}` in the .npz unpacks to more than {most} bytes, which is the limit; send less")
    return read_npy(bytearray(unpacked), f"`{name}` in the .npz")


def read_raw(content: bytes | bytearray, shape: str) -> NDArray[Any]:
    """Little-endian float32 of the shape that a header gives, such as `1000,513` or `4,1000,513`.

    Raises:
        Problem: the shape is no such text, or the bytes are not as many.
    """
    if not _SHAPE.fullmatch(shape):
        raise Problem(
            400, f"X-Shape should be angles,cells or images,angles,cells, such as 1000,513; got {shape[:50]!r}"
        )
    axes = tuple(int(axis) for axis in re.split("[,x]", shape))
    size = 4 * math.prod(axes)
    if len(content) != size:
        raise Problem(
            400,
            f"float32 of shape {axes} has {size} bytes, but the body has {len(content)}; check X-Shape, or send .npy",
        )
    return np.frombuffer(content, "<f4").reshape(axes)


def check_dtype(dtype: np.dtype[Any], what: str) -> None:
    """Refuses what is no floating-point number of at most 64 bits."""
    if dtype.kind != "f" or dtype.itemsize > 8:
        kind = "Python objects" if dtype.hasobject else str(dtype)[:50]
        hint = "; photon counts become line integrals by -log(counts / unattenuated)" if dtype.kind in "iu" else ""
        raise Problem(
            400, f"{what} holds {kind}, but line integrals are floating point: float16, float32 or float64{hint}"
        )


def _first_line(error: Exception) -> str:
    return ((str(error).splitlines() or [""])[0] or type(error).__name__)[:200]
