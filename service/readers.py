"""From a body to a stack of sinograms, whatever format it has.

Nothing is made of a file before it is checked: no pickles, and no more bytes unpacked than allowed. HDF5 and TIFF are
read by the processes of reader_pool.py.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import threading
import zipfile
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from fbp_ray.geometry import Geometry
from service.memory import Bill
from service.problems import Problem
from service.reader_pool import ARRAY_NAMES, ReaderPool, Refused

FORMATS = (
    ".npy, .npz, .h5 (LoDoPaB-CT's layout), .mat (v7.3), .tif, or raw little-endian float32 with X-Shape: angles,cells"
)
GIVEN = "the geometry in the form"
MAX_VALUE = 1e6
"""No line integral is as large in any unit; beyond it images would not be finite."""
MAX_NPY_HEADER = 1024
_ONE_HEADER = threading.Lock()
"""Python 3.11.7 and before count the depth of what is parsed for all threads together, and take two at once for an
error (python/cpython issue 106905)."""
MAX_ENTRIES = 64
SCANNED = 1 << 22  # bytes that are looked through, or read, at a time
_ENTRY = re.compile(rb"PK\x01\x02")  # begins every entry in the list of a .zip
_HDF5 = b"\x89HDF\r\n\x1a\n"
_USER_BLOCKS = (0, *(512 << doubled for doubled in range(8)))  # where HDF5 begins; MATLAB puts 512 bytes before it
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_SHAPE = re.compile(r"\s*\d{1,7}(\s*[,x]\s*\d{1,7}){1,2}\s*")


Content = bytes | bytearray | memoryview


class Stack(NamedTuple):
    """Sinograms that may be reconstructed."""

    sinograms: Tensor
    """(n, A, D) float32."""

    single: bool
    """The body held one sinogram as such, not a stack of one."""


def read_stack(
    body: Content,
    shape: str | None,
    geometry: Geometry,
    whose: str,
    max_sinograms: int,
    reader_pool: ReaderPool,
    bill: Bill,
) -> Stack:
    """The sinograms in a body.

    Args:
        body: a file, or raw values.
        shape: what the header X-Shape says of raw values; None for a file.
        geometry: of the scan.
        whose: geometry it is, for messages: the model NAME, or GIVEN.
        max_sinograms: that a request may have.
        reader_pool: reads HDF5 and TIFF; its limit on an array's bytes holds for every format.
        bill: of the request; what the body unpacks to is put there before it is unpacked.

    Raises:
        Problem: 400, 413, 415 or 422: no such file, not the scan's shape, or values that are not finite; 503: there is
            no memory for it now.
    """
    with bill:  # until this thread ends, even if nobody waits for it any more
        array = read_array(body, shape, reader_pool, bill)
        return Stack(as_sinograms(array, geometry, whose, max_sinograms, bill), array.ndim == 2)


def _begins(body: Content, magic: bytes, begin: int = 0) -> bool:
    return bool(body[begin : begin + len(magic)] == magic)


def is_packed(body: Content) -> bool:
    """Whether a file may hold much more than it seems to, and take long to unpack."""
    return not _begins(body, b"\x93NUMPY")


def read_array(body: Content, shape: str | None, reader_pool: ReaderPool, bill: Bill) -> NDArray[Any]:
    """The array in a body, whatever its shape; arguments and errors as for `read_stack`."""
    if not body:
        raise Problem(400, f"the body is empty; send a sinogram as {FORMATS}")
    if shape is not None:
        return read_raw(body, shape)
    if _begins(body, b"\x93NUMPY"):
        return read_npy(body)
    if _begins(body, b"PK\x03\x04"):
        return read_npz(body, reader_pool.max_bytes, bill)
    hdf5 = any(_begins(body, _HDF5, begin) for begin in _USER_BLOCKS)
    try:
        if hdf5:
            return reader_pool.read("h5", body, bill)
        if any(_begins(body, magic) for magic in _TIFF):
            return reader_pool.read("tif", body, bill)
    except Refused as error:
        raise Problem(400, f"the {'HDF5' if hdf5 else 'TIFF'} file {error}") from None
    if _begins(body, b"MATLAB 5"):
        raise Problem(415, "this .mat file is of an older version than 7.3; write it with save(..., '-v7.3')")
    raise Problem(415, f"the body begins with {bytes(body[:8])!r}, which is no format that is known; send {FORMATS}")


def as_sinograms(array: NDArray[Any], geometry: Geometry, whose: str, max_sinograms: int, bill: Bill) -> Tensor:
    """Checks shape and values; (n, A, D) float32.

    Raises:
        Problem: 413 for too many, 422 for another shape or values that are not finite.
    """
    angles, cells = geometry.sinogram_shape
    if array.ndim not in (2, 3) or array.shape[-2:] != (angles, cells) or 0 in array.shape:
        turned = array.ndim in (2, 3) and array.shape[-2:] == (cells, angles) and cells != angles
        hint = "correct the geometry" if whose == GIVEN else f"GET /models/{whose.split()[-1]} describes its scan"
        hint = "swap its last two axes" if turned else hint
        raise Problem(
            422,
            f"{whose} takes a sinogram of ({angles}, {cells}) = (angles, cells), or a stack of them "
            f"(n, {angles}, {cells}), but this has the shape {array.shape}; {hint}",
        )
    stack = array.reshape(-1, angles, cells)
    if len(stack) > max_sinograms:
        raise Problem(
            413, f"a request may have {max_sinograms} sinograms, but this has {len(stack)}; send the stack in parts"
        )
    if array.dtype != np.float32 or not (array.flags.c_contiguous and array.flags.writeable):
        bill.take(4 * array.size)  # for a copy
    with np.errstate(over="ignore", invalid="ignore"):
        sinograms = torch.from_numpy(np.require(stack, np.float32, ["C", "W"]))
    for index, sinogram in enumerate(sinograms):
        low, high = (float(value) for value in torch.aminmax(sinogram))  # NaN comes through both
        if not (low >= -MAX_VALUE and high <= MAX_VALUE):
            which = "the sinogram" if len(sinograms) == 1 else f"sinogram {index} of {len(sinograms)} (counted from 0)"
            raise Problem(422, f"{which} {_what_is_wrong(sinogram)} Nothing was reconstructed", index=index)
    return sinograms


def _what_is_wrong(sinogram: Tensor) -> str:
    bad = (~torch.isfinite(sinogram)).nonzero()
    if len(bad):
        angle, cell = bad[0].tolist()
        values = "value that is" if len(bad) == 1 else "values that are"
        return (
            f"has {len(bad)} {values} NaN or infinite, the first at angle {angle}, cell {cell}; a cell without a "
            "photon counts as 0.1 photon in LoDoPaB-CT."
        )
    return f"has values beyond {MAX_VALUE:g}, which no line integral has; is the unit right?"


def read_npy(content: Content, what: str = "the body") -> NDArray[Any]:
    """The array of a .npy file, a view of its bytes where that can be.

    Raises:
        Problem: it is cut short, damaged, or holds something else than floating-point numbers.
    """
    file = io.BytesIO(memoryview(content)[: MAX_NPY_HEADER + 64])
    try:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise Problem(400, f"{what} is .npy of version {version}, which holds records; save a plain float32 array")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        with _ONE_HEADER:
            shape, fortran, dtype = read(file, max_header_size=MAX_NPY_HEADER)
        shape = tuple(int(axis) for axis in shape)  # numpy takes True for a length, but makes no array of it
    except Problem:
        raise
    except Exception as error:  # whatever numpy makes of a stranger's header
        raise Problem(400, f"{what} is not whole .npy: {_first_line(error)}; save it with numpy.save") from None
    if dtype.kind != "f" or dtype.itemsize > 8:
        kind = "Python objects" if dtype.hasobject else str(dtype)[:50]
        hint = "; photon counts become line integrals by -log(counts / unattenuated)" if dtype.kind in "iu" else ""
        raise Problem(
            400, f"{what} holds {kind}, but line integrals are floating point: float16, float32 or float64{hint}"
        )
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


class _View(io.RawIOBase):
    """Bytes as a file, which io.BytesIO would copy."""

    def __init__(self, content: Content) -> None:
        self._content = memoryview(content)
        self._at = 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, len(self._content))[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        rest = max(0, len(self._content) - self._at)
        size = rest if size is None or size < 0 else min(size, rest)
        if size > SCANNED:
            raise ValueError(f"its list of entries takes {size} bytes")  # nothing else is read in one piece
        self._at += size
        return bytes(self._content[self._at - size : self._at])


def _has_more_entries(content: Content) -> bool:
    """Whether an archive lists more than it may: the list of its entries would take many times the body's memory.

    A part after the other, so that other threads get their turn.
    """
    parts = (_ENTRY.finditer(content, begin, begin + SCANNED + 3) for begin in range(0, len(content), SCANNED))
    return next(itertools.islice(itertools.chain.from_iterable(parts), MAX_ENTRIES, None), None) is not None


def read_npz(content: Content, max_bytes: int, bill: Bill) -> NDArray[Any]:
    """The array of a .npz file: its only one, or the one that is called data, sinogram or observation.

    Raises:
        Problem: it is damaged, holds none or several, or more than `max_bytes` unpacked; there is no memory for it now.
    """
    if _has_more_entries(content):
        raise Problem(400, f".npz may hold {MAX_ENTRIES} arrays; save the sinogram alone: numpy.savez(file, data=..)")
    try:
        with zipfile.ZipFile(_View(content)) as archive:
            entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            known = [name for name in ARRAY_NAMES if name in entries]
            name = known[0] if known else next(iter(entries), None)
            if name is None or (not known and len(entries) > 1):
                raise Problem(
                    400,
                    f".npz should hold one array, or one called data, but this holds {sorted(entries)[:8]}; save it "
                    "with numpy.savez(file, data=sinogram)",
                )
            info = entries[name]
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Problem(400, f"`{name}` in the .npz is packed in an unusual way; use numpy.savez")
            if info.file_size > max_bytes:  # no more than this size is ever unpacked
                raise Problem(
                    413, f"`{name}` in the .npz unpacks to more than {max_bytes} bytes, which is the limit; send less"
                )
            bill.take(info.file_size)
            unpacked, filled = bytearray(info.file_size), 0
            with archive.open(info) as file:
                while part := file.read(1 << 20):
                    unpacked[filled : filled + len(part)] = part
                    filled += len(part)
    except Problem:
        raise
    except Exception as error:  # whatever zipfile makes of a stranger's archive
        raise Problem(400, f"the body is not whole .npz: {_first_line(error)}; save it with numpy.savez") from None
    return read_npy(memoryview(unpacked)[:filled], f"`{name}` in the .npz")


def read_raw(content: Content, shape: str) -> NDArray[Any]:
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


def _first_line(error: Exception) -> str:
    return ((str(error).splitlines() or [""])[0] or type(error).__name__)[:200]
