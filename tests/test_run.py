"""A run folder: who may write to it, when it goes on, and what is in the way."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from fbp_ray.config import TrainConfig
from fbp_ray.errors import RunError
from fbp_ray.run import RunFolder


def settings(**parts: dict[str, Any]) -> TrainConfig:
    return TrainConfig.model_validate({"data": {"dir": "/data"}, "train": {"epochs": 3}, **parts})


def complete(place: Path, config: TrainConfig) -> None:
    run = RunFolder(place)
    run.begin(config)
    run.set_status("completed")


def epochs_kept(place: Path) -> int:
    return int(yaml.safe_load((place / "config.yaml").read_text())["train"]["epochs"])


def test_a_complete_run_is_refused_unless_it_is_extended(tmp_path: Path) -> None:
    complete(tmp_path / "run", settings())
    with pytest.raises(RunError, match=r"is complete.*--run\.extend N"):
        RunFolder(tmp_path / "run").begin(settings())
    config = RunFolder(tmp_path / "run").begin(settings(run={"extend": 4}))
    assert config.train.epochs == 7
    assert epochs_kept(tmp_path / "run") == 7


def test_when_a_run_was_complete_stays_known_while_it_is_extended_and_after(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.begin(settings())
    assert run.status()["completed"] is None
    before = time.time()
    run.set_status("completed")
    completed = run.status()["completed"]
    assert before <= completed <= time.time()
    run.begin(settings(run={"extend": 4}))
    assert (run.status()["state"], run.status()["completed"]) == ("running", completed)
    run.set_status("failed", "no power")
    assert (run.status()["state"], run.status()["completed"]) == ("failed", completed)
    run.begin(settings(run={"extend": 4}))
    run.set_status("completed")
    assert run.status()["completed"] > completed


def test_an_interrupted_extension_goes_on_to_the_same_number_of_epochs(tmp_path: Path) -> None:
    complete(tmp_path / "run", settings())
    for _ in range(3):
        assert RunFolder(tmp_path / "run").begin(settings(run={"extend": 4})).train.epochs == 7
    with pytest.raises(RunError, match=r"epochs was 7, is now 3.*it is being extended: --run.extend 4"):
        RunFolder(tmp_path / "run").begin(settings())


def test_a_complete_extension_can_be_extended_again(tmp_path: Path) -> None:
    complete(tmp_path / "run", settings())
    complete(tmp_path / "run", settings(run={"extend": 4}))
    assert RunFolder(tmp_path / "run").begin(settings(run={"extend": 4})).train.epochs == 11


def test_only_a_complete_run_is_extended(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run"):
        RunFolder(tmp_path / "run").begin(settings(run={"extend": 2}))
    RunFolder(tmp_path / "run").begin(settings())
    with pytest.raises(RunError, match=r"is not complete.*without --run\.extend 2"):
        RunFolder(tmp_path / "run").begin(settings(run={"extend": 2}))


def test_where_and_how_wide_a_run_goes_on_may_change(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").begin(settings())
    other: dict[str, Any] = {
        "scaling": {"num_workers": 8, "min_workers": 2},
        "ray": {"address": "auto"},
        "track": {"to": "none"},
        "data": {"dir": "/data", "cache": "memory"},
    }
    RunFolder(tmp_path / "run").begin(settings(**other))
    with pytest.raises(RunError, match=r"data\.cache was False, is now True"):
        RunFolder(tmp_path / "run").begin(settings(data={"dir": "/data", "cache": "half"}))


@pytest.fixture
def somebody() -> Iterator[psutil.Process]:
    """Another process that lives."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield psutil.Process(process.pid)
    process.communicate(b"\n")


def owned_by(place: Path, process: psutil.Process, **more: Any) -> None:
    owner = {"host": socket.gethostname(), "pid": process.pid, "started": process.create_time()}
    RunFolder(place).write_json("status.json", {"state": "running", **owner, **more})


def test_a_run_that_another_process_trains_is_left_to_it(tmp_path: Path, somebody: psutil.Process) -> None:
    RunFolder(tmp_path / "run").begin(settings())
    owned_by(tmp_path / "run", somebody)
    with pytest.raises(RunError, match=rf"the process {somebody.pid} on this machine is training"):
        RunFolder(tmp_path / "run").begin(settings())


@pytest.mark.parametrize("change", [{"started": 1.0}, {"host": "elsewhere"}, {"state": "failed"}])
def test_a_run_whose_process_is_gone_is_taken_up(
    tmp_path: Path, somebody: psutil.Process, change: dict[str, Any]
) -> None:
    RunFolder(tmp_path / "run").begin(settings())
    owned_by(tmp_path / "run", somebody, **change)
    RunFolder(tmp_path / "run").begin(settings())
    assert RunFolder(tmp_path / "run").status()["pid"] == os.getpid()


def test_who_lost_the_run_notices(tmp_path: Path) -> None:
    first = RunFolder(tmp_path / "run")
    first.begin(settings())
    first.check_owner()
    second = RunFolder(tmp_path / "run")
    second.begin(settings())
    second.check_owner()
    with pytest.raises(RunError, match="was taken up by another process"):
        first.check_owner()
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(RunError, match=r"status.json is gone, or the whole run with it"):
        second.check_owner()


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").begin(settings())
    half = [tmp_path / "run" / ".config.yaml.0.tmp", tmp_path / "run" / "last" / ".manifest.json.1.tmp"]
    for file in half:
        file.parent.mkdir(exist_ok=True)
        file.write_text("{")
    RunFolder(tmp_path / "run").begin(settings())
    assert not any(file.exists() for file in half)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").begin(settings())
    (tmp_path / "run" / "status.json").write_text('{"state": ')
    with pytest.raises(RunError, match=r"status\.json is damaged"):
        RunFolder(tmp_path / "run").begin(settings())
    (tmp_path / "run" / "config.yaml").write_text("colour: blue")
    with pytest.raises(RunError, match=r"config\.yaml is not of this version.*choose another --run\.name"):
        RunFolder(tmp_path / "run").begin(settings())


def test_a_storage_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/run cannot be written.*--run\.storage"):
        RunFolder(tmp_path / "file" / "run").begin(settings())


def test_a_run_in_an_object_store_is_like_any_other(object_store: str) -> None:
    place = f"{object_store}/runs/one"
    RunFolder(place).begin(settings())
    first = RunFolder(place)
    first.begin(settings())
    first.set_status("completed")
    assert json.loads(first.folder.read("status.json"))["state"] == "completed"
    with pytest.raises(RunError, match=f"the run {place} is complete"):
        RunFolder(place).begin(settings())
