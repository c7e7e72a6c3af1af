"""What a stranger may send costs bounded memory and time, and nobody else an answer."""

from __future__ import annotations

import io
import re
import socket
import struct
import subprocess
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import h5py
import httpx
import numpy as np
import psutil
import pytest
import tifffile
from pydantic import SecretStr
from starlette.datastructures import Headers

from service.access import token_of
from service.memory import Bill, Memory
from service.observability import Metrics
from service.reader_pool import ReaderPool
from service.settings import AccessConfig, LimitsConfig, Settings
from tests.service.test_process import service, wait_for
from tests.support.serving import as_npy, running, save_model, settings_for, sinograms

BUDGET = 160_000_000
LIMITS = {
    "body_mb": "64",
    "stack": "4000",
    "waiting_mb": str(BUDGET // 1_000_000),
    "connections": "40",
    "idle_seconds": "1.5",
    "slowest_kb": "200",
    "file_seconds": "1",
    "end_seconds": "4",
}


class Target:
    """A service, what it takes, and a client that means well."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], client: httpx.Client) -> None:
        self.folder = folder
        self.process = process
        self.client = client
        self.address = client.base_url.host, client.base_url.port or 0
        self.body = as_npy(sinograms(1)[0])
        self.image = np.load(io.BytesIO(client.post("/reconstruct", content=self.body).content))
        with ThreadPoolExecutor(16) as pool:  # what is started once is started
            assert set(pool.map(self.post, [self.body] * 32)) == {200}

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=30)

    def ask(self, head: str, body: bytes = b"") -> bytes:
        """The answer's first line to a request that is sent as it is."""
        with self.connect() as connection:
            with suppress(OSError):  # it has answered already
                connection.sendall(head.replace("\n", "\r\n").encode("latin-1") + body)
            try:
                return connection.recv(1000).split(b"\r\n")[0]
            except ConnectionResetError:
                return b""

    def post(self, content: bytes, query: str = "") -> int:
        return httpx.post(f"{self.client.base_url}/reconstruct{query}", content=content, timeout=60).status_code

    def works(self) -> None:
        assert self.client.get("/models").status_code == 200
        answer = self.client.post("/reconstruct", content=self.body)
        assert answer.status_code == 200, answer.text
        np.testing.assert_allclose(np.load(io.BytesIO(answer.content)), self.image, atol=1e-6)

    def memory(self) -> int:
        """Bytes that it and its readers have."""
        process = psutil.Process(self.process.pid)
        size = process.memory_info().rss
        for child in process.children():
            with suppress(psutil.NoSuchProcess):  # one that is just being started seems to have all of its parent's
                size += child.memory_info().rss if any("reader_pool" in word for word in child.cmdline()) else 0
        return size

    @contextmanager
    def bounded(self, further: int = BUDGET * 130 // 100) -> Iterator[None]:
        """While the block runs its memory grows by no more than that, and it is counted down to nothing after it."""
        before, over, most = self.memory(), threading.Event(), 0

        def look() -> None:
            nonlocal most
            while not over.wait(0.01):
                most = max(most, self.memory())

        looking = threading.Thread(target=look)
        looking.start()
        try:
            yield
            wait_for(lambda: "fbp_body_bytes 0.0" in self.client.get("/metrics").text, 20)
        finally:
            over.set()
            looking.join()
        assert most - before <= further, f"{(most - before) / 1e6:.0f} MB"

    def goes_on(self, attack: Callable[[], object], *more: Callable[[], object]) -> list[object]:
        """What attacks return that run at the same time, while others are answered."""
        with ThreadPoolExecutor(64) as pool:
            results = [pool.submit(each) for each in (attack, *more)]
            while not all(result.done() for result in results):
                began = time.monotonic()
                assert self.client.get("/health/live").status_code == 200
                self.works()
                assert time.monotonic() - began < 20
            return [result.result() for result in results]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("service")
    save_model(folder / "model")
    argv = ["--batching.queue", "9999"]
    argv += [text for name, value in LIMITS.items() for text in (f"--limits.{name}", value)]
    with service(folder, *argv) as (process, client):
        client.post("/models/best/activate", json={"source": str(folder / "model")}).raise_for_status()
        yield Target(folder, process, client)


def h5(**kwargs: object) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset("data", **kwargs)
    return content.getvalue()


def bomb() -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, data=np.zeros((3900, 60, 67), np.float32))
    return content.getvalue()


def claims_more() -> bytes:
    """A .npz whose one entry unpacks to a byte less than its list of entries says."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", as_npy(np.zeros((3900, 60, 67), np.float32)))
    more = bytearray(content.getvalue())
    size = more.rfind(b"PK\x01\x02") + 24
    more[size : size + 4] = (int.from_bytes(more[size : size + 4], "little") + 1).to_bytes(4, "little")
    return bytes(more)


def long_list() -> bytes:
    """A .zip whose list of entries seems to be all of it."""
    begin = b"PK\x03\x04" + bytes(60_000_000)
    return begin + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(begin), 0, 0)


def many_entries() -> bytes:
    """A .zip whose list of entries takes many times its own size."""
    entry = b"PK\x01\x02" + bytes(42)
    count = 400_000
    listed = entry * count
    end = b"PK\x05\x06" + bytes(4) + b"\xff\xff\xff\xff" + len(listed).to_bytes(4, "little") + bytes(6)
    return b"PK\x03\x04" + listed + end


def strips() -> bytes:
    """A small TIFF that takes very long: its strips share one stream of compressed bytes."""
    content = io.BytesIO()
    tifffile.imwrite(
        content, np.zeros((1000, 2000), np.float32), rowsperstrip=1, compression="zlib", photometric="minisblack"
    )
    whole = bytearray(content.getvalue())
    long = zlib.compress(bytes(30_000_000), 9)
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        page = file.pages[0]
        for tag, value in (("StripOffsets", len(whole)), ("StripByteCounts", len(long))):
            found = page.tags[tag]
            size = {3: 2, 4: 4}[found.dtype]
            for number in range(found.count):
                at = found.valueoffset + number * size
                whole[at : at + size] = value.to_bytes(4, "little")[:size]
    return bytes(whole) + long


def test_what_bodies_unpack_to_is_counted(target: Target) -> None:
    content = bomb()
    before = target.memory()
    with target.bounded():
        statuses = target.goes_on(*[lambda: target.post(content)] * 20)
    assert set(statuses) <= {200, 503}
    wait_for(lambda: target.memory() < 1.05 * before, 30)
    with target.bounded(60_000_000):
        assert target.post(many_entries()) == 400
    with target.bounded(100_000_000):
        assert target.post(long_list()) == 400
    with target.bounded():
        assert target.post(claims_more()) == 200


def test_what_is_announced_costs_nothing(target: Target) -> None:
    with ExitStack() as stack, target.bounded(20_000_000):
        connections = [stack.enter_context(target.connect()) for _ in range(12)]
        for connection in connections:
            connection.sendall(b"POST /reconstruct HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 60000000\r\n\r\n")
        target.works()
        for connection in connections:  # whoever sends nothing is let go
            assert connection.recv(1000).startswith(b"HTTP/1.1 408")


def test_who_sends_slowly_or_does_not_read_is_let_go(target: Target) -> None:
    body = as_npy(np.zeros((3500, 60, 67), np.float32))
    with target.bounded(), ExitStack() as stack:
        readers = [stack.enter_context(socket.socket()) for _ in range(2)]
        for reader in readers:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(target.address)
            reader.sendall(
                f"POST /reconstruct HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            )
            reader.sendall(body)
        sender = stack.enter_context(target.connect())
        sender.sendall(b"POST /reconstruct HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000000\r\n\r\n")

        def drip() -> bytes:
            sender.settimeout(0.1)
            while True:
                sender.sendall(b"x")
                try:
                    return sender.recv(1000)
                except TimeoutError:
                    pass

        assert target.goes_on(drip)[0].startswith(b"HTTP/1.1 408")  # type: ignore[attr-defined]


def test_files_that_take_long_hold_up_no_others(target: Target) -> None:
    content = strips()
    with target.bounded():
        statuses = target.goes_on(*[lambda: target.post(content)] * 12)
    assert set(statuses) <= {400, 503}
    assert 400 in statuses


@pytest.mark.parametrize("chunks", [(1, 8), (1, 1)])
def test_a_tiny_hdf5_leaves_the_readers_as_they_were(target: Target, chunks: tuple[int, int]) -> None:
    content = h5(shape=(1000, 8000), dtype="f4", chunks=chunks, compression="gzip")
    good = h5(data=sinograms(1)[0].numpy())
    with target.bounded():
        assert set(target.goes_on(*[lambda: target.post(content)] * 4)) <= {400, 503}
        assert target.post(good) == 200


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("a{b}.evil.example", ""),
        ("evil.example", ""),
        ("127.0.0.1.evil.example", ""),
        ("localhost@evil.example", ""),
        ("localhost\nHost: evil.example", ""),
        ("localhost", "http://["),
        ("localhost", "http://localhost\nOrigin: http://evil.example"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("path", ["/models", "/models/", "/health/live/"])
def test_a_malformed_host_is_no_host(target: Target, host: str, origin: str, path: str) -> None:
    head = f"GET {path} HTTP/1.1\n" + (f"Host: {host}\n" if host else "") + (f"Origin: {origin}\n" if origin else "")
    assert target.ask(head + "\n") == b"HTTP/1.1 403 Forbidden"


def test_heads_are_bounded(target: Target) -> None:
    start = "GET /models HTTP/1.1\nHost: localhost\n"
    with target.bounded(15_000_000):
        assert b" 431 " in target.ask(start + "a: b\n" * 1_000_000)
        assert b" 431 " in target.ask(start + "a: " + "b" * 7_000_000)
        assert b" 414 " in target.ask("GET /" + "b" * 39_000_000 + " HTTP/1.1\n\n")
        trailers = (
            "POST /models/best/activate HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked\n\n0\n"
            + "a: b\n" * 1_000_000
        )
        assert target.ask(trailers) in (b"", b"HTTP/1.1 431 Request Header Fields Too Large")
        target.works()


def test_what_is_sent_before_the_answer_is_bounded(target: Target) -> None:
    def sent(padding: int, count: int) -> list[bytes]:
        with target.connect() as connection:
            head = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * padding + b"\r\n\r\n"
            sending = threading.Thread(target=send_all, args=(connection, head * count))
            sending.start()
            answers = b""
            with suppress(ConnectionResetError):
                while answers.count(b"HTTP/1.1 ") < count and (part := connection.recv(1 << 20)):
                    answers += part
            sending.join()
            return re.findall(rb"HTTP/1\.1 (\d+)", answers)

    def send_all(connection: socket.socket, content: bytes) -> None:
        with suppress(OSError):
            connection.sendall(content)

    assert sent(10, 16) == [b"200"] * 16
    assert sent(10, 60) == [b"200"] * 16 + [b"429"]  # all of them in one piece
    with target.bounded(15_000_000):
        assert sent(17_000, 3) == [b"200"] * 3
        assert sent(17_000, 4000)[-1] in (b"200", b"429")  # it hangs up sooner or later
        target.works()


@pytest.mark.parametrize("path", ["/reconstruct", "/jobs", "/models/best/activate", "/nowhere"])
def test_no_body_is_read_before_the_token(tmp_path: Path, path: str) -> None:
    settings = settings_for(tmp_path, access={"operate": ["o" * 20], "reconstruct": ["r" * 20]})
    with (
        running(settings) as client,
        socket.create_connection((client.base_url.host, client.base_url.port or 0)) as wire,
    ):
        for token, status in (("x" * 20, b" 401 "), ("r" * 20, b" 403 ")):
            if path == "/reconstruct" and status == b" 403 ":
                continue
            head = f"POST {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\nContent-Length: 9\r\n\r\n"
            wire.settimeout(10)
            wire.sendall(head.encode())
            assert status in wire.recv(10_000)
            wire.sendall(b"[" * 9)


def test_a_token_is_one_client_however_it_is_written() -> None:
    settings = Settings(access=AccessConfig(operate=(SecretStr("o" * 20),)))
    for text in ("Bearer t", "bearer t", "BEARER   t "):
        assert token_of(Headers({"authorization": text}), settings) == "t"
    assert token_of(Headers({"authorization": "Bearer t"}), Settings()) == ""  # nobody looks at it
    assert token_of(Headers(raw=[(b"authorization", b"Bearer t"), (b"authorization", b"Bearer u")]), settings) == ""


def test_a_crowd_leaves_room_for_health(tmp_path: Path) -> None:
    with running(settings_for(tmp_path, limits={"connections": 2})) as client, ExitStack() as stack:
        address = client.base_url.host, client.base_url.port or 0
        for _ in range(2):
            busy = stack.enter_context(socket.create_connection(address))
            busy.sendall(b"POST /reconstruct HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
        wait_for(lambda: httpx.get(f"{client.base_url}/models").status_code == 503)
        refused = httpx.get(f"{client.base_url}/models")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert httpx.get(f"{client.base_url}/health/live").status_code == 200


def test_readers_know_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FBPRAY_ACCESS__OPERATE", "RAY_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "ANYTHING_ELSE"):
        monkeypatch.setenv(name, "the secret of the house")
    others = psutil.Process().children()
    pool = ReaderPool(1_000_000, processes=1)
    account = Bill(Memory(LimitsConfig(), Metrics()))
    assert pool.read("h5", h5(data=np.zeros(3, np.float32)), account).tolist() == [0, 0, 0]
    (reader,) = set(psutil.Process().children()).difference(others)
    assert "the secret of the house" not in reader.environ().values()
    pool.close()


def test_connections_are_bounded_and_those_that_ask_for_nothing_are_let_go(target: Target) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(target.connect()) for _ in range(100)]
        idle[-1].sendall(b"GET /models HTT")
        target.works()
        for connection in idle:
            connection.settimeout(20)
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""
    assert "connections are open, and at most 40 may be" in (target.folder / "log.txt").read_text()


def test_told_to_end_it_is_gone_in_time(target: Target) -> None:
    """The last test of this service: it ends it."""
    body = as_npy(np.zeros((3500, 60, 67), np.float32))
    with ExitStack() as stack:
        connections = [stack.enter_context(target.connect()) for _ in range(4)]
        head = f"POST /reconstruct HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        connections[0].sendall(head + body)
        connections[1].sendall(head + body[:1000])
        connections[2].sendall(head[:40])
        target.process.terminate()
        began = time.monotonic()
        target.process.wait(timeout=30)
    assert time.monotonic() - began < 4 + 1.5
    assert "Traceback" not in (target.folder / "log.txt").read_text()
