"""Reading HDF5 and TIFF from strangers in processes of their own: their libraries may crash, hang or take all memory.

The service imports this file for ReaderPool. The processes run it by its path, so it imports nothing of the package.
They take requests on standard input and answer on standard output, each two lengths, a line of JSON and bytes:

    {"kind": "h5" | "tif", "max_bytes": of the array, "seconds": of the processor}      + the file
    {"needs": bytes of memory to read it, "bytes": of the array} or {"error": ".."}
    {"go": true | false}
    {"shape": [..], "dtype": ".."} or {"error": ".."}                                   + the array
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import math
import os
import queue
import resource
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Kind = Literal["h5", "tif"]
ARRAY_NAMES = ("data", "sinogram", "observation")
SPARE = 1 << 26
"""Bytes of memory that a process may have besides what the file and its array need."""
CHUNK = 4096
"""Bytes that HDF5 takes to keep track of a chunk; measured 3960."""
GROWN = 1 << 25
"""Bytes that a process may keep after a file; one that has kept more starts itself anew."""
CLEAN = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT")
"""Variables of the environment that a process gets: nothing that could hold a secret."""


class Refused(Exception):
    """A file that is not taken, and why."""


class NotNow(Exception):
    """There is no memory for the file."""


Ask = Callable[[int, int], None]
"""Told how many bytes reading takes and how many the array has, returns when they may be taken."""


class Account(Protocol):
    """Where the memory that a file takes is counted."""

    def take(self, size: int) -> None:
        """Counts bytes that are about to be taken, or raises."""

    def give(self, size: int) -> None:
        """Counts bytes that are free again."""


class ReaderPool:
    """Some reading processes, started when they are first needed. Any thread may read.

    Args:
        max_bytes: the largest array.
        processes: how many there may be at a time.
        seconds: of a processor for a file; in three times as many it has to be there.
    """

    def __init__(self, max_bytes: int, processes: int = 2, seconds: int = 20) -> None:
        self.max_bytes = max_bytes
        self.seconds = seconds
        self._idle: queue.LifoQueue[subprocess.Popen[bytes] | None] = queue.LifoQueue()
        for _ in range(processes):
            self._idle.put(None)

    def read(self, kind: Kind, content: bytes | bytearray | memoryview, account: Account) -> NDArray[Any]:
        """The array in a file.

        Raises:
            Refused: the file is not of this kind, holds something else, or took the process's life or time.
        """
        begun = len(content) + SPARE  # what the process itself takes, until it has answered
        account.take(begun)
        process = self._idle.get()
        try:
            if process is None or process.poll() is not None:
                process = self._start()
            found = self._ask(process, kind, content, account)
        except BaseException:
            _end(process)
            process = None
            raise
        finally:
            self._idle.put(process)
            account.give(begun)
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """Ends the processes."""
        while not self._idle.empty():
            _end(self._idle.get())

    def _start(self) -> subprocess.Popen[bytes]:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        clean = {name: os.environ[name] for name in CLEAN if name in os.environ}
        return subprocess.Popen(
            [sys.executable, "-I", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**clean, **threads, "HDF5_PLUGIN_PRELOAD": "::"},  # the double colon: no plugins are loaded
        )

    def _ask(
        self, process: subprocess.Popen[bytes], kind: Kind, content: bytes | bytearray | memoryview, account: Account
    ) -> NDArray[Any] | Exception:
        """The array, or why there is none; what is raised has cost the process."""
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(3 * self.seconds, process.kill)
        timer.start()
        needs = 0
        try:
            send(process.stdin, {"kind": kind, "max_bytes": self.max_bytes, "seconds": self.seconds}, content)
            wanted, _ = receive(process.stdout, 0)
            if "error" in wanted:
                return Refused(f"was refused: {wanted['error']}")
            try:
                account.take(wanted["needs"] + wanted["bytes"])
            except Exception as no_room:
                send(process.stdin, {"go": False})
                return no_room
            needs = wanted["needs"]
            send(process.stdin, {"go": True})
            about, data = receive(process.stdout, wanted["bytes"])
            if "error" in about:
                return Refused(f"was refused: {about['error']}")
            return np.frombuffer(data, np.dtype(about["dtype"])).reshape(about["shape"])
        except (OSError, EOFError):
            raise Refused(
                f"took more than {self.seconds} s of a processor, or broke its reader; write it again, without "
                "compression, or send .npy"
            ) from None
        finally:
            timer.cancel()
            account.give(needs)


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()
        with contextlib.suppress(BrokenPipeError), process:  # what it has not read is not flushed any more
            pass


def send(stream: IO[bytes], about: dict[str, Any], content: Any = b"") -> None:
    """Writes a message."""
    line = json.dumps(about).encode()
    stream.write(struct.pack("<QQ", len(line), len(content)))
    stream.write(line)
    stream.write(content)
    stream.flush()


def receive(stream: IO[bytes], most: int) -> tuple[dict[str, Any], bytearray]:
    """Reads a message with so many bytes at most; raises EOFError where it ends before."""
    head = stream.read(16)
    if len(head) < 16:
        raise EOFError
    line, size = struct.unpack("<QQ", head)
    if size > most:
        raise EOFError
    about, content = stream.read(line), bytearray(size)
    if len(about) < line or stream.readinto(content) < size:  # type: ignore[attr-defined]
        raise EOFError
    return json.loads(about), content


def read_h5(content: bytearray, max_bytes: int, ask: Ask) -> Any:
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
        size = check(data.shape, data.dtype, max_bytes)
        stored = data.id.get_create_plist()
        for code, _, _, what in map(stored.get_filter, range(stored.get_nfilters())):
            if not h5py.h5z.filter_avail(code):
                raise Refused(
                    f"`{name}` is compressed by the filter {code} ({what.decode(errors='replace')}), which is not read "
                    "here; write it again with gzip, for example with `h5repack -f GZIP=4 in.h5 out.h5`, or send .npy"
                )
        chunks = [-(-axis // long) for axis, long in zip(data.shape, data.chunks or data.shape, strict=True) if axis]
        tracking = CHUNK * math.prod(chunks)
        if tracking > max_bytes:
            raise Refused(f"`{name}` is cut into {math.prod(chunks)} chunks, which are too many; write larger ones")
        chunk = math.prod(data.chunks or (0,)) * data.dtype.itemsize
        ask(2 * size + tracking + 2 * chunk, size)
        return data[()].T if matlab else data[()]


def read_tif(content: bytearray, max_bytes: int, ask: Ask) -> Any:
    """The images of a TIFF, one a sinogram; they may have been written together or one by one."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        if not file.series:
            raise Refused("it holds no image")
        first, count = file.series[0], len(file.series)
        if any((series.shape, series.dtype) != (first.shape, first.dtype) for series in file.series):
            raise Refused(f"it holds {count} images of different shapes or types; write one image, or a stack of equal")
        shape = first.shape if count == 1 else (count, *first.shape)
        size = check(shape, first.dtype, max_bytes)
        ask(3 * size, size)
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


def check(shape: Any, dtype: Any, max_bytes: int) -> int:
    """The bytes of an array; refuses it before it is read."""
    if shape is None or dtype is None or dtype.kind != "f" or dtype.itemsize > 8:
        raise Refused(f"it holds {dtype}; line integrals are floating point: float16, float32 or float64")
    size = int(dtype.itemsize)
    for axis in shape:
        size *= int(axis)
    if size > max_bytes:
        raise Refused(f"its array of shape {tuple(shape)} takes {size} bytes, but {max_bytes} are allowed")
    return size


READERS: dict[Kind, Callable[[bytearray, int, Ask], Any]] = {"h5": read_h5, "tif": read_tif}


def answer(about: dict[str, Any], content: bytearray) -> tuple[dict[str, Any], Any]:
    """What a file holds, or why it is refused."""
    begun = limit_memory(SPARE)

    def ask(needs: int, size: int) -> None:
        send(sys.stdout.buffer, {"needs": needs, "bytes": size})
        reply, _ = receive(sys.stdin.buffer, 0)
        if not reply["go"]:
            raise NotNow
        limit_memory(needs + SPARE, begun)

    try:
        array = np.asarray(READERS[about["kind"]](content, about["max_bytes"], ask))
        check(array.shape, array.dtype, about["max_bytes"])
        array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        return {"shape": array.shape, "dtype": array.dtype.str}, array.reshape(-1).view(
            np.uint8
        ).data if array.size else b""
    except Refused as error:
        return {"error": str(error)}, b""
    except (NotNow, EOFError):
        raise
    except Exception as error:  # whatever a library makes of a stranger's bytes
        lines = str(error).splitlines() or [""]
        why = f"{type(error).__name__}: {lines[0][:200]}"
        return {
            "error": f"it cannot be read ({why}); if it is whole, write it again without compression, or send .npy"
        }, b""


def limit_memory(further: int, begun: int | None = None) -> int:
    """Limits this process to so many bytes more than it had when it begun, or has now; returns the latter."""
    if begun is None:
        begun = _pages(0)
    resource.setrlimit(resource.RLIMIT_AS, (begun + further, resource.RLIM_INFINITY))
    return begun


def limit_time(seconds: int) -> None:
    """Limits this process to so many seconds of a processor more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds += math.ceil(used.ru_utime + used.ru_stime)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))


def _pages(field: int) -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[field]) * resource.getpagesize()


def main() -> None:
    """Answers until standard input ends. A process that a file has left with more memory starts itself anew."""
    import h5py
    import tifffile  # noqa: F401  # now, so that the first request need not wait

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    h5py.get_config()
    begun = _pages(1)
    with contextlib.suppress(EOFError):
        while True:
            about, content = receive(sys.stdin.buffer, sys.maxsize)
            limit_time(about["seconds"])
            with contextlib.suppress(NotNow):
                send(sys.stdout.buffer, *answer(about, content))
            del content
            for limit in (resource.RLIMIT_AS, resource.RLIMIT_CPU):
                resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            ctypes.CDLL(None).malloc_trim(0)
            if _pages(1) > begun + GROWN:
                os.execv(sys.executable, [sys.executable, "-I", __file__])


if __name__ == "__main__":
    main()
