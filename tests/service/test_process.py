"""The service as a person starts it: told to end, killed, started wrongly."""

from __future__ import annotations

import ctypes
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.jobs.head import LocalHead
from tests.support.scans import write_scan
from tests.support.serving import as_npy, save_model, sinograms

ROOT = Path(__file__).parents[2]


@contextmanager
def service(folder: Path, *argv: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """`python -m service` on a free port; killed in the end, if it has not ended."""
    log = folder / "log.txt"
    command = [sys.executable, "-m", "service", "--port", "0", "--state", str(folder / "state")]
    command += ["--models.storage", str(folder / "runs"), "--places", str(folder), *argv]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=file, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
    try:
        until, found, ready = time.monotonic() + 90, None, False
        while not ready:
            assert time.monotonic() < until, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
            found = found or re.search(r"running on (http://127.0.0.1:\d+)", log.read_text())
            ready = found is not None and httpx.get(f"{found[1]}/health/ready").status_code == 200
        assert found is not None
        with httpx.Client(base_url=found[1], timeout=60) as client:
            yield process, client
    finally:
        process.kill()
        process.wait()


def test_killed_and_started_again_it_serves_as_before_and_told_to_end_it_finishes_what_it_took(tmp_path: Path) -> None:
    save_model(tmp_path / "model")
    body = as_npy(sinograms(1)[0])
    with service(tmp_path) as (_, client):
        activated = client.post("/models/best/activate", json={"source": str(tmp_path / "model")})
        assert activated.status_code == 200, activated.text
        before = client.post("/reconstruct", content=body)
    with service(tmp_path) as (process, client):
        after = client.post("/reconstruct", content=body)
        assert after.content == before.content
        assert after.headers["x-model-version"] == activated.json()["version"]
        assert [path.name for path in (tmp_path / "state").rglob(".*.tmp")] == []
        head = f"POST /reconstruct HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=30) as connection:
            connection.sendall(head + body[:1000])
            wait_for(lambda: "fbp_body_bytes 0.0" not in client.get("/metrics").text)
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: refuses(client.base_url))
            connection.sendall(body[1000:])
            answer = b""
            while part := connection.recv(1 << 16):
                answer += part
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)
    top, _, content = answer.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 200"), top
    assert np.load(io.BytesIO(content)).shape == (47, 47)


def refuses(url: httpx.URL) -> bool:
    try:
        socket.create_connection((url.host, url.port or 0), timeout=30).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--host", "0.0.0.0"], "set FBPRAY_ACCESS__OPERATE_FILE"),
        (["--port", "high"], "--port"),
        (["--config", "nowhere.yaml"], "nowhere.yaml cannot be read"),
    ],
)
def test_a_wrong_start_says_how_to_put_it_right(tmp_path: Path, argv: list[str], words: str) -> None:
    command = [sys.executable, "-m", "service", *argv]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_the_service_needs_ray_only_for_jobs() -> None:
    code = "import sys, service.app; loaded = {'ray', 'matplotlib'} & set(sys.modules); assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.chaos
def test_killed_in_the_middle_of_a_job_it_finds_the_job_and_serves_its_result(tmp_path: Path) -> None:
    save_model(tmp_path / "model")
    body = as_npy(sinograms(1)[0])
    config = {
        "data": {"dir": str(write_scan(tmp_path / "data", train=13, validation=5))},
        "loss": {"ms_ssim": 0},
        "window": {"kind": "frequency"},
        "train": {"epochs": 150, "patience": 0},
        "scaling": {"num_workers": 1},
        "run": {"name": "served", "storage": str(tmp_path / "runs")},
        "track": {"to": []},
    }
    try:
        with service(tmp_path) as (_, client):
            client.post("/models/best/activate", json={"source": str(tmp_path / "model")}).raise_for_status()
            before = client.post("/reconstruct", content=body)
            job = client.post("/jobs", json={"kind": "train", "config": config}).json()["id"]
            wait_for(lambda: client.get(f"/jobs/{job}").json()["progress"]["done"] > 0)
        with service(tmp_path) as (process, client):
            found = client.get(f"/jobs/{job}").json()
            assert found["status"] in ("running", "succeeded"), found  # a busy machine takes long to start a service
            assert client.post("/reconstruct", content=body).content == before.content
            wait_for(lambda: client.get(f"/jobs/{job}").json()["ended"] is not None)
            ended = client.get(f"/jobs/{job}").json()
            assert (ended["status"], ended["progress"]["done"]) == ("succeeded", 150), ended
            version = client.post(f"/jobs/{job}/activate").json()["version"]
            after = client.post("/reconstruct", content=body)
            assert after.headers["x-model-version"] == version != before.headers["x-model-version"]
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
        assert not (tmp_path / "state" / "head.json").exists()
    finally:
        LocalHead(tmp_path / "state").abandon()


def wait_for(holds: Callable[[], bool], seconds: float = 180.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.2)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="the C library is not glibc")
def test_threads_share_two_pools_of_memory() -> None:
    code = (
        "import ctypes, threading\n"
        "from service.app import limit_malloc_pools\n"
        "limit_malloc_pools()\n"
        "together = threading.Barrier(8)\n"
        "def hold():\n"
        "    kept = [bytearray(50_000) for _ in range(20)]\n"
        "    together.wait()\n"
        "threads = [threading.Thread(target=hold) for _ in range(8)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.fdopen.restype = ctypes.c_void_p\n"
        "out = ctypes.c_void_p(libc.fdopen(1, b'w'))\n"
        "libc.malloc_info(0, out)\n"
        "libc.fflush(out)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told.count("<heap nr") == 2
