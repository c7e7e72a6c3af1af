"""What is written behind the training loop: in order, to the end, and nothing is lost where the disk is full."""

from __future__ import annotations

import contextlib
import csv
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
import torch

from fbp_ray.checkpoint import Checkpoint, load_model, pack, read_last, read_manifest
from fbp_ray.config import TrainConfig
from fbp_ray.errors import RunError
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.run import RunFolder
from fbp_ray.storage import open_folder
from fbp_ray.train.events import Step
from fbp_ray.train.loop import train
from fbp_ray.train.process import Process
from fbp_ray.train.record import CheckpointWriter
from tests.support.scans import COARSE, write_scan

CONFIG = TrainConfig()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    made.begin(CONFIG)
    return made


def checkpoint(epoch: int) -> Checkpoint:
    model = LearnableFBP(ModelConfig(geometry=COARSE))
    with torch.no_grad():
        next(model.parameters()).fill_(epoch)
    return pack(model, epoch=epoch, metrics={}, data={}, training={"epoch": epoch})


def history(epochs: int) -> list[dict[str, float]]:
    return [{"epoch": epoch} for epoch in range(1, epochs + 1)]


def test_leaving_waits_until_all_is_written(run: RunFolder) -> None:
    order: list[int] = []
    with CheckpointWriter(run) as writer:
        for epoch in (1, 2, 3):
            writer.write(checkpoint(epoch), epoch != 3, history(epoch), lambda epoch=epoch: order.append(epoch))
    assert order == [1, 2, 3]
    assert read_manifest(run.last).epoch == 3
    assert read_manifest(run.best).epoch == 2
    assert set(read_manifest(run.best).files) == {"weights"}
    assert next(load_model(run.best).parameters()).detach().flatten()[0] == 2


def test_the_loop_does_not_wait_for_the_writing(run: RunFolder) -> None:
    written = Event()
    with CheckpointWriter(run) as writer:
        writer.write(checkpoint(1), True, history(1), lambda: written.wait(30) and None)
        assert not written.is_set()  # write has returned, and what it started has not ended
        written.set()


def test_an_epoch_is_kept_though_the_next_one_fails(run: RunFolder) -> None:
    def two_epochs() -> None:
        with CheckpointWriter(run) as writer:
            writer.write(checkpoint(1), True, history(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        two_epochs()
    assert read_manifest(run.last).epoch == 1


def test_a_process_that_lost_the_run_writes_nothing_more(run: RunFolder) -> None:
    def two_epochs() -> None:
        with CheckpointWriter(run) as writer:
            written = Event()
            writer.write(checkpoint(1), True, history(1), written.set)
            assert written.wait(30)
            RunFolder(run.folder).begin(CONFIG)
            writer.write(checkpoint(2), True, history(2))

    with pytest.raises(RunError, match="taken up by another process"):
        two_epochs()
    assert read_manifest(run.last).epoch == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted here, which needs root: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_loses_nothing_and_the_run_goes_on_once_there_is_room(small_disk: Path, tmp_path: Path) -> None:
    tree = {
        "data": {"dir": write_scan(tmp_path / "data")},
        "window": {"kind": "frequency"},
        "loss": {"l1": 0, "ms_ssim": 0, "edge": 0, "mse": 1},
        "train": {"epochs": 4, "batch_size": 4},
        "track": {"to": "none"},
    }
    config = TrainConfig.model_validate(tree)
    alone = Process(rank=0, world_size=1, device=torch.device("cpu"))
    filler = small_disk / "filler"

    def fill_after_two_epochs(event: object) -> None:
        if isinstance(event, Step) and event.epoch == 3 and not filler.exists():
            while read_manifest(run.last).epoch < 2 or "\n2," not in run.folder.read("history.csv").decode():
                pass
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"0" * 64)

    run = RunFolder(small_disk / "run")
    run.begin(config)
    with pytest.raises(RunError, match=r"checkpoint of epoch 3 .*No space left.*epoch before is whole"):
        train(config, run, alone, fill_after_two_epochs)
    found = read_last(open_folder(run.last), pytest.fail)
    assert found is not None
    assert found.manifest.epoch == 2
    assert torch.isfinite(next(load_model(run.best).parameters())).all()
    assert not list(small_disk.rglob("*.tmp"))

    filler.unlink()
    run.begin(config)
    train(config, run, alone, lambda event: None)
    whole = RunFolder(tmp_path / "whole")
    whole.begin(config)
    train(config, whole, alone, lambda event: None)
    for part in ("best", "last"):
        mine, theirs = (next(load_model(where.folder / part).parameters()) for where in (run, whole))
        assert torch.equal(mine, theirs)
    with (small_disk / "run" / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]
