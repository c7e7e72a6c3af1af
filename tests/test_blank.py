"""Blank images, which have no range of values: every mean leaves them out, and what is written can be read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

from fbp_ray.baseline import Baseline, best_hann
from fbp_ray.checkpoint import Manifest, load_model, read_manifest
from fbp_ray.config import TrainConfig
from fbp_ray.errors import DataError, RunError
from fbp_ray.evaluate import EvaluateConfig, EvaluateData
from fbp_ray.evaluate.program import evaluate
from fbp_ray.run import RunFolder
from fbp_ray.runs import list_runs, main
from fbp_ray.settings import as_json
from fbp_ray.train import loop, record
from fbp_ray.train.events import Event, Started
from fbp_ray.train.process import Process
from service.jobs.documents import read_progress
from tests.support.checkpoints import save_checkpoint
from tests.support.scans import COARSE, write_scan

ALONE = Process(rank=0, world_size=1, device=torch.device("cpu"))


def blank(scan: Path, part: str, *rows: int) -> Path:
    """Makes rows of a part those of an empty scan."""
    for kind in ("observation", "ground_truth"):
        with h5py.File(scan / f"{kind}_{part}_000.hdf5", "r+") as file:
            for row in rows:
                file["data"][row] = 0.0
    return scan


def trained(scan: Path, storage: Path, **train: Any) -> tuple[RunFolder, list[Event]]:
    settings = {
        "data": {"dir": scan},
        "loss": {"l1": 0, "ms_ssim": 0, "edge": 0, "mse": 1},
        "train": {"epochs": 2, "batch_size": 4, **train},
        "run": {"name": scan.name, "storage": str(storage)},
        "track": {"to": "none"},
    }
    config = TrainConfig.model_validate(settings)
    run = RunFolder(storage / scan.name)
    config = run.begin(config)
    events: list[Event] = []
    loop.train(config, run, ALONE, events.append)
    return run, events


def strictly(text: bytes | str) -> Any:
    """What a reader makes of a JSON text that takes no NaN and no Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_blank_images_change_no_figure_and_no_cutoff(tmp_path: Path) -> None:
    whole = write_scan(tmp_path / "whole", validation=5)
    padded = blank(write_scan(tmp_path / "padded", validation=5), "validation", 0, 3)
    without = tmp_path / "without"
    write_scan(without, validation=5)
    for kind in ("observation", "ground_truth"):  # the same images without the two blank ones
        with h5py.File(whole / f"{kind}_validation_000.hdf5") as file:
            kept = file["data"][[1, 2, 4]]
        (without / f"{kind}_validation_000.hdf5").unlink()
        with h5py.File(without / f"{kind}_validation_000.hdf5", "w") as file:
            file.create_dataset("data", data=kept, chunks=(1, *kept.shape[1:]))
    (run, events), (other, _) = trained(padded, tmp_path / "runs"), trained(without, tmp_path / "runs")
    baselines = [Baseline.model_validate(one.read_json("baseline.json")) for one in (run, other)]
    assert baselines[0].model_dump(exclude={"without_range"}) == pytest.approx(
        baselines[1].model_dump(exclude={"without_range"})
    )
    (started,) = (event for event in events if isinstance(event, Started))
    assert started.baseline.left_out.startswith("2 of the validation images")
    first, second = (read_manifest(one.best).metrics for one in (run, other))
    assert (first["psnr"], first["ssim"]) == pytest.approx((second["psnr"], second["ssim"]), rel=1e-3)
    load_model(tmp_path / "runs" / "padded")


def test_what_is_written_of_blank_images_is_json_and_can_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = blank(write_scan(tmp_path / "scan"), "test", 0, 1, 2, 3)
    blank(scan, "validation", 0)
    run, _ = trained(scan, tmp_path / "runs")
    all_blank = blank(write_scan(tmp_path / "blank", validation=1), "validation", 0)
    with pytest.raises(DataError, match=r"(?s)one value throughout.*--hann_psnr C --hann_ssim C"):
        evaluate(EvaluateConfig(checkpoint=str(run), data=EvaluateData(dir=all_blank), out=str(tmp_path / "out")))
    for name in ("baseline.json", "status.json", "best/manifest.json", "last/manifest.json"):
        strictly((tmp_path / "runs" / "scan" / name).read_text())
    capsys.readouterr()
    evaluate(EvaluateConfig(checkpoint=str(run), panels=0))
    assert "4 of the 4 images have one value throughout" in capsys.readouterr().out
    results = tmp_path / "runs" / "scan" / "evaluation-test"
    assert strictly((results / "metrics.json").read_text())["learned"]["psnr"] is None
    assert strictly((results / "evaluation.json").read_text())["samples_without_range"] == 4
    progress = read_progress("evaluate", str(results), {})
    assert (progress.problem, progress.done) == ("", 1)
    assert progress.best.psnr is not None
    assert progress.best.psnr.value is None


def test_a_validation_part_of_blank_images_alone_is_refused(tmp_path: Path) -> None:
    scan = blank(write_scan(tmp_path / "scan", validation=3), "validation", 0, 1, 2)
    with pytest.raises(DataError, match="each has one value throughout"):
        trained(scan, tmp_path / "runs")


def test_the_cutoff_is_searched_beyond_blank_images_that_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "CUTOFF_SAMPLES", 2)
    run, _ = trained(blank(write_scan(tmp_path / "scan"), "validation", 0, 1), tmp_path / "runs")
    assert Baseline.model_validate(run.read_json("baseline.json")).hann_psnr_cutoff > 0.2


def test_the_search_gives_an_error_where_there_is_nothing_to_choose_on() -> None:
    with pytest.raises(DataError, match="no image"):
        best_hann(lambda: [], COARSE)


def test_a_validation_loss_that_overflows_ends_the_run_and_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = loop.composite_loss

    def overflowing(prediction: torch.Tensor, target: torch.Tensor, config: Any, known: Any = ()) -> Any:
        loss = original(prediction, target, config)
        overflow = not prediction.requires_grad and (tmp_path / "runs/scan/last/manifest.json").exists()
        return loss._replace(total=loss.total * math.inf) if overflow else loss

    monkeypatch.setattr(loop, "composite_loss", overflowing)
    with pytest.raises(RunError, match=r"validation part is not finite after epoch \d.*--optim.lr"):
        trained(write_scan(tmp_path / "scan"), tmp_path / "runs", epochs=3)
    assert math.isfinite(read_manifest(tmp_path / "runs" / "scan").metrics["loss"])


def test_a_figure_that_is_not_finite_is_left_out_of_a_manifest_also_of_one_that_was_written(tmp_path: Path) -> None:
    from fbp_ray.model import LearnableFBP, ModelConfig

    metrics = {"loss": 0.5, "psnr": -math.inf, "ssim": math.nan}
    save_checkpoint(tmp_path, LearnableFBP(ModelConfig(geometry=COARSE)), metrics=metrics)
    assert read_manifest(tmp_path).metrics == {"loss": 0.5}
    written = (tmp_path / "manifest.json").read_text()
    earlier = strictly(written) | {"metrics": {"loss": 0.5, "psnr": None}}
    assert Manifest.model_validate_json(json.dumps(earlier)).metrics == {"loss": 0.5}
    load_model(tmp_path)


def test_a_history_with_infinite_figures_is_listed_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path / "mine")
    run.begin(TrainConfig())
    run.write_history([{"epoch": 1, "validation_loss": 1.0, "validation_psnr": -math.inf, "validation_ssim": math.nan}])
    (found,) = list_runs(tmp_path)
    assert found.psnr is not None
    assert found.psnr.value == -math.inf  # the table of a run is lossless
    main(["--storage", str(tmp_path), "--json"])
    (listed,) = strictly(capsys.readouterr().out)
    assert listed["psnr"]["value"] is None


def test_json_has_null_for_what_is_not_finite() -> None:
    assert strictly(as_json({"a": [math.nan, 1.5, (math.inf, "x")]})) == {"a": [None, 1.5, [None, "x"]]}
