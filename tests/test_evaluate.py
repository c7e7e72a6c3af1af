from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fbp_ray.baseline import Baseline, best_hann
from fbp_ray.data import LoDoPaB, describe
from fbp_ray.errors import CheckpointError, DataError, FbpRayError, RunError
from fbp_ray.evaluate import main
from fbp_ray.filters import WindowConfig
from fbp_ray.model import LearnableFBP, ModelConfig, fbp
from fbp_ray.pictures import GAP, HEADER
from fbp_ray.storage import copy_folder, open_folder
from tests.support.checkpoints import save_checkpoint
from tests.support.scans import COARSE, write_scan

pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("scan") / "data")


@pytest.fixture(scope="module", params=["frequency", "angle_frequency"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, scan: Path) -> Path:
    window = WindowConfig(kind=request.param, init="hann", cutoff=0.5)
    model = LearnableFBP(ModelConfig(geometry=COARSE, window=window))
    folder = tmp_path_factory.mktemp("run") / "best"
    save_checkpoint(folder, model, epoch=2, metrics={"psnr": 20.0}, data={"dir": str(scan)})
    return folder


def test_the_figures_are_those_of_scikit_image(checkpoint: Path, scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(["--checkpoint", str(checkpoint), "--data.dir", str(scan), "--split", "test", "--out", str(out)])
    figures = json.loads((out / "metrics.json").read_text())
    assert list(figures) == ["ramp", "hann_psnr", "hann_ssim", "zeng", "learned"]
    dataset = LoDoPaB(scan, "test", COARSE)
    expected = []
    for sample in dataset:
        truth = sample.ground_truth.numpy().astype(np.float64)
        image = fbp(sample.observation, COARSE, "hann", 0.5).numpy().astype(np.float64)
        spread = truth.max() - truth.min()
        expected.append(
            [
                peak_signal_noise_ratio(truth, image, data_range=spread),
                structural_similarity(truth, image, data_range=spread),
                peak_signal_noise_ratio(truth, image, data_range=1),
                structural_similarity(truth, image, data_range=1),
            ]
        )
    learned = figures["learned"]
    assert list(learned) == ["psnr", "ssim", "psnr_fr", "ssim_fr"]
    np.testing.assert_allclose(list(learned.values()), np.mean(expected, axis=0), atol=2e-4)
    with (out / "images.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "learned"]
    assert [row["name"] for row in rows] == [dataset.name(k) for k in range(4)]
    np.testing.assert_allclose([float(row["psnr"]) for row in rows], np.array(expected)[:, 0], atol=1e-3)


def test_the_cutoffs_are_the_best_on_the_validation_part(scan: Path) -> None:
    """Of all in steps of 0.02, though the search looks at some alone."""
    samples = list(LoDoPaB(scan, "validation", COARSE))
    pairs = [(sample.observation[None], sample.ground_truth[None]) for sample in samples]
    cutoffs = [round(0.02 * k, 2) for k in range(10, 51)]
    looked_at: list[float] = []

    def best(figure: Callable[[np.ndarray, np.ndarray, float], float]) -> float:
        means = []
        for cutoff in cutoffs:
            images = [fbp(observation[0], COARSE, "hann", cutoff).double().numpy() for observation, _ in pairs]
            truths = [truth[0].double().numpy() for _, truth in pairs]
            means.append(np.mean([figure(t, i, np.ptp(t)) for t, i in zip(truths, images, strict=True)]))
        return cutoffs[int(np.argmax(means))]

    def counted(sums: torch.Tensor) -> torch.Tensor:
        looked_at.extend([0.0] * len(sums))
        return sums

    found = best_hann(lambda: pairs, COARSE, counted)
    assert found.psnr == best(lambda t, i, r: peak_signal_noise_ratio(t, i, data_range=r))
    assert found.ssim == best(lambda t, i, r: structural_similarity(t, i, data_range=r))
    assert len(looked_at) <= 18


def test_the_pictures_show_every_method(checkpoint: Path, scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(["--checkpoint", str(checkpoint), "--data.dir", str(scan), "--out", str(out), "--panels", "2"])
    pictures = sorted(path.name for path in out.glob("*.png"))
    assert pictures == ["image_0000.png", "image_0002.png", "window.png"]
    for name in pictures:
        pixels = imread(out / name)[..., :3]
        assert min(pixels.shape[:2]) > 300
        assert pixels.std() > 0.05
    truth = LoDoPaB(scan, "test", COARSE)[2].ground_truth.T.numpy()
    side = 6 * 47  # six pixels for each of the image's
    shown = imread(out / "image_0002.png")[..., 0]
    tile = shown[3 * HEADER : 3 * HEADER + side, -side:]
    np.testing.assert_allclose(tile[::6, ::6], np.clip(truth / 0.45, 0, 1), atol=0.01)
    assert np.array_equal(tile, tile[::6, ::6].repeat(6, 0).repeat(6, 1))
    assert shown.shape == (HEADER + 2 * (2 * HEADER + side), 3 * side + 2 * GAP)


def test_results_are_overwritten_when_asked_alone(checkpoint: Path, scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ["--checkpoint", str(checkpoint), "--out", str(out), "--hann_psnr", "0.6", "--hann_ssim", "0.5"]
    main([*given, "--panels", "2"])
    before = (out / "metrics.json").read_bytes()
    with pytest.raises(RunError, match="--overwrite replaces them, or choose another --out"):
        main(given)
    assert (out / "metrics.json").read_bytes() == before
    main([*given, "--overwrite", "--hann_psnr", "0.7", "--panels", "1"])
    assert (out / "metrics.json").read_bytes() != before
    assert [path.name for path in out.glob("image_*.png")] == ["image_0002.png"]
    (out / "evaluation.json").unlink()
    with pytest.raises(RunError, match="holds something else than an evaluation"):
        main([*given, "--overwrite"])


def test_cutoffs_come_from_the_run_or_are_searched_or_are_given(
    checkpoint: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's where it was trained on these data, a search with progress on others; given ones are called so."""
    run = tmp_path / "run"
    shutil.copytree(checkpoint, run / "best")
    manifest = json.loads((run / "best" / "manifest.json").read_text())
    manifest["data"]["description"] = describe(scan)
    (run / "best" / "manifest.json").write_text(json.dumps(manifest))
    known = Baseline(hann_psnr=1, hann_ssim=1, hann_psnr_cutoff=0.33, hann_ssim_cutoff=0.22)
    (run / "baseline.json").write_text(known.model_dump_json())
    main(["--checkpoint", str(run), "--panels", "0", "--hann_ssim", "0.55"])
    said = capsys.readouterr().out
    assert "Hann 0.33 (best PSNR)" in said
    assert "Hann 0.55 (given)" in said
    assert "gain over Hann 0.55 (given)" in said
    assert "Choosing" not in said
    assert "PSNR-FR and SSIM-FR take the fixed range 1" in " ".join(said.split())
    other = shutil.copytree(scan, tmp_path / "other")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    main(["--checkpoint", str(run), "--data.dir", str(other), "--panels", "0", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "Choosing the Hann cut-offs: 15 of 15" in said
    assert "Hann 0.33" not in said
    again = ["--checkpoint", str(run), "--data.dir", str(other), "--panels", "0", "--out"]
    main([*again, str(tmp_path / "again")])  # what was found is kept, by the content of the data
    assert "Choosing" not in capsys.readouterr().out
    found, kept = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("out", "again"))
    assert kept["hann_ssim_cutoff"] == found["hann_ssim_cutoff"]
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")  # nothing can be kept there
    main([*again, str(tmp_path / "once more")])
    assert "Choosing" in capsys.readouterr().out
    # Simulated by the same request, so the same: the run's own cut-offs are theirs.
    described = json.loads((scan / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps({**described, "request": {"seed": 3}}))
    manifest["data"]["description"] = describe(other)
    (run / "best" / "manifest.json").write_text(json.dumps(manifest))
    main([*again, str(tmp_path / "elsewhere")])
    assert "Hann 0.33 (best PSNR)" in capsys.readouterr().out


def test_a_model_of_sparse_angles_is_scored_on_them(scan: Path, tmp_path: Path) -> None:
    model = LearnableFBP(ModelConfig(geometry=COARSE.every(4), window=WindowConfig(kind="frequency")))
    save_checkpoint(tmp_path / "best", model, epoch=1, metrics={}, data={"dir": str(scan), "every": 4})
    given = ["--checkpoint", str(tmp_path), "--hann_psnr", "0.6", "--hann_ssim", "0.5", "--panels", "0"]
    main(given)
    sparse = write_scan(tmp_path / "sparse", COARSE.every(4))  # data that are sparse themselves
    main([*given, "--data.dir", str(sparse), "--out", str(tmp_path / "out")])
    about = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("evaluation-test", "out")]
    assert [one["every"] for one in about] == [4, 1]
    limited = LearnableFBP(ModelConfig(geometry=COARSE.part(40, 2), window=WindowConfig(kind="frequency")))
    data = {"dir": str(scan), "every": 2, "first_angles": 40}
    save_checkpoint(tmp_path / "limited" / "best", limited, epoch=1, metrics={}, data=data)
    main([*given[2:], "--checkpoint", str(tmp_path / "limited")])
    about = json.loads((tmp_path / "limited" / "evaluation-test" / "evaluation.json").read_text())
    assert (about["every"], about["first_angles"]) == (2, 40)
    sample, whole = LoDoPaB(scan, "test", COARSE, every=2, first_angles=40)[1], LoDoPaB(scan, "test", COARSE)[1]
    assert torch.equal(sample.observation, whole.observation[:40:2])
    with pytest.raises(CheckpointError, match="another geometry"):
        main([*given, "--data.every", "3", "--out", str(tmp_path / "another")])


def test_the_help_says_what_the_fixed_range_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "PSNR-FR and SSIM-FR take the fixed range 1" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--data.dir", "/nowhere"], DataError, "/nowhere"),
        (["--checkpoint", "/nowhere"], FbpRayError, "is no checkpoint"),
        (["--split", "challenge"], FbpRayError, "split"),
        (["--data.samples", "99"], DataError, "99 samples"),
    ],
)
def test_what_cannot_be_evaluated_says_why(
    checkpoint: Path, scan: Path, tmp_path: Path, options: list[str], error: type[Exception], message: str
) -> None:
    given = ["--checkpoint", str(checkpoint), "--data.dir", str(scan), "--out", str(tmp_path / "out"), *options]
    with pytest.raises(error, match=message):
        main(given)
    assert not (tmp_path / "out").exists()


def test_data_of_another_geometry_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    sparse = write_scan(tmp_path / "sparse", COARSE.every(2))
    with pytest.raises(CheckpointError, match="another geometry"):
        main(["--checkpoint", str(checkpoint), "--data.dir", str(sparse), "--out", str(tmp_path / "out")])


def test_without_a_validation_part_the_cutoffs_must_be_given(checkpoint: Path, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "data")
    for file in scan.glob("*_validation_*"):
        file.unlink()
    given = ["--checkpoint", str(checkpoint), "--data.dir", str(scan), "--out", str(tmp_path / "out")]
    with pytest.raises(DataError, match="--hann_psnr C --hann_ssim C"):
        main(given)
    main([*given, "--hann_psnr", "0.6", "--hann_ssim", "0.5"])
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert figures["hann_ssim"]["psnr"] == pytest.approx(figures["learned"]["psnr"], abs=1e-3)


def test_the_best_hann_shares_its_work_over_processes(scan: Path) -> None:
    samples = list(LoDoPaB(scan, "validation", COARSE))

    def pairs_of(chosen: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(samples[k].observation[None], samples[k].ground_truth[None]) for k in chosen]

    whole = best_hann(lambda: pairs_of([0, 1, 2, 3, 4]), COARSE)
    collected: list[torch.Tensor] = []
    best_hann(lambda: pairs_of([0, 1]), COARSE, lambda sums: collected.append(sums.clone()) or sums)
    shared = iter(collected[:1])
    again = best_hann(lambda: pairs_of([2, 3, 4]), COARSE, lambda sums: sums + next(shared, torch.zeros(1)))
    assert abs(whole.psnr - again.psnr) <= 0.1


def test_a_model_in_an_object_store_is_evaluated_there(checkpoint: Path, object_store: str, tmp_path: Path) -> None:
    place = f"{object_store}/{tmp_path.name}-{checkpoint.parent.name}"
    copy_folder(open_folder(checkpoint), open_folder(place) / "best")
    main(["--checkpoint", place, "--split", "test", "--panels", "1"])
    out = tmp_path / "out"
    main(["--checkpoint", str(checkpoint), "--split", "test", "--panels", "1", "--out", str(out)])
    remote = open_folder(place) / "evaluation-test"
    assert json.loads(remote.read("metrics.json")) == json.loads((out / "metrics.json").read_text())
    assert remote.names() == sorted(file.name for file in out.iterdir())
