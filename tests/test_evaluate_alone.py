"""An evaluation without ground truth: squared errors as the scan tells them, noise, resolution, and its report."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fbp_ray.data import LoDoPaB
from fbp_ray.data.layout import MU_MAX
from fbp_ray.errors import ConfigError, DataError
from fbp_ray.evaluate import main
from fbp_ray.evaluate.alone import look
from fbp_ray.model import LearnableFBP, ModelConfig, fbp
from fbp_ray.projector import project
from fbp_ray.report.compare import comparison_page
from fbp_ray.report.subject import read_subject
from fbp_ray.stage_settings import WindowConfig
from tests.support.checkpoints import save_checkpoint
from tests.support.scans import COARSE, FAN, write_scan

METHODS = ["ramp", "hann_risk", "learned"]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """The data with and without ground truth, and the options for a model that is a Hann with the cut-off 0.5."""
    folder = tmp_path_factory.mktemp("alone")
    scan = write_scan(folder / "data", test=12)
    alone = shutil.copytree(scan, folder / "alone")
    for file in alone.glob("ground_truth_*"):
        file.unlink()
    model = LearnableFBP(ModelConfig(geometry=COARSE, window=WindowConfig(init="hann", cutoff=0.5)))
    save_checkpoint(folder / "run" / "best", model)
    return scan, alone, ["--checkpoint", str(folder / "run"), "--data.dir", str(alone)]


def test_a_model_is_judged_by_the_scan_alone(
    given: tuple[Path, Path, list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scan, _, options = given
    out = tmp_path / "out"
    main([*options, "--out", str(out), "--panels", "2"])
    said = " ".join(capsys.readouterr().out.split())
    assert "test part, 12 images, without ground truth" in said
    metrics, about, measured = (
        json.loads((out / f"{n}.json").read_text()) for n in ("metrics", "evaluation", "measured")
    )
    assert list(metrics) == METHODS
    assert about["truth"] is False

    # The estimates rank the Hanns as the truth does, and differ from it by the same for each.
    hanns = dict(zip(measured["alone"]["cutoffs"], measured["alone"]["risks"], strict=True))
    assert metrics["learned"]["risk"] == pytest.approx(hanns[0.5], rel=1e-5)
    assert metrics["hann_risk"]["risk"] == min(hanns.values())
    pairs = list(LoDoPaB(scan, "test", COARSE))
    truth = np.stack([pair.ground_truth.numpy() for pair in pairs])
    sinograms = torch.stack([pair.observation for pair in pairs])
    true = {c: np.square(fbp(sinograms, COARSE, "hann", c).numpy() - truth).mean() for c in (0.2, 0.3, 0.5)}
    assert sorted(true, key=lambda c: hanns[c]) == sorted(true, key=lambda c: true[c])
    spread = [hanns[c] - true[c] for c in true]
    assert max(spread) - min(spread) < 0.25 * (max(true.values()) - min(true.values()))
    with (out / "risks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert np.mean([float(row["learned"]) for row in rows]) == pytest.approx(metrics["learned"]["risk"])
    less = np.mean([float(row["learned"]) < float(row["hann_risk"]) for row in rows])
    assert metrics["learned"]["less_than_hann"] == pytest.approx(less)

    # The noise is that of the image of all angles, which the truth tells.
    noise = fbp(sinograms - project(torch.from_numpy(truth), COARSE), COARSE, "hann", 0.5).numpy() * MU_MAX
    assert metrics["learned"]["noise"] == pytest.approx(noise[:, 9:37, 9:37].std(), rel=0.1)
    assert metrics["ramp"]["noise"] > 2 * metrics["learned"]["noise"]
    assert 0 < metrics["learned"]["resolved"] < 1e-3 / COARSE.pixel_size / 2

    page = (out / "report.html").read_text()
    for part in ("without ground truth", "Fourier ring correlation", "estimated squared error of Hanns by cut-off"):
        assert part in page
    assert sorted(path.name for path in out.glob("*.png")) == ["image_0002.png", "image_0008.png", "window.png"]
    compared = comparison_page([read_subject(str(out)), read_subject(str(out))])
    assert "Without ground truth" in compared
    assert f"{metrics['learned']['risk']:.4g}" in compared
    monkeypatch.setattr("fbp_ray.evaluate.program.write_report", lambda folder: "not written again")
    main([*options[:2], "--data.dir", str(scan), "--out", str(out), "--panels", "0", "--overwrite"])
    assert not (out / "risks.csv").exists()
    assert "psnr" in json.loads((out / "metrics.json").read_text())["learned"]


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (["--protocol", "lodopab"], ConfigError, "--protocol needs ground truth"),
        (["--hann_ssim", "0.5"], ConfigError, "--hann_ssim needs ground truth"),
        (["--data.photons", "5000"], DataError, "not known to have been measured with 5000 photons"),
    ],
)
def test_what_needs_ground_truth_says_so(
    given: tuple[Path, Path, list[str]], tmp_path: Path, more: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        main([*given[2], "--out", str(tmp_path / "out"), *more])
    assert not (tmp_path / "out").exists()


def test_a_fan_beam_is_judged_by_photons_that_the_data_or_the_model_know(tmp_path: Path) -> None:
    dataset = LoDoPaB(write_scan(tmp_path, FAN), "test", FAN, truth=False)
    windows = (WindowConfig(photons=photons) for photons in ("estimate", 1000.0))
    silent, told = (LearnableFBP(ModelConfig(geometry=FAN, window=window)) for window in windows)
    with pytest.raises(ConfigError, match=r"neither .* nor the model says how many a ray has .*add `photons` to its"):
        look(silent, dataset, 0, torch.device("cpu"))
    assert list(look(told, dataset, 0, torch.device("cpu")).metrics) == METHODS
