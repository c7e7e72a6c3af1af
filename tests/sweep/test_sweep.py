"""Whole sweeps on the session's cluster."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import pytest
import ray
import torch
import yaml
from rich.console import Console

from fbp_ray.baseline import Baseline
from fbp_ray.checkpoint import read_manifest
from fbp_ray.cli import parse_with_recipe
from fbp_ray.config import DataConfig, TrainConfig
from fbp_ray.data import Batches, LoDoPaB, geometry_of
from fbp_ray.errors import ConfigError, DataError, RunError
from fbp_ray.evaluate import main as evaluate
from fbp_ray.run import RunFolder
from fbp_ray.sweep import Choice, LogRange, Range, object_store, sweep
from fbp_ray.sweep.folder import SweepFolder, read_results
from fbp_ray.sweep.report import SweepProgress, TrialBegan, TrialEpoch, results_table
from fbp_ray.sweep.space import Space
from fbp_ray.sweep.tuning import AskingASHA
from fbp_ray.train.loop import train
from fbp_ray.train.process import Process
from fbp_ray.train.program import check
from service.jobs.documents import read_progress
from tests.support.checkpoints import weights_of
from tests.support.scans import write_scan

SPACE: Space = {"loss.l1": LogRange(0.01, 100), "optim.lr": LogRange(1e-3, 1e-1)}


def options(scan: Path, storage: Path, name: str, **more: Any) -> list[str]:
    given = {
        "data.dir": scan,
        **{"loss.l1": 0.25, "loss.edge": 1, "loss.log_mse": 0, "loss.local_ssim": 0},
        "window.kind": "frequency",
        "train.epochs": 3,
        "sweep.storage": storage,
        "sweep.name": name,
        "sweep.trials": 3,
        **more,
    }
    return [text for key, value in given.items() for text in (f"--{key}", str(value))]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("scan") / "data")


@pytest.fixture(scope="module")
def swept(cluster: None, scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("sweeps")
    sweep(SPACE, options(scan, storage, "first", **{"sweep.scheduler": "none"}), "script.py")
    return storage / "first"


class TestObjectStore:
    @pytest.mark.parametrize(("cache", "within"), [("none", 0.0), ("memory", 0.0), ("half", 2**-11)])
    def test_the_object_store_gives_back_what_the_files_have(
        self, cluster: None, tmp_path: Path, cache: str, within: float
    ) -> None:
        folder = write_scan(tmp_path / "data", train=object_store.CHUNK + 3)
        dataset = LoDoPaB(folder, "train", geometry_of(folder))
        kept = object_store.ObjectStoreCache(object_store.store(dataset, DataConfig.model_validate({"cache": cache})))
        for batch in Batches(dataset, 5, seed=1, cache=kept).epoch(1):
            for row, sample in enumerate(batch.index.tolist()):
                torch.testing.assert_close(batch.observation[row], dataset[sample].observation, rtol=within, atol=3e-8)
                torch.testing.assert_close(
                    batch.ground_truth[row], dataset[sample].ground_truth, rtol=within, atol=3e-8
                )
        assert kept.bytes == (2 if cache == "half" else 4) * len(dataset) * (60 * 67 + 47 * 47)

    def test_values_beyond_half_precision_are_refused(self, cluster: None, tmp_path: Path) -> None:
        folder = write_scan(tmp_path / "data")
        with h5py.File(folder / "observation_train_000.hdf5", "r+") as file:
            file["data"][3, 5, 5] = 1e5
        with pytest.raises(DataError, match=r"65504.*--data\.cache memory"):
            object_store.store(LoDoPaB(folder, "train", geometry_of(folder)), DataConfig(cache="half"))


@pytest.mark.usefixtures("no_sweep_report")  # what a module's fixture sweeps has one
class TestSweep:
    def test_every_trial_is_a_whole_run_and_the_table_tells_them_all(self, swept: Path) -> None:
        rows = table(swept)
        assert sorted(row["trial"] for row in rows) == ["0000", "0001", "0002"]
        assert [float(row["merit"]) for row in rows] == sorted((float(row["merit"]) for row in rows), reverse=True)
        for row in rows:
            run = swept / "trials" / row["trial"]
            manifest = read_manifest(run / "best")
            assert json.loads((run / "trial.json").read_text())["parameters"]["optim.lr"] == float(row["optim.lr"])
            assert yaml.safe_load((run / "config.yaml").read_text())["optim"]["lr"] == float(row["optim.lr"])
            assert json.loads((run / "status.json").read_text())["state"] == row["status"] == "completed"
            assert manifest.metrics["psnr"] == float(row["validation_psnr"])
            assert manifest.epoch == int(row["best_epoch"])
            assert int(row["epochs"]) == 3
            assert (run / "baseline.json").read_bytes() == (swept / "baseline.json").read_bytes()
            assert not (run / "tensorboard").exists()

    def test_the_ranking_is_by_the_images_not_by_the_loss(self, swept: Path) -> None:
        rows = table(swept)
        baseline = Baseline.model_validate_json((swept / "baseline.json").read_text())
        for row in rows:
            gain = float(row["validation_psnr"]) - baseline.hann_psnr
            gain += 20 * (float(row["validation_ssim"]) - baseline.hann_ssim)
            assert float(row["merit"]) == pytest.approx(gain)
        assert rows[0]["pareto"] == "1"
        losses = [float(row["validation_loss"]) for row in rows]
        assert losses != sorted(losses)

    def test_the_best_is_a_model_that_evaluation_takes(self, swept: Path, scan: Path, tmp_path: Path) -> None:
        best = swept / "trials" / table(swept)[0]["trial"]
        mine, theirs = weights_of(swept / "best"), weights_of(best)
        assert mine.equal(theirs)
        evaluate(["--checkpoint", str(swept / "best"), "--panels", "0", "--out", str(tmp_path / "evaluation")])
        assert "learned" in json.loads((tmp_path / "evaluation" / "metrics.json").read_text())

    def test_the_best_settings_are_those_that_training_takes(self, swept: Path) -> None:
        config = parse_with_recipe(TrainConfig, ["--config", str(swept / "best_config.yaml")], "train")
        check(config)
        assert config.optim.lr == float(table(swept)[0]["optim.lr"])
        assert config.run == TrainConfig().run
        assert config.track == TrainConfig().track

    def test_the_plots_are_there_and_the_page_needs_nothing_else(self, swept: Path) -> None:
        page = (swept / "index.html").read_text()
        pictures = re.findall(r'src="([^"]+)"', page)
        drawn = ["pareto.png", "parameters.png", "parallel.png", "curves.png"]
        assert [base64.b64decode(picture.removeprefix("data:image/png;base64,")) for picture in pictures] == [
            (swept / name).read_bytes() for name in drawn
        ]
        assert "<script" not in page
        assert "http" not in page.replace("<!doctype html>", "")
        for row in table(swept):
            assert re.search(rf">{row['trial']}( \*)?<", page)

    def test_the_tables_fit_the_terminal(self, swept: Path) -> None:
        results = read_results(SweepFolder(swept), list(SPACE), "combined")
        for width in (45, 60, 80, 120):
            console = Console(width=width, record=True, file=io.StringIO())
            console.print(results_table(results, width))
            said = console.export_text()
            assert "…" not in said
            assert all(len(line.rstrip()) <= width for line in said.splitlines())
            assert f"{results.ranked[0].metrics['psnr']:.3f}" in said
            assert ("epoch" in said) == (width >= 80)
            assert ("all settings are in" in said) == (width < 60)

    def test_a_live_table_shows_what_runs(self, swept: Path) -> None:
        results = read_results(SweepFolder(swept), list(SPACE), "combined")
        console = Console(force_terminal=True, width=120, height=50, record=True, file=io.StringIO())
        with SweepProgress(9, 3, results, console) as progress:
            progress.show(TrialBegan(7, {"loss.l1": 0.5, "optim.lr": 0.0123}))
            progress.show(TrialEpoch(7, epoch=2, psnr=33.333, ssim=0.9))
            console.print(progress)
        said = console.export_text()
        assert "0007" in said
        assert "2/3" in said
        assert "33.333" in said
        assert "3 of 9 trials done, 1 running" in said

    def test_a_finished_sweep_runs_nothing_again_and_more_trials_go_on_with_it(
        self, swept: Path, scan: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = {file: file.stat().st_mtime_ns for file in (swept / "trials").rglob("*")}
        given = options(scan, swept.parent, "first", **{"sweep.scheduler": "none"})
        sweep(SPACE, given, "script.py")
        assert "all 3 trials are finished" in capsys.readouterr().out
        begun = swept / "trials" / "0003"  # a process was killed while it made this folder
        begun.mkdir()
        shutil.copy(swept / "trials" / "0002" / "config.yaml", begun)
        (begun / ".trial.json.5f1d.tmp").write_text('{"num')
        results = sweep(SPACE, [*given, "--sweep.trials", "4"], "script.py")
        assert len(results.outcomes) == 4
        assert before == {file: file.stat().st_mtime_ns for file in before}
        assert len({str(outcome.parameters) for outcome in results.outcomes}) == 4

    def test_a_service_tells_of_trials_in_the_order_in_which_they_ended(self, swept: Path, tmp_path: Path) -> None:
        shutil.copytree(swept, tmp_path / "late")
        names = [path.name for path in sorted((tmp_path / "late" / "trials").iterdir())]
        for number, name in enumerate([*names[1:], names[0]]):  # the first one took the longest
            os.utime(tmp_path / "late" / "trials" / name / "status.json", (number, number))
        progress = read_progress("sweep", str(tmp_path / "late"), {"sweep": {"trials": 3}})
        assert [row["trial"] for row in progress.rows] == [*names[1:], names[0]]

    def test_a_trial_that_was_interrupted_goes_on_from_its_checkpoint(
        self,
        swept: Path,
        scan: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        shutil.copytree(swept, tmp_path / "cut")
        run = tmp_path / "cut" / "trials" / "0001"
        whole = weights_of(run / "best")
        others = {file: file.stat().st_mtime_ns for file in run.parent.rglob("*") if run not in [file, *file.parents]}
        _take_back_an_epoch(run)
        monkeypatch.setattr(object_store, "MOST", 0.0)  # the files have the same data as the object store
        results = sweep(SPACE, options(scan, tmp_path, "cut", **{"sweep.scheduler": "none"}), "script.py")
        assert {outcome.status for outcome in results.outcomes} == {"completed"}
        assert [row["epoch"] for row in results.outcomes[1].history] == [1, 2, 3]
        torch.testing.assert_close(weights_of(run / "best"), whole, atol=1e-6, rtol=0)
        assert others == {file: file.stat().st_mtime_ns for file in others}
        said = capsys.readouterr().out
        assert "1 were interrupted" in said
        assert "each trial reads the files" in said

    def test_a_trial_is_the_training_that_its_settings_give(self, swept: Path, tmp_path: Path) -> None:
        trial = swept / "trials" / "0002"
        config = TrainConfig.model_validate(yaml.safe_load((trial / "config.yaml").read_text()))
        run = RunFolder(tmp_path / "run")
        train(run.begin(config), run, Process(0, 1, torch.device("cpu")), lambda event: None)
        mine, theirs = (weights_of(place / "last") for place in (tmp_path / "run", trial))
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)

    def test_a_trial_may_have_several_workers(self, cluster: None, scan: Path, tmp_path: Path) -> None:
        more = {"sweep.workers_per_trial": 2, "sweep.trials": 1, "train.epochs": 1}
        results = sweep(SPACE, options(scan, tmp_path, "wide", **more), "script.py")
        assert [outcome.status for outcome in results.outcomes] == ["completed"]
        assert [row["workers"] for row in results.outcomes[0].history] == [2.0]
        assert weights_of(tmp_path / "wide" / "best").isfinite().all()

    @pytest.mark.chaos
    def test_a_trial_of_several_workers_that_is_behind_ends_and_leaves_room_for_the_next(
        self, cluster: None, scan: Path, tmp_path: Path
    ) -> None:
        more = {"sweep.workers_per_trial": 2, "sweep.trials": 3, "train.epochs": 60, "sweep.search": "grid"}
        given = options(scan, tmp_path, "wide", **more)
        results = sweep({"optim.lr": Choice(0.05, 1e-5, 2e-6)}, given, "script.py")
        assert [outcome.status for outcome in results.outcomes] == ["completed", "stopped", "stopped"]
        assert all(15 <= outcome.epochs < 60 for outcome in results.outcomes[1:])
        assert len(results.objectives) == 3

    def test_other_settings_or_another_space_are_refused(self, swept: Path, scan: Path) -> None:
        with pytest.raises(RunError, match=r"other settings \(train\.epochs\)"):
            sweep(SPACE, options(scan, swept.parent, "first", **{"train.epochs": 4}), "script.py")
        with pytest.raises(RunError, match=r"other space \(optim\.lr\)"):
            sweep({**SPACE, "optim.lr": Range(0.1, 1)}, options(scan, swept.parent, "first"), "script.py")

    def test_hopeless_trials_end_early_and_keep_their_figures(self, cluster: None, scan: Path, tmp_path: Path) -> None:
        rates = {"optim.lr": Choice(0.05, 2e-5, 1e-5)}
        more = {"sweep.search": "grid", "train.epochs": 8, "sweep.max_concurrent": 1}
        results = sweep(rates, options(scan, tmp_path, "asha", **more), "script.py")
        assert [outcome.status for outcome in results.outcomes] == ["completed", "stopped", "stopped"]
        assert [outcome.epochs for outcome in results.outcomes] == [8, 2, 2]
        assert len(results.objectives) == 3
        assert "after epoch 2" in results.outcomes[1].reason

    def test_trials_that_diverge_are_marked_and_where_all_do_the_sweep_fails_and_says_why(
        self, cluster: None, scan: Path, tmp_path: Path
    ) -> None:
        rates, wild = {"optim.lr": Choice(1e30, 0.01, 1e35)}, tmp_path / "wild"
        given = options(scan, tmp_path, "wild", **{"sweep.search": "grid", "train.epochs": 1, "loss.mse": 1})
        results = sweep(rates, given, "script.py")
        assert [outcome.status for outcome in results.outcomes] == ["failed", "completed", "failed"]
        assert "finite" in table(wild)[-1]["reason"]
        assert json.loads((wild / "trials" / "0000" / "status.json").read_text())["state"] == "failed"
        assert table(wild)[0]["trial"] == "0001"
        RunFolder(wild / "trials" / "0001").set_status("failed", "this one as well")
        with pytest.raises(RunError, match=r"(?s)all 3 trials failed.*0000.*finite.*0001: this one as well") as caught:
            sweep(rates, given, "script.py")
        assert caught.value.exit_code == 1
        assert len(table(wild)) == 3

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ({"sweep.max_concurrent": 3}, r"3 trials at a time.*--sweep.max_concurrent.*2 processors.*room for 2"),
            (
                {"sweep.max_concurrent": 2, "sweep.workers_per_trial": 2},
                r"2 workers.*room for 1.*--sweep.workers_per_trial",
            ),
            ({"sweep.workers_per_trial": 3}, r"3 workers.*room for 0"),
        ],
    )
    def test_more_trials_at_a_time_than_there_is_room_for_are_refused(
        self, cluster: None, scan: Path, tmp_path: Path, more: dict[str, int], said: str
    ) -> None:
        with pytest.raises(ConfigError, match=said):
            sweep(SPACE, options(scan, tmp_path, "many", **more), "script.py")

    def test_what_does_not_hold_is_found_before_ray_starts(
        self, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray was started"))
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "thesis.txt").write_text("precious")
        for more, error, said in (
            ({"loss.l1": -1}, ConfigError, "greater than or equal to 0"),
            ({"loss.l1": 0, "loss.edge": 0}, ConfigError, "all loss weights are 0"),
            ({"run.name": "x"}, ConfigError, "--sweep.name"),
            ({"train.batch_size": 1000}, ConfigError, "batch_size"),
            ({"sweep.name": "thesis"}, RunError, "is no sweep"),
        ):
            with pytest.raises(error, match=said):
                sweep(SPACE, options(scan, tmp_path, "bad", **more), "script.py")
        assert [file.name for file in tmp_path.iterdir()] == ["thesis"]


def test_a_new_trial_is_compared_with_those_of_an_earlier_session() -> None:
    asked = []
    scheduler = AskingASHA(lambda trial, epoch: asked.append((trial, epoch)), epochs=8, min_epochs=2)
    scheduler.add_finished("0000", [1.0] * 8)
    for name, objective in (("worse", 0.5), ("better", 2.0)):
        trial: Any = SimpleNamespace(trial_id=name)
        scheduler.on_trial_add(None, trial)
        for epoch in (1, 2, 3):
            result = {"epoch": epoch, "objective": objective}
            assert scheduler.on_trial_result(None, trial, result) == AskingASHA.CONTINUE
    assert asked == [("worse", 2)]


def _take_back_an_epoch(run: Path) -> None:
    """Makes a run what it was before its last epoch, when its process was killed."""
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "state": "running", "pid": 2**22 + 1}))
    (run / "last" / "previous.json").rename(run / "last" / "manifest.json")
    before = read_manifest(run / "last")
    assert before.epoch == 2
    weights = before.files["weights"]
    (run / "best" / weights).write_bytes((run / "last" / weights).read_bytes())
    alone = {"files": {"weights": weights}, "sha256": {"weights": before.sha256["weights"]}}
    (run / "best" / "manifest.json").write_text(before.model_copy(update=alone).model_dump_json())
