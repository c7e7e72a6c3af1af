"""The training loop in one process, without Ray."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fbp_ray.baseline import Baseline
from fbp_ray.checkpoint import load_model, read_manifest
from fbp_ray.config import LoopConfig, TrainConfig
from fbp_ray.errors import CheckpointError, ConfigError, DataError, RunError
from fbp_ray.filters import WindowConfig, build_filter
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.run import RunFolder
from fbp_ray.storage import Place
from fbp_ray.train import loop, parts
from fbp_ray.train.events import EpochEnd, Event, Step, Warned
from fbp_ray.train.loop import train
from fbp_ray.train.process import Process
from fbp_ray.train.program import beside_hann, ended_early
from tests.support.checkpoints import save_checkpoint
from tests.support.scans import COARSE, write_scan

ALONE = Process(rank=0, world_size=1, device=torch.device("cpu"))


@pytest.fixture(autouse=True)
def every_step_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "STEP_SECONDS", 0.0)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("scan") / "data")


def settings(scan: Path, **parts: dict[str, Any]) -> TrainConfig:
    tree: dict[str, Any] = {
        "data": {"dir": scan},
        "window": {"kind": "frequency"},
        "loss": {"l1": 0, "ms_ssim": 0, "edge": 0, "mse": 1},
        "optim": {"lr": 0.1},
        "train": {"epochs": 3, "batch_size": 4},
    }
    for name, part in parts.items():
        tree[name] = {**tree.get(name, {}), **part}
    return TrainConfig.model_validate(tree)


def run(folder: Path, config: TrainConfig, report: Any = None) -> RunFolder:
    made = RunFolder(folder)
    config = made.begin(config)
    train(config, made, ALONE, report or (lambda event: None))
    return made


def weights(folder: Place) -> torch.Tensor:
    return torch.cat([parameter.flatten() for parameter in load_model(folder).parameters()])


def test_training_lowers_the_loss_and_beats_the_best_hann(scan: Path, tmp_path: Path) -> None:
    made = run(tmp_path / "run", settings(scan, train={"epochs": 12}, optim={"lr": 0.1}))
    with (Path(str(made)) / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 13))
    assert float(rows[-1]["train_loss"]) < 0.5 * float(rows[0]["train_loss"])
    baseline = json.loads((Path(str(made)) / "baseline.json").read_text())
    assert read_manifest(made.best).metrics["psnr"] > baseline["hann_psnr"] + 0.05


def test_sparse_angles_of_the_data_are_as_good_as_sparse_data(scan: Path, tmp_path: Path) -> None:
    sparse = Path(shutil.copytree(scan, tmp_path / "sparse"))
    for path in sparse.glob("observation_*.hdf5"):
        with h5py.File(path, "r+") as file:
            thinned = file["data"][:, ::4]
            del file["data"]
            file["data"] = thinned
    (sparse / "dataset.json").write_text(f'{{"geometry": {COARSE.every(4).model_dump_json()}}}')
    taken = run(tmp_path / "taken", settings(scan, data={"every": 4}, train={"epochs": 1}))
    given = run(tmp_path / "given", settings(sparse, train={"epochs": 1}))
    assert torch.equal(weights(taken.last), weights(given.last))
    assert taken.read_json("baseline.json") == given.read_json("baseline.json")
    manifest = read_manifest(taken.best)
    assert manifest.model.geometry == COARSE.every(4)
    assert manifest.data["every"] == 4


def test_a_run_folder_explains_itself(scan: Path, tmp_path: Path) -> None:
    config = settings(scan, loss={"l1": 1})
    made = run(tmp_path / "run", config)
    with (Path(str(made)) / "history.csv").open() as file:
        row = next(csv.DictReader(file))
    assert {"epoch", "lr", "train_loss", "train_l1", "train_mse", "validation_loss", "validation_l1"} <= set(row)
    assert {"validation_psnr", "validation_ssim", "samples_per_second", "seconds"} <= set(row)
    manifest = read_manifest(made.last)
    assert manifest.epoch == 3
    assert manifest.data["train_samples"] == 12
    assert set(manifest.files) == {"weights", "training"}
    assert set(read_manifest(made.best).files) == {"weights"}
    assert (Path(str(made)) / "config.yaml").is_file()
    assert "torch" in json.loads((Path(str(made)) / "versions.json").read_text())


def test_best_is_the_epoch_with_the_lowest_validation_loss(scan: Path, tmp_path: Path) -> None:
    made = run(tmp_path / "run", settings(scan, train={"epochs": 5}, optim={"lr": 1.0, "plateau_patience": 10}))
    with (Path(str(made)) / "history.csv").open() as file:
        losses = [float(row["validation_loss"]) for row in csv.DictReader(file)]
    assert read_manifest(made.best).epoch == 1 + int(np.argmin(losses))
    assert read_manifest(made.best).metrics["loss"] == min(losses)


def test_one_seed_gives_one_result_bit_for_bit(scan: Path, tmp_path: Path) -> None:
    window = {"kind": "angle_frequency"}
    config = settings(scan, window=window, train={"epochs": 1, "seed": 5})
    first, second = run(tmp_path / "a", config), run(tmp_path / "b", config)
    other = run(tmp_path / "c", settings(scan, window=window, train={"epochs": 1, "seed": 6}))
    assert torch.equal(weights(first.last), weights(second.last))
    assert not torch.equal(weights(first.last), weights(other.last))


def test_an_interrupted_run_goes_on_to_the_same_weights(scan: Path, tmp_path: Path) -> None:
    config = settings(scan, window={"kind": "adaptive"}, optim={"lr": 0.1, "plateau_patience": 0})
    whole = run(tmp_path / "whole", config)

    def interrupt(event: Event) -> None:
        if isinstance(event, Step) and event.epoch == 2 and event.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", config, interrupt)
    assert read_manifest(tmp_path / "cut" / "last").epoch == 1
    events: list[Event] = []
    cut = run(tmp_path / "cut", config, events.append)
    assert [event.row["epoch"] for event in events if isinstance(event, EpochEnd)] == [2, 3]
    for name in ("best", "last"):
        assert torch.equal(weights(whole.folder / name), weights(cut.folder / name))
        assert read_manifest(whole.folder / name).epoch == read_manifest(cut.folder / name).epoch


@pytest.mark.parametrize("kind", ["spline"])
def test_a_solved_window_is_epoch_0_and_the_training_from_it_goes_on_bit_for_bit(
    scan: Path, tmp_path: Path, kind: str
) -> None:
    window = {"kind": kind, "init": "solve", "knots": 6}
    parts: dict[str, dict[str, Any]] = {"window": window, "optim": {"lr": 1e-3, "schedule": "cosine"}}
    solved = run(tmp_path / "solved", settings(scan, **parts, train={"epochs": 0}))
    parts["train"] = {"epochs": 2}
    start, *trained = run(tmp_path / "whole", settings(scan, **parts)).read_history()
    assert [row["epoch"] for row in (start, *trained)] == [0, 1, 2]
    (alone,) = solved.read_history()
    assert alone["validation_loss"] == start["validation_loss"]
    hann = settings(scan, **{**parts, "window": {**window, "init": "hann"}, "train": {"epochs": 1}})
    assert start["train_loss"] < run(tmp_path / "hann", hann).read_history()[0]["train_loss"]

    def stop(event: Event) -> None:
        if isinstance(event, Step) and event.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", settings(scan, **parts), stop)
    run(tmp_path / "parts", settings(scan, **parts))
    whole, parts_ = (load_model(tmp_path / name / "last").state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(value, parts_[name]) for name, value in whole.items())
    made = load_model(tmp_path / "whole").config.window
    assert (made.init, made.photons) == ("hann", "estimate")  # this scan says nothing of photons


def test_a_damaged_last_checkpoint_costs_an_epoch_and_changes_nothing(scan: Path, tmp_path: Path) -> None:
    config = settings(scan, optim={"lr": 0.5, "plateau_patience": 0})
    whole = run(tmp_path / "whole", config)

    def interrupt(event: Event) -> None:
        if isinstance(event, Step) and event.epoch == 3 and event.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", config, interrupt)
    weights_file = tmp_path / "cut" / "last" / read_manifest(tmp_path / "cut" / "last").files["weights"]
    weights_file.write_bytes(weights_file.read_bytes()[:-100])
    events: list[Event] = []
    cut = run(tmp_path / "cut", config, events.append)
    warnings = [event.text for event in events if isinstance(event, Warned)]
    assert len(warnings) == 1
    assert "going on from the one before, epoch 1" in warnings[0]
    assert [event.row["epoch"] for event in events if isinstance(event, EpochEnd)] == [2, 3]
    for name in ("best", "last"):
        assert torch.equal(weights(whole.folder / name), weights(cut.folder / name))


def test_a_hann_starts_at_the_cutoff_that_is_best_and_the_model_holds_the_number(scan: Path, tmp_path: Path) -> None:
    barely = {"optim": {"lr": 1e-9}, "train": {"epochs": 1}}
    made = run(tmp_path / "run", settings(scan, window={"init": "hann"}, **barely))
    cutoff = json.loads((Path(str(made)) / "baseline.json").read_text())["hann_psnr_cutoff"]
    assert 0.2 < cutoff < 1
    window = read_manifest(made.folder).model.window
    assert window == WindowConfig(kind="frequency", init="hann", cutoff=cutoff, photons="estimate")
    torch.testing.assert_close(weights(made.last), build_filter(window, COARSE).weight.detach(), atol=1e-6, rtol=0)
    explicit = run(tmp_path / "explicit", settings(scan, window={"init": "hann", "cutoff": cutoff}, **barely))
    assert torch.equal(weights(made.last), weights(explicit.last))
    cosine = run(tmp_path / "cosine", settings(scan, window={"init": "cosine"}, **barely))
    assert read_manifest(cosine.folder).model.window.cutoff == 1


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ({"init": "cosine", "cutoff": "best"}, "give a number, or init hann"),
        ({"init": "ones", "cutoff": "best"}, "give a number, or init hann"),
        ({"init": "ones", "cutoff": 0.5}, "has no cut-off"),
    ],
)
def test_a_cutoff_that_the_window_does_not_have_is_refused(scan: Path, window: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(scan, window=window)


def test_a_run_ends_where_nothing_improves_and_stays_ended_until_it_is_extended(scan: Path, tmp_path: Path) -> None:
    train = {"epochs": 9, "patience": 2}
    config = settings(scan, optim={"lr": 1e-9}, train=train)
    made = run(tmp_path / "run", config)
    assert len(made.read_history()) == 3
    run(tmp_path / "run", config)  # an interrupted one that was about to end
    assert len(made.read_history()) == 3
    made.set_status("completed")
    extended = settings(scan, optim={"lr": 1e-9}, train=train, run={"extend": 4})
    assert len(run(tmp_path / "run", extended).read_history()) == 5
    assert "ended after epoch 5 of 7" in ended_early(extended.model_copy(update={"train": LoopConfig(epochs=7)}), 5)


def test_patience_counts_epochs_without_a_better_loss_and_short_runs_have_it_all(scan: Path) -> None:
    def stalled(losses: list[float], **train: Any) -> bool:
        rows = [{"epoch": epoch, "validation_loss": loss} for epoch, loss in enumerate(losses, start=1)]
        return loop.is_stalled(settings(scan, train={"epochs": 99, **train}), rows)

    assert not stalled([1.0] * 15)
    assert stalled([1.0] * 16)
    assert not stalled([1.0, 0.9, 0.9, 0.8], patience=1)
    assert stalled([1.0, 0.9, 0.9], patience=1)
    assert stalled([1.0, 1.0 - 1e-6, 1.0 - 2e-6], patience=2)  # no better, as the learning rate's scheduler has it
    assert not stalled([1.0] * 50, patience=0)
    assert stalled([-1.0, -0.99995, -1.0], patience=2)  # as log_mse is
    assert not stalled([-1.0, -1.1, -1.2], patience=1)


@pytest.mark.parametrize(
    ("psnr", "ssim", "verdict"),
    [
        (31.0, 0.8, "better than the best Hann"),
        (29.0, 0.8, "better in SSIM alone than the best Hann"),
        (29.0, 0.6, "no better than the best Hann"),
    ],
)
def test_the_end_says_whether_the_best_hann_is_beaten(tmp_path: Path, psnr: float, ssim: float, verdict: str) -> None:
    made = RunFolder(tmp_path / "run")
    classic = Baseline(hann_psnr=30.0, hann_ssim=0.7, hann_psnr_cutoff=0.54, hann_ssim_cutoff=0.4)
    made.write_json("baseline.json", classic.model_dump())
    model = LearnableFBP(ModelConfig(geometry=COARSE))
    save_checkpoint(made.best, model, epoch=7, metrics={"psnr": psnr, "ssim": ssim})
    line = beside_hann(made)
    assert line.startswith(f"{verdict} on the validation part (epoch 7): PSNR {psnr:.3f} dB, {psnr - 30:+.3f} beside")
    assert line.endswith(f"SSIM {ssim:.4f}, {ssim - 0.7:+.4f} beside Hann 0.40")


def test_a_warm_start_takes_the_weights_and_where_asked_the_optimiser(scan: Path, tmp_path: Path) -> None:
    first = run(tmp_path / "first", settings(scan))
    started: list[torch.Tensor] = []
    for optimizer in (False, True):
        init = {"checkpoint": str(first.last), "optimizer": optimizer}
        made = run(tmp_path / f"warm-{optimizer}", settings(scan, init=init, train={"epochs": 1}, optim={"lr": 1e-6}))
        started.append(weights(made.last))
    for weight in started:
        torch.testing.assert_close(weight, weights(first.last), atol=1e-4, rtol=0)
    assert not torch.equal(*started)


def test_the_learning_rate_falls_on_a_plateau(scan: Path, tmp_path: Path) -> None:
    optim = {"lr": 30.0, "plateau_patience": 0, "plateau_factor": 0.1}
    made = run(tmp_path / "run", settings(scan, optim=optim, train={"epochs": 6}))
    with (Path(str(made)) / "history.csv").open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates[0] == 30.0
    assert rates[-1] < rates[0]
    steps = [later / rate for rate, later in pairwise(rates)]
    assert all(step == pytest.approx(1) or step == pytest.approx(0.1) for step in steps)


def test_it_falls_also_where_the_loss_is_below_0(scan: Path, tmp_path: Path) -> None:
    optim, loss = {"lr": 1e-7, "plateau_patience": 0}, {"mse": 0, "log_mse": 1}
    rows = run(tmp_path / "run", settings(scan, optim=optim, loss=loss, train={"epochs": 3})).read_history()
    assert [row["lr"] for row in rows] == pytest.approx([1e-7, 1e-7, 5e-8])
    assert rows[0]["validation_loss"] < 0


def test_a_loss_that_is_not_finite_names_the_samples_and_keeps_the_checkpoint(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.nn.Module] = []
    original = parts.LearnableFBP

    def remember(config: Any) -> Any:
        made.append(original(config))
        return made[-1]

    def poison(event: Event) -> None:
        if isinstance(event, EpochEnd) and event.row["epoch"] == 2:
            with torch.no_grad():
                next(made[0].parameters()).fill_(float("nan"))

    monkeypatch.setattr(parts, "LearnableFBP", remember)
    with pytest.raises(RunError, match=r"epoch 3, step 1.*observation_train_000.hdf5\[\d+\].*--optim.lr"):
        run(tmp_path / "run", settings(scan), poison)
    assert read_manifest(tmp_path / "run" / "last").epoch == 2
    assert torch.isfinite(weights(tmp_path / "run" / "last")).all()


def test_a_sample_that_is_not_finite_stops_the_run_with_its_name(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "data")
    with h5py.File(scan / "observation_train_000.hdf5", "r+") as file:
        file["data"][3, 5, 5] = np.nan
    with pytest.raises(DataError, match=r"observation_train_000.hdf5.*NaN"):
        run(tmp_path / "run", settings(scan))


def test_a_complete_run_is_not_overwritten(scan: Path, tmp_path: Path) -> None:
    config = settings(scan, train={"epochs": 1})
    made = run(tmp_path / "run", config)
    made.set_status("completed")
    before = {file: file.read_bytes() for file in Path(str(made)).rglob("*") if file.is_file()}
    with pytest.raises(RunError, match=r"is complete; choose another --run\.name, or --run\.extend"):
        RunFolder(tmp_path / "run").begin(config)
    assert before == {file: file.read_bytes() for file in Path(str(made)).rglob("*") if file.is_file()}


def test_a_run_is_not_continued_with_other_settings(scan: Path, tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").begin(settings(scan))
    with pytest.raises(RunError, match=r"optim.lr was 0.1, is now 0.2"):
        RunFolder(tmp_path / "run").begin(settings(scan, optim={"lr": 0.2}))


def test_a_folder_of_something_else_is_left_alone(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    with pytest.raises(RunError, match="is no run that was trained"):
        RunFolder(tmp_path / "run").begin(settings(scan))
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_a_run_that_was_killed_in_its_first_write_begins_anew(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.yaml.5f1d.tmp").write_text("window: {ki")
    RunFolder(tmp_path / "run").begin(settings(scan))
    assert "config.yaml" in {file.name for file in (tmp_path / "run").iterdir()}
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_a_checkpoint_of_another_geometry_is_refused(scan: Path, tmp_path: Path) -> None:
    first = run(tmp_path / "first", settings(scan, train={"epochs": 1}))
    sparse = write_scan(tmp_path / "sparse", COARSE.every(2))
    with pytest.raises(CheckpointError, match="another geometry"):
        run(tmp_path / "second", settings(sparse, init={"checkpoint": str(first)}))


def test_a_fixed_window_has_nothing_to_learn(scan: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="learns nothing"):
        run(tmp_path / "run", settings(scan, window={"kind": "fixed"}))
