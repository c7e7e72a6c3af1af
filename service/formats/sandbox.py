"""A process that reads HDF5 and TIFF from strangers: their libraries may crash, hang or take all memory on a bad file.

It is started by the path of this file and imports nothing of the package. It takes requests on standard input and
answers on standard output, each a length, a line of JSON and bytes:

    {"kind": "h5" | "tif", "most": bytes of the array}    + the file
    {"shape": [..], "dtype": ".."} or {"error": ".."}     + the array
"""

from __future__ import annotations

import io
import json
import resource
import struct
import sys
from typing import Any, BinaryIO

import numpy as np

NAMES = ("data", "sinogram", "observation")
SPARE = 1 << 30  # bytes besides the file and the array


class Refused(Exception):
    """A file that is not taken, and why."""


def read_h5(content: bytes, most: int) -> Any:
    """The array of a file in the layout of LoDoPaB-CT."""
    import h5py

    with h5py.File(io.BytesIO(content), "r") as file:
        name = next((name for name in NAMES if name in file), None)
        if name is None:
            raise Refused(f"it has no data set `data`, only {sorted(file)[:8]}")
        # Links and external storage would let a stranger read other files of this machine.
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise Refused(f"`{name}` is a link; store the data in the file itself")
        data = file[name]
        if not isinstance(data, h5py.Dataset):
            raise Refused(f"`{name}` is a group; it should be a data set of floating-point numbers")
        if data.is_virtual or data.external:
            raise Refused(f"`{name}` is stored in other files; store it in this one")
        check(data.shape, data.dtype, most)
        return data[()]


def read_tif(content: bytes, most: int) -> Any:
    """The pages of a TIFF, one a sinogram."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        if not file.series:
            raise Refused("it holds no image")
        series = file.series[0]
        check(series.shape, series.dtype, most)
        return series.asarray(maxworkers=1)


def check(shape: Any, dtype: Any, most: int) -> None:
    """Refuses an array before it is read."""
    if shape is None or dtype is None or dtype.kind != "f" or dtype.itemsize > 8:
        raise Refused(f"it holds {dtype}; line integrals are floating point: float16, float32 or float64")
    size = dtype.itemsize
    for axis in shape:
        size *= int(axis)
    if size > most:
        raise Refused(f"its array of shape {tuple(shape)} takes {size} bytes, but {most} are allowed")


def answer(kind: str, content: bytes, most: int) -> tuple[dict[str, Any], bytes]:
    """What a file holds, or why it is refused."""
    try:
        array = np.asarray((read_h5 if kind == "h5" else read_tif)(content, most))
        check(array.shape, array.dtype, most)
        array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        return {"shape": array.shape, "dtype": array.dtype.str}, array.tobytes()
    except Refused as error:
        return {"error": str(error)}, b""
    except Exception as error:  # whatever a library makes of a stranger's bytes
        lines = str(error).splitlines() or [""]
        return {"error": f"it cannot be read ({type(error).__name__}: {lines[0][:200]})"}, b""


def send(stream: BinaryIO, about: dict[str, Any], content: bytes) -> None:
    """Writes a message."""
    line = json.dumps(about).encode()
    stream.write(struct.pack("<QQ", len(line), len(content)))
    stream.write(line)
    stream.write(content)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """Reads a message; None at the end."""
    head = stream.read(16)
    if len(head) < 16:
        return None
    line, content = struct.unpack("<QQ", head)
    about, rest = stream.read(line), stream.read(content)
    if len(about) < line or len(rest) < content:
        return None
    return json.loads(about), rest


def main() -> None:
    """Answers until standard input ends."""
    import h5py
    import tifffile  # noqa: F401  # now, so that the first request need not wait

    limit = int(sys.argv[1])
    with open("/proc/self/statm") as file:  # noqa: PTH123
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + limit, used + limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    h5py.get_config()
    while (request := receive(sys.stdin.buffer)) is not None:
        about, content = request
        send(sys.stdout.buffer, *answer(about["kind"], content, about["most"]))


if __name__ == "__main__":
    main()
