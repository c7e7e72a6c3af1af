"""The models that come with the package: there, found by name, and better than the classic FBP on a genuine scan."""

from __future__ import annotations

import io
import json
import tomllib
from importlib import resources
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from fbp_ray import ParallelBeam, fbp, load_model
from fbp_ray.checkpoint import read_manifest, read_model
from fbp_ray.errors import CheckpointError
from fbp_ray.evaluate import main as evaluate
from fbp_ray.metrics import psnr, ssim
from fbp_ray.shipped import CHEST_LOW_DOSE, absolute_place, shipped_models
from tests.service.test_models import save_run, until
from tests.support.checkpoints import save_checkpoint
from tests.support.serving import running, settings_for

PAIR = Path(__file__).parent / "data" / "lodopab_pair" / "lodopab_test_3456.npz"


def test_the_package_holds_it_in_kilobytes() -> None:
    folder = resources.files("fbp_ray") / "weights" / CHEST_LOW_DOSE
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    manifest = read_manifest(CHEST_LOW_DOSE)
    assert set(files) == {"manifest.json", "metrics.json", manifest.files["weights"]}
    assert sum(map(len, files.values())) < 50_000
    assert b"/work" not in files["manifest.json"]
    assert manifest.model.geometry == ParallelBeam.lodopab()
    figures = json.loads(files["metrics.json"])
    assert all(figures["learned"]["psnr"] > figures[hann]["psnr"] + 1 for hann in ("hann_psnr", "hann_ssim"))
    assert all(figures["learned"]["ssim"] > figures[hann]["ssim"] for hann in ("hann_psnr", "hann_ssim"))
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert "weights/*/*" in project["tool"]["setuptools"]["package-data"]["fbp_ray"]


def test_a_genuine_scan_comes_back_better_than_from_the_classic_fbp() -> None:
    with np.load(PAIR) as pair:
        observation, truth = (torch.from_numpy(pair[name])[None] for name in ("observation", "ground_truth"))
    learned = load_model(CHEST_LOW_DOSE)(observation)
    for window, cutoff in (("none", 1.0), ("hann", 1.0), ("hann", 0.8), ("hann", 0.64)):
        classic = fbp(observation, ParallelBeam.lodopab(), window, cutoff)
        assert psnr(learned, truth) > psnr(classic, truth), (window, cutoff)
        assert ssim(learned, truth) > ssim(classic, truth), (window, cutoff)


def test_its_name_means_it_and_a_path_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    other = load_model(CHEST_LOW_DOSE)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    version = read_manifest(CHEST_LOW_DOSE).sha256
    theirs = save_checkpoint(f"./{CHEST_LOW_DOSE}", other).sha256
    assert theirs != version
    assert read_manifest(CHEST_LOW_DOSE).sha256 == version
    for place in (f"./{CHEST_LOW_DOSE}", Path(CHEST_LOW_DOSE)):
        assert read_manifest(place).sha256 == theirs
    assert absolute_place(CHEST_LOW_DOSE) == CHEST_LOW_DOSE
    assert absolute_place(f"./{CHEST_LOW_DOSE}") == str(tmp_path / CHEST_LOW_DOSE)
    with pytest.raises(CheckpointError, match=rf"comes with fbp-ray: {', '.join(shipped_models())}"):
        read_model("chest-low-does")


def test_it_is_evaluated_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    with np.load(PAIR) as pair:
        for kind in ("observation", "ground_truth"):
            with h5py.File(tmp_path / "data" / f"{kind}_test_000.hdf5", "w") as file:
                file["data"] = pair[kind][None]
    options = ["--data.dir", "data", "--panels", "0", "--hann_psnr", "0.7", "--hann_ssim", "0.5"]
    evaluate(["--checkpoint", CHEST_LOW_DOSE, *options])
    figures = json.loads((tmp_path / "runs" / CHEST_LOW_DOSE / "evaluation-test" / "metrics.json").read_text())
    assert figures["learned"]["psnr"] > figures["hann_psnr"]["psnr"]


def test_the_service_answers_with_it_before_anything_was_trained(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, models={"storage": str(tmp_path / "runs"), "look_seconds": 0.2})
    version = read_manifest(CHEST_LOW_DOSE).sha256["weights"][:12]
    with np.load(PAIR) as pair, running(settings) as client:
        truth = torch.from_numpy(pair["ground_truth"])
        images = {}
        for query in ("", "?method=fbp"):
            answer = client.post(f"/reconstruct{query}", content=PAIR.read_bytes())
            images[query] = torch.from_numpy(np.load(io.BytesIO(answer.content)))
            if not query:
                assert (answer.headers["x-model"], answer.headers["x-model-version"]) == ("best", version)
            assert answer.headers["x-model-source"] == ("" if query else CHEST_LOW_DOSE)
        assert psnr(images[""], truth) > psnr(images["?method=fbp"], truth)
        assert ssim(images[""], truth) > ssim(images["?method=fbp"], truth)
        (model,) = client.get("/models").json()["models"]
        assert (model["source"], model["version"], model["automatic"]) == (CHEST_LOW_DOSE, version, True)
        assert model["metrics"] == read_manifest(CHEST_LOW_DOSE).metrics
        assert client.delete("/models/best").status_code == 204
        assert client.get("/models/best").json()["source"] == CHEST_LOW_DOSE
        own = client.post("/models/own/activate", json={"source": CHEST_LOW_DOSE})
        assert own.json()["version"] == version
        save_run(tmp_path / "runs" / "mine", 0.5)
        until(lambda: client.get("/models/best").json()["source"] == str(tmp_path / "runs" / "mine"))
