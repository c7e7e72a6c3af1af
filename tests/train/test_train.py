"""Training under Ray, on one local cluster for the whole session: two workers, gloo, the program's own path."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import ray
import torch

from fbp_ray.checkpoint import load_model, read_manifest
from fbp_ray.errors import CheckpointError, ConfigError, DataError, RunError
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.runs import list_runs
from fbp_ray.storage import copy_folder, open_folder
from fbp_ray.train import main, train
from fbp_ray.train.cluster import cpus_per_worker
from fbp_ray.train.room import wait_for_room
from tests.support.checkpoints import save_checkpoint
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


def test_one_seed_gives_one_result_with_two_workers_and_from_python(trained: Path, scan: Path) -> None:
    run = train(
        data={"dir": str(scan)},
        train={"epochs": 2},
        optim={"lr": 0.05},
        loss={"ms_ssim": 0},
        run={"storage": str(trained.parent), "name": "second"},
    )
    assert run == str(trained.parent / "second")
    first, second = (load_model(trained.parent / name / "last").filter.weight for name in ("first", "second"))
    assert torch.equal(first, second)


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
        main(options(scan, tmp_path, "run"))
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed"
    assert "ground_truth_validation_000.hdf5" in status["reason"]


def test_more_workers_than_there_are_processors_are_refused(cluster: None, scan: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"4 workers.*--scaling.num_workers.*with 2 processors.*Ask for fewer"):
        main(options(scan, tmp_path, "run", **{"scaling.num_workers": 4}))


def test_a_missing_data_folder_is_found_before_ray_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
    with pytest.raises(DataError, match="nowhere"):
        main(options(tmp_path / "nowhere", tmp_path, "run"))
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


def test_a_run_in_an_object_store_gives_the_same_model(
    trained: Path, scan: Path, object_store: str, tmp_path: Path
) -> None:
    main(options(scan, object_store, "remote"))
    place = f"{object_store}/remote"
    remote, local = load_model(place), load_model(trained)
    sinogram = torch.rand(2, 60, 67)
    assert torch.equal(remote(sinogram), local(sinogram))
    assert remote(sinogram).std() > 0
    assert [run.state for run in list_runs(object_store) if run.path == place] == ["completed"]
    with pytest.raises(RunError, match="is complete"):
        main(options(scan, object_store, "remote"))
    main(options(scan, object_store, "remote", **{"run.extend": 1}))
    main(options(scan, trained.parent, "first", **{"run.extend": 1}))
    assert torch.equal(load_model(f"{place}/last")(sinogram), load_model(trained / "last")(sinogram))
    copy_folder(open_folder(place) / "tensorboard", open_folder(tmp_path))
    events = [file.name for file in tmp_path.iterdir() if file.name.startswith("events.")]
    assert len(events) == 2


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
