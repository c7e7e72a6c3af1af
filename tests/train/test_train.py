"""Training under Ray, on one local cluster for the whole session: two workers, gloo, the program's own path."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import ray
import torch

from fbp_ray.checkpoint import load_model, read_manifest
from fbp_ray.config import TrainConfig
from fbp_ray.data import LoDoPaB
from fbp_ray.errors import CheckpointError, ConfigError, DataError, RunError
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.run import RunFolder
from fbp_ray.runs import list_runs
from fbp_ray.storage import copy_folder, open_folder
from fbp_ray.sweep import LogRange, sweep
from fbp_ray.train import main, train
from fbp_ray.train.cluster import cpus_per_worker, keep_to_loopback, this_machine
from fbp_ray.train.program import check_values
from fbp_ray.train.room import wait_for_room
from tests.support.checkpoints import save_checkpoint, weights_of
from tests.support.layouts import write_layout
from tests.support.scans import COARSE, write_scan


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("scan") / "data", train=13, validation=5)


def options(scan: Path, storage: Path | str, name: str, **more: Any) -> list[str]:
    given = {
        "data.dir": scan,
        "run.storage": storage,
        "run.name": name,
        "loss.ms_ssim": 0,
        "window.kind": "frequency",
        "train.epochs": 2,
        "optim.lr": 0.05,
        **more,
    }
    return [text for key, value in given.items() for text in (f"--{key}", str(value))]


@pytest.fixture(scope="module")
def trained(cluster: None, scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("runs")
    main(options(scan, storage, "first"))
    return storage / "first"


def test_two_workers_leave_a_whole_run_folder(trained: Path) -> None:
    assert json.loads((trained / "status.json").read_text())["state"] == "completed"
    with (trained / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])
    manifest = read_manifest(trained)
    assert manifest.data["train_samples"] == 13
    assert load_model(trained)(torch.rand(1, 60, 67)).shape == (1, 47, 47)
    assert not list(trained.rglob("*.tmp"))


def test_one_seed_gives_one_result_with_two_workers_from_python_in_an_object_store(
    trained: Path, scan: Path, object_store: str, tmp_path: Path
) -> None:
    place = f"{object_store}/remote"
    run = train(
        data={"dir": str(scan)},
        train={"epochs": 2},
        optim={"lr": 0.05},
        loss={"ms_ssim": 0},
        window={"kind": "frequency"},
        run={"storage": object_store, "name": "remote"},
    )
    assert run == place
    for name in ("best", "last"):
        assert torch.equal(weights_of(f"{place}/{name}"), weights_of(trained / name))
    remote, local, sinogram = load_model(place), load_model(trained), torch.rand(2, 60, 67)
    assert torch.equal(remote(sinogram), local(sinogram))
    assert remote(sinogram).std() > 0
    assert [run.state for run in list_runs(object_store) if run.path == place] == ["completed"]
    with pytest.raises(RunError, match="is complete"):
        main(options(scan, object_store, "remote"))
    copy_folder(open_folder(place) / "tensorboard", open_folder(tmp_path))
    events = [file.name for file in tmp_path.iterdir() if file.name.startswith("events.")]
    assert len(events) == 1


def test_the_validation_figures_are_those_of_all_samples(trained: Path, scan: Path) -> None:
    from fbp_ray.data import LoDoPaB
    from fbp_ray.metrics import psnr, ssim

    model = load_model(trained / "last")
    samples = list(LoDoPaB(scan, "validation", model.geometry))
    with torch.no_grad():
        pairs = [(model(sample.observation), sample.ground_truth) for sample in samples]
    metrics = read_manifest(trained / "last").metrics
    assert metrics["psnr"] == pytest.approx(np.mean([psnr(*pair).item() for pair in pairs]), abs=1e-4)
    assert metrics["ssim"] == pytest.approx(np.mean([ssim(*pair).item() for pair in pairs]), abs=1e-5)


def test_a_complete_run_is_refused_before_anything_starts(trained: Path, scan: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in trained.rglob("*")}
    with pytest.raises(RunError, match="is complete"):
        main(options(scan, trained.parent, "first"))
    assert before == {file: file.stat().st_mtime_ns for file in trained.rglob("*")}


def test_the_error_of_a_worker_comes_out_as_it_is(cluster: None, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "data")
    with h5py.File(scan / "ground_truth_validation_000.hdf5", "r+") as file:
        file["data"][4, 5, 5] = np.inf
    with pytest.raises(DataError, match=r"validation.*ground_truth_validation_000.hdf5.*infinite"):
        main(options(scan, tmp_path, "run", **{"scaling.num_workers": 1}))
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed"
    assert "ground_truth_validation_000.hdf5" in status["reason"]


def test_more_workers_than_there_are_processors_are_refused(cluster: None, scan: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"4 workers.*--scaling.num_workers.*with 2 processors.*Ask for fewer"):
        main(options(scan, tmp_path, "run", **{"scaling.num_workers": 4}))


@pytest.mark.parametrize(
    ("file", "rows", "value", "message"),
    [
        ("ground_truth_validation", slice(1), 0.25, None),  # one that shows something is enough
        ("ground_truth_validation", slice(2), 0.25, "each of the 2 validation images .* has one value throughout"),
        ("ground_truth_train", slice(1), -2000, "ground truth .* up to 2000; expected .* 0 to 1 "),
        ("observation_train", slice(1), 2000, "observation .* up to 2000; expected .* about 0 to 0.13 "),
    ],
)
def test_values_that_cannot_be_trained_on_are_found(
    tmp_path: Path, file: str, rows: slice, value: float, message: str | None
) -> None:
    write_layout(tmp_path, COARSE, "rows", (2,))
    for kind in ("observation", "ground_truth"):
        shutil.copy(tmp_path / f"{kind}_train_000.hdf5", tmp_path / f"{kind}_validation_000.hdf5")
    with h5py.File(tmp_path / f"{file}_000.hdf5", "r+") as opened:
        opened["data"][rows] = value
    with pytest.raises(DataError, match=message) if message else nullcontext():
        check_values(LoDoPaB(tmp_path, "train", COARSE), LoDoPaB(tmp_path, "validation", COARSE))


def test_a_missing_data_folder_is_found_before_ray_starts(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    with pytest.raises(DataError, match="nowhere"):
        main(options(tmp_path / "nowhere", tmp_path, "run"))
    with pytest.raises(ConfigError, match=r"--data\.every 7000 is more than the 60 angles"):
        main(options(scan, tmp_path, "run", **{"data.every": 7000}))
    assert not (tmp_path / "run").exists()


def test_images_too_small_for_the_loss_are_found_before_ray_starts(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    with pytest.raises(ConfigError, match="161"):
        main(options(scan, tmp_path, "run", **{"loss.ms_ssim": 1}))


def test_a_checkpoint_of_another_geometry_is_refused_before_ray_starts(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LearnableFBP(ModelConfig(geometry=COARSE.every(2)))
    save_checkpoint(tmp_path / "sparse", model)
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    with pytest.raises(CheckpointError, match="another geometry"):
        main(options(scan, tmp_path, "run", **{"init.checkpoint": tmp_path / "sparse"}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("processors", "workers", "each"),
    [([2], 2, 1), ([2], 1, 2), ([16], 3, 5), ([6, 2], 2, 3), ([4, 4], 3, 2), ([2], 3, 0), ([], 1, 0)],
)
def test_processors_are_shared_out_so_that_every_worker_fits(processors: list[int], workers: int, each: int) -> None:
    assert cpus_per_worker(processors, workers) == each


def test_a_cluster_of_another_version_is_refused(cluster: None) -> None:
    address = ray.get_runtime_context().gcs_address
    code = f"""
import ray
ray.__version__ = "2.1.0"
from fbp_ray.errors import RunError
from fbp_ray.train.cluster import cluster
try:
    with cluster("{address}"):
        pass
except RunError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"the cluster at {address} runs other versions than this process" in done.stdout
    assert "2.1.0" in done.stdout
    assert ray.__version__ in done.stdout


def test_an_interface_that_is_not_there_ends_the_run_at_its_start(cluster: None, scan: Path, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(RunError, match=r"no network interface 'nope7'") as kept:
        main(options(scan, tmp_path, "run", **{"scaling.interface": "nope7"}))
    wait_for_room({"CPU": 2}, pytest.fail)  # its workers are gone, though the error is kept as a notebook keeps it
    assert kept.value is not None
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    monkeypatch.setattr("fbp_ray.simulate.sample_data", lambda: pytest.fail("the sample was made"))


@pytest.mark.usefixtures("without_ray")
def test_a_folder_too_long_for_rays_sockets_is_refused_before_anything_is_made(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp/" + 35 * "x")
    with pytest.raises(ConfigError, match=r"40 characters.*leave 39.*export RAY_TMPDIR=/tmp"):
        main(options(scan, tmp_path, "run"))
    with pytest.raises(ConfigError, match="RAY_TMPDIR"):
        sweep({"optim.lr": LogRange(0.01, 0.1)}, ["--data.dir", str(scan), "--sweep.storage", str(tmp_path)], "x.py")
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert len(this_machine(None)) == 1
    assert this_machine("10.0.0.1:6379") == []


def test_a_programs_own_cluster_keeps_to_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    monkeypatch.setenv(name, "")
    monkeypatch.delenv(name)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    keep_to_loopback(None)
    assert name not in os.environ  # Ray is here already, and others may join it
    monkeypatch.delitem(sys.modules, "ray")
    keep_to_loopback("10.0.0.1:6379")
    assert name not in os.environ
    keep_to_loopback(None)
    assert os.environ[name] == "0"


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"init.optimizer": True}, ConfigError, "optimizer needs the checkpoint"),
        ({"init.checkpoint": "BEST", "init.optimizer": True}, CheckpointError, "weights only, no optimiser state"),
        ({"init.checkpoint": "BEST", "window.kind": "angle_frequency"}, CheckpointError, "do not fit the model"),
        ({"init.checkpoint": "nowhere"}, CheckpointError, "is no checkpoint"),
        ({"scaling.num_workers": 999}, RunError, "999 workers were asked for"),
        ({"scaling.interface": "nope7"}, RunError, "no network interface 'nope7'"),
        ({"run.extend": 3}, RunError, "there is no run .* to extend"),
        ({"track.to": "elsewhere"}, ConfigError, "track.to"),
    ],
)
def test_what_can_be_known_is_refused_before_anything_is_made(
    scan: Path, tmp_path: Path, more: dict[str, Any], error: type[Exception], message: str
) -> None:
    save_checkpoint(tmp_path / "best", LearnableFBP(ModelConfig(geometry=COARSE)))
    given = {key: tmp_path / "best" if value == "BEST" else value for key, value in more.items()}
    data = [] if "init" in next(iter(more)) else ["--data.dir", str(scan)]  # a checkpoint needs no data to be refused
    words = [text for key, value in given.items() for text in (f"--{key}", str(value)) if text != "True"]
    kind = [] if "window.kind" in given else ["--window.kind", "frequency"]
    with pytest.raises(error, match=message):
        main([*data, "--run.storage", str(tmp_path), "--run.name", "run", "--loss.ms_ssim", "0", *kind, *words])
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


@pytest.mark.usefixtures("without_ray")
def test_a_run_to_extend_has_to_be_named() -> None:
    with pytest.raises(ConfigError, match=r"--run.extend needs .* --run.name"):
        main(["--run.extend", "3"])


def test_a_run_is_extended_by_its_name_alone_and_ends_with_a_verdict(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fbp_ray.train import launch, loop
    from fbp_ray.train.events import Event
    from fbp_ray.train.process import Process

    def in_this_process(config: TrainConfig, run: RunFolder, show: Callable[[Event], None]) -> None:
        loop.train(config, run, Process(0, 1, torch.device("cpu")), show)

    monkeypatch.setattr(launch, "launch", in_this_process)  # what Ray starts is seen elsewhere
    monkeypatch.setattr("fbp_ray.simulate.sample_data", lambda: pytest.fail("the sample was made"))
    done = read_manifest(trained / "last").epoch
    place = ["--run.storage", str(trained.parent), "--run.name", trained.name, "--run.extend", "1"]
    with pytest.raises(RunError, match=r"optim.lr was 0.05, is now 0.5"):
        main([*place, "--optim.lr", "0.5"])
    capsys.readouterr()
    main(place)
    assert read_manifest(trained / "last").epoch == done + 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "starting Ray on this machine"
    assert "than the best Hann on the validation part" in lines[-1]


def test_ctrl_c_says_how_the_run_goes_on(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fbp_ray.train import launch

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "launch", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"the same command, with --run.name run, goes on"):
        main(options(scan, tmp_path, "run"))
    assert list_runs(tmp_path)[0].state == "stopped"
