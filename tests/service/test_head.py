"""Jobs on a real Ray head of this machine, which the service starts, finds again, loses and stops."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.jobs.cluster import RayJobs, Unreachable
from service.jobs.head import LocalHead, processes_of
from tests.support.job_service import JobService
from tests.support.scans import write_scan

SOON = 120.0  # the machine may be busy


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("scan") / "data", train=13, validation=5)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a service has its state; no head is left of it."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    LocalHead(tmp_path / "state").abandon()


def settings(scan: Path, name: str, epochs: int) -> dict[str, Any]:
    return {
        "data": {"dir": str(scan)},
        "loss": {"ms_ssim": 0},
        "window": {"kind": "frequency"},
        "train": {"epochs": epochs},
        "scaling": {"num_workers": 1},
        "run": {"name": name},
        "track": {"to": []},
    }


def wait_for_epochs(service: JobService, id: str, epochs: int) -> None:
    until = time.monotonic() + SOON
    while (job := service.get(id))["progress"]["done"] < epochs:
        assert job["status"] in ("pending", "running"), job
        assert time.monotonic() < until, (job, service.http.get(f"/jobs/{id}/logs").text)
        time.sleep(0.1)


def runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.chaos
def test_a_head_outlives_the_service_and_is_lost_when_it_is_killed(folder: Path, scan: Path) -> None:
    first = JobService(folder, interval=0.3)
    config = settings(scan, "run", 400)
    job = first.post(config)
    assert "being started" in job["reason"]
    first.until(job["id"], "running", seconds=SOON)
    wait_for_epochs(first, job["id"], 1)
    head = LocalHead(folder / "state")
    known = head.read()
    assert known is not None
    mine = {process.pid: process.name() for process in processes_of(known.folder)}
    listening = {
        (mine[found.pid], found.laddr.ip.removeprefix("::ffff:"))
        for found in psutil.net_connections("tcp")
        if found.status == psutil.CONN_LISTEN and found.pid in mine
    }
    # Torch's store of a training listens everywhere, as always; the head itself does not.
    assert {place for place in listening if place[1] != "127.0.0.1" and "Train" not in place[0]} == set()
    assert len(listening) > 3
    assert stat.S_IMODE((folder / "state" / "ray-token").stat().st_mode) == 0o600
    with pytest.raises(Unreachable, match="token"):
        RayJobs(known.dashboard).submit("x", "true", {})
    with pytest.raises(Unreachable, match="token"):
        RayJobs(known.dashboard, "0" * 64).look("x")

    first.close()
    second = JobService(folder, interval=0.3)
    assert second.get(job["id"])["status"] == "running"
    os.kill(known.pid, signal.SIGKILL)
    lost = second.until(job["id"], "lost", seconds=SOON)
    assert "is gone" in lost["reason"]
    assert "go on from epoch" in lost["reason"]
    assert processes_of(known.folder) == []
    assert not Path(known.folder).exists()
    assert "run " in second.http.get(f"/jobs/{job['id']}/logs").text

    done = second.get(job["id"])["progress"]["done"]
    again = second.http.post("/jobs", json=lost["request"])
    assert again.status_code == 201, again.text
    wait_for_epochs(second, again.json()["id"], done + 1)
    rows = second.get(again.json()["id"])["progress"]["rows"]
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    assert second.http.post(f"/jobs/{again.json()['id']}/stop").status_code == 202
    second.until(again.json()["id"], "stopped", seconds=SOON)
    known = head.read()
    assert known is not None
    dashboard = [child for process in processes_of(known.folder) for child in process.children(recursive=True)]
    assert dashboard
    second.close()
    assert processes_of(known.folder) == []
    assert not any(runs(child) for child in dashboard)
    assert not (folder / "state" / "head.json").exists()


@pytest.mark.chaos
def test_a_training_and_a_sweep_come_to_their_ends(folder: Path, scan: Path) -> None:
    service = JobService(folder, interval=0.3, at_once=1)
    trained = service.post(settings(scan, "short", 2))
    config = settings(scan, "x", 1) | {"sweep": {"name": "rates", "trials": 2}}
    del config["run"]
    sweep = service.post(config, kind="sweep", space="learning_rate")
    assert trained["id"] in sweep["reason"] or "started" in sweep["reason"]
    done = service.until(trained["id"], "succeeded", seconds=SOON)
    assert done["progress"]["done"] == 2
    assert done["progress"]["best"]["psnr"]["over_fbp"] is not None
    events = service.http.get(f"/jobs/{trained['id']}/events").text
    assert [line for line in events.splitlines() if line.startswith("event")] == [
        f"event: {name}" for name in ("status", "epoch", "epoch", "end")
    ]
    swept = service.until(sweep["id"], "succeeded", seconds=2 * SOON)
    assert swept["progress"]["done"] == 2
    assert swept["progress"]["best"]["parameters"]
    evaluation = service.post(kind="evaluate", config={"checkpoint": trained["place"], "panels": 0})
    scored = service.until(evaluation["id"], "succeeded", seconds=SOON)
    assert scored["progress"]["best"]["psnr"]["value"] > 0
    for job in (trained, sweep):
        assert service.http.post(f"/jobs/{job['id']}/activate").json()["source"] == job["place"]
    service.close()


def test_a_head_of_an_older_service_is_read_and_known_to_be_gone(tmp_path: Path) -> None:
    known = {
        "head": "local:1:0123abcd",
        "pid": 2**22 + 1,  # beyond the pids that a system gives
        "started": 1.5,
        "dashboard": "http://127.0.0.1:1",
        "address": "127.0.0.1:2",
        "folder": str(tmp_path / "ray"),
    }
    (tmp_path / "head.json").write_text(json.dumps(known, indent=2))
    local = LocalHead(tmp_path)
    head = local.read()
    assert head is not None
    assert head.model_dump_json(indent=2) == json.dumps(known, indent=2)
    assert not head.is_alive
    assert local.client(head.head) is None
    local.abandon()
    assert not (tmp_path / "head.json").exists()
