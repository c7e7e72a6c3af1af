"""What somebody may send who means harm: each costs the sender little, and once cost the service much.

`ATTACKS` has a function for each. It is given the port of a service and an event, and ends when the event is set, if
it has not ended by itself.
"""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache

import h5py
import numpy as np
import tifffile

from fbp_ray.geometry import ParallelBeam

SECONDS = 20.0  # that an attack waits for an answer
Attack = Callable[[int, threading.Event], None]


@contextmanager
def _connected(port: int) -> Iterator[socket.socket]:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as wire:
        yield wire


def _head(path: str, length: int, *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {length}", *more]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _send(port: int, content: bytes) -> None:
    """Sends what is given as it is, and reads the begin of the answer."""
    with _connected(port) as wire:
        with suppress(OSError):  # it may have been let go before the end
            wire.sendall(content)
        wire.recv(1000)


def _post(body: Callable[[], bytes], path: str = "/reconstruct", *more: str) -> Attack:
    def attack(port: int, _: threading.Event) -> None:
        content = body()
        _send(port, _head(path, len(content), *more) + content)

    return attack


@cache
def _bomb() -> bytes:
    """An archive of kilobytes that unpacks to 200 sinograms."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("data.npy", "w") as file:
        np.lib.format.write_array(file, np.zeros((100, *ParallelBeam.lodopab().sinogram_shape), np.float32))
    return content.getvalue()


@cache
def _strips() -> bytes:
    """A TIFF of kilobytes whose thousand strips share one long stream of compressed bytes."""
    content = io.BytesIO()
    blank = np.zeros((1000, 513), np.float32)
    tifffile.imwrite(content, blank, rowsperstrip=1, compression="zlib", photometric="minisblack")
    whole, long = bytearray(content.getvalue()), zlib.compress(bytes(30_000_000), 9)
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        for name, value in (("StripOffsets", len(whole)), ("StripByteCounts", len(long))):
            tag = file.pages[0].tags[name]  # type: ignore[union-attr]
            size = {3: 2, 4: 4}[int(tag.dtype)]
            for at in range(tag.valueoffset, tag.valueoffset + tag.count * size, size):
                whole[at : at + size] = value.to_bytes(4, "little")[:size]
    return bytes(whole) + long


@cache
def _chunks(shape: tuple[int, int]) -> bytes:
    """An HDF5 file of kilobytes: chunks of a few values, none of them written."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset("data", shape=(1000, 8000), dtype="f4", chunks=shape, compression="gzip")
    return content.getvalue()


def _announced(port: int, over: threading.Event) -> None:
    """Half a gigabyte is announced, and nothing sent."""
    with _connected(port) as wire:
        wire.sendall(_head("/reconstruct", 500_000_000))
        over.wait(5)


def _unread(port: int, over: threading.Event) -> None:
    """A stack is sent, and its answer not read."""
    body = io.BytesIO()
    np.save(body, np.zeros((8, *ParallelBeam.lodopab().sinogram_shape), np.float32))
    content = body.getvalue()
    with _connected(port) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.sendall(_head("/reconstruct", len(content)) + content)
        over.wait(5)


def _idle(port: int, over: threading.Event) -> None:
    """Connections that ask for nothing."""
    with ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(_connected(port))
        over.wait(5)


def _sent(content: Callable[[], bytes]) -> Attack:
    return lambda port, _: _send(port, content())


def _pipelined(port: int, over: threading.Event) -> None:
    """Requests with long heads without end, before any is answered."""
    request = b"GET /models HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 17_000 + b"\r\n\r\n"
    with _connected(port) as wire, suppress(OSError):
        for _ in range(2000):
            wire.sendall(request)
            if over.is_set():
                return


def _long_list() -> bytes:
    """A .zip of 60 MB whose list of entries seems to be all of it."""
    begin = b"PK\x03\x04" + bytes(60_000_000)
    return begin + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(begin), 0, 0)


def _json(path: str, document: object) -> Attack:
    return _post(lambda: json.dumps(document).encode(), path, "Content-Type: application/json")


_START = b"GET /models HTTP/1.1\r\nHost: 127.0.0.1\r\n"
_GRID = {"sweep": {"search": "grid", "trials": 10**12}}
_OTHER_HOST = "s3://bucket/x?endpoint_override=127.0.0.1:9&scheme=http"
ATTACKS: dict[str, Attack] = {
    "an archive that unpacks to 200 MB": _post(_bomb),
    "500 MB announced, nothing sent": _announced,
    "an answer that is not read": _unread,
    "a TIFF whose strips share one stream": _post(_strips),
    "an HDF5 of chunks (1, 8)": _post(lambda: _chunks((1, 8))),
    "an HDF5 of chunks (1, 1)": _post(lambda: _chunks((1, 1))),
    "30 idle connections": _idle,
    "requests before answers": _pipelined,
    "an archive that is all list": _post(_long_list),
    "1.4 million tiny headers": _sent(lambda: _START + b"a: b\r\n" * 1_400_000),
    "a URL of 39 MB": _sent(lambda: b"GET /" + b"b" * 39_000_000 + b" HTTP/1.1\r\n\r\n"),
    "deep JSON": _post(lambda: b"[" * 250_000, "/jobs", "Content-Type: application/json"),
    "a grid of 10^12 trials": _json("/jobs", {"kind": "sweep", "config": _GRID}),
    "a lone surrogate": _post(
        lambda: rb'{"kind": "train", "config": {"run": {"name": "\ud800"}}}', "/jobs", "Content-Type: application/json"
    ),
    "a model of another host": _json("/models/x/activate", {"source": _OTHER_HOST}),
    "a shape of (True,)": _post(
        lambda: b"\x93NUMPY\x01\x00F\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}".ljust(70)
    ),
    "a malformed host": _sent(lambda: b"GET /models/ HTTP/1.1\r\nHost: a{b}.evil.example\r\n\r\n"),
}
