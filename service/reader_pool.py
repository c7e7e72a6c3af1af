"""Reading HDF5 and TIFF from strangers in processes of their own: their libraries may crash, hang or take all memory.

The service imports this file for ReaderPool. The processes run it by its path, so it imports nothing of the package.
They take requests on standard input and answer on standard output, each two lengths, a line of JSON and bytes:

    {"kind": "h5" | "tif", "max_bytes": of the array}       + the file
    {"shape": [..], "dtype": ".."} or {"error": ".."}       + the array
"""

from __future__ import annotations

import io
import json
import os
import queue
import resource
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["h5", "tif"]
ARRAY_NAMES = ("data", "sinogram", "observation")
SPARE = 1 << 30
"""Bytes of memory that a process may have besides the file and the array."""


class Refused(Exception):
    """A file that is not taken, and why."""


class ReaderPool:
    """Some reading processes, started when they are first needed. Any thread may read.

    Args:
        max_bytes: the largest array.
        processes: how many there may be at a time.
        seconds: the longest time for a file.
    """

    def __init__(self, max_bytes: int, processes: int = 2, seconds: float = 20.0) -> None:
        self.max_bytes = max_bytes
        self.seconds = seconds
        self._idle: queue.LifoQueue[subprocess.Popen[bytes] | None] = queue.LifoQueue()
        for _ in range(processes):
            self._idle.put(None)

    def read(self, kind: Kind, content: bytes) -> NDArray[Any]:
        """The array in a file.

        Raises:
            Refused: the file is not of this kind, holds something else, or took the process's life or time.
        """
        process = self._idle.get()
        try:
            if process is None or process.poll() is not None:
                process = self._start()
            about, data = self._ask(process, kind, content)
        except BaseException:
            if process is not None:
                process.kill()
                process.wait()
            self._idle.put(None)
            raise
        self._idle.put(process)
        if "error" in about:
            raise Refused(f"was refused: {about['error']}")
        return np.frombuffer(bytearray(data), np.dtype(about["dtype"])).reshape(about["shape"])

    def close(self) -> None:
        """Ends the processes."""
        while not self._idle.empty():
            process = self._idle.get()
            if process is not None:
                with process:
                    process.kill()

    def _start(self) -> subprocess.Popen[bytes]:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        return subprocess.Popen(
            [sys.executable, "-I", __file__, str(3 * self.max_bytes + SPARE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **threads, "HDF5_PLUGIN_PRELOAD": "::"},  # the double colon: no plugins are loaded
        )

    def _ask(self, process: subprocess.Popen[bytes], kind: Kind, content: bytes) -> tuple[dict[str, Any], bytes]:
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(self.seconds, process.kill)
        timer.start()
        try:
            send(process.stdin, {"kind": kind, "max_bytes": self.max_bytes}, content)
            answer = receive(process.stdout)
        except OSError:
            answer = None
        finally:
            timer.cancel()
        if answer is None:
            raise Refused(
                f"could not be read in {self.seconds:g} s, or broke its reader; write it again, without compression, "
                "or send .npy"
            )
        return answer


def send(stream: IO[bytes], about: dict[str, Any], content: bytes) -> None:
    """Writes a message."""
    line = json.dumps(about).encode()
    stream.write(struct.pack("<QQ", len(line), len(content)))
    stream.write(line)
    stream.write(content)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Reads a message; None at the end."""
    head = stream.read(16)
    if len(head) < 16:
        return None
    line, content = struct.unpack("<QQ", head)
    about, rest = stream.read(line), stream.read(content)
    if len(about) < line or len(rest) < content:
        return None
    return json.loads(about), rest


def read_h5(content: bytes, max_bytes: int) -> Any:
    """The array of a file in the layout of LoDoPaB-CT, or of one that MATLAB wrote, with its axes in MATLAB's order."""
    import h5py

    matlab = content.startswith(b"MATLAB")
    with h5py.File(io.BytesIO(content), "r") as file:
        names = [name for name in file if not (matlab and name.startswith("#"))]  # those are MATLAB's own
        known = [name for name in ARRAY_NAMES if name in names]
        if not known and len(names) != 1:
            raise Refused(f"it should hold one data set, or one called `data`, but holds {sorted(names)[:8]}")
        name = (known or names)[0]
        # Links and external storage would let a stranger read other files of this machine.
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise Refused(f"`{name}` is a link; store the data in the file itself")
        data = file[name]
        if not isinstance(data, h5py.Dataset):
            raise Refused(f"`{name}` is a group; it should be a data set of floating-point numbers")
        if data.is_virtual or data.external:
            raise Refused(f"`{name}` is stored in other files; store it in this one")
        check(data.shape, data.dtype, max_bytes)
        stored = data.id.get_create_plist()
        for code, _, _, what in map(stored.get_filter, range(stored.get_nfilters())):
            if not h5py.h5z.filter_avail(code):
                raise Refused(
                    f"`{name}` is compressed by the filter {code} ({what.decode(errors='replace')}), which is not read "
                    "here; write it again with gzip, for example with `h5repack -f GZIP=4 in.h5 out.h5`, or send .npy"
                )
        return data[()].T if matlab else data[()]


def read_tif(content: bytes, max_bytes: int) -> Any:
    """The images of a TIFF, one a sinogram; they may have been written together or one by one."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        if not file.series:
            raise Refused("it holds no image")
        first, count = file.series[0], len(file.series)
        if any((series.shape, series.dtype) != (first.shape, first.dtype) for series in file.series):
            raise Refused(f"it holds {count} images of different shapes or types; write one image, or a stack of equal")
        shape = first.shape if count == 1 else (count, *first.shape)
        check(shape, first.dtype, max_bytes)
        try:
            return np.stack([series.asarray(maxworkers=1) for series in file.series]).reshape(shape)
        except Exception as error:
            page = first.keyframe
            names = [tifffile.COMPRESSION(page.compression).name, tifffile.PREDICTOR(page.predictor).name]
            if names == ["NONE", "NONE"]:
                raise
            raise Refused(
                f"its compression, {names[0]} with predictor {names[1]}, cannot be undone here "
                f"({str(error)[:100]}); write it again without, for example with `tiffcp -c none in.tif out.tif`, or "
                "send .npy. Whoever runs the service may install imagecodecs beside it"
            ) from None


def check(shape: Any, dtype: Any, max_bytes: int) -> None:
    """Refuses an array before it is read."""
    if shape is None or dtype is None or dtype.kind != "f" or dtype.itemsize > 8:
        raise Refused(f"it holds {dtype}; line integrals are floating point: float16, float32 or float64")
    size = dtype.itemsize
    for axis in shape:
        size *= int(axis)
    if size > max_bytes:
        raise Refused(f"its array of shape {tuple(shape)} takes {size} bytes, but {max_bytes} are allowed")


READERS: dict[Kind, Callable[[bytes, int], Any]] = {"h5": read_h5, "tif": read_tif}


def answer(kind: Kind, content: bytes, max_bytes: int) -> tuple[dict[str, Any], bytes]:
    """What a file holds, or why it is refused."""
    try:
        array = np.asarray(READERS[kind](content, max_bytes))
        check(array.shape, array.dtype, max_bytes)
        array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        return {"shape": array.shape, "dtype": array.dtype.str}, array.tobytes()
    except Refused as error:
        return {"error": str(error)}, b""
    except Exception as error:  # whatever a library makes of a stranger's bytes
        lines = str(error).splitlines() or [""]
        why = f"{type(error).__name__}: {lines[0][:200]}"
        return {
            "error": f"it cannot be read ({why}); if it is whole, write it again without compression, or send .npy"
        }, b""


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
        send(sys.stdout.buffer, *answer(about["kind"], content, about["max_bytes"]))


if __name__ == "__main__":
    main()
