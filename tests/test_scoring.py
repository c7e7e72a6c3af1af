"""Scores by the data set's protocol, and submissions to its challenge."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from fbp_ray.baseline import Baseline
from fbp_ray.checkpoint import load_model
from fbp_ray.cli import on_recipe
from fbp_ray.config import TrainConfig
from fbp_ray.data import describe
from fbp_ray.errors import CheckpointError, ConfigError, DataError, GeometryError, RunError
from fbp_ray.evaluate import main
from fbp_ray.evaluate.submission import main as check
from fbp_ray.evaluate.submission import write_submission
from fbp_ray.filters import WindowConfig
from fbp_ray.geometry import ParallelBeam
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.pictures import window_figure
from fbp_ray.report.published import IMAGES, PUBLISHED, Published
from tests.support.checkpoints import save_checkpoint
from tests.support.scans import COARSE, write_scan

Files = dict[str, bytes]

pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for the data set: a test part of two patients, and a challenge of 130 observations in two files."""
    folder = write_scan(tmp_path_factory.mktemp("scan") / "data")
    (folder / "patient_ids_rand_test.csv").write_text("7\n9\n7\n9\n")
    for number, rows in enumerate((128, 2)):
        with h5py.File(folder / f"observation_challenge_{number:03d}.hdf5", "w") as file:
            noise = np.random.default_rng(number).random((rows, *COARSE.sinogram_shape), np.float32)
            file.create_dataset("data", data=0.05 * noise)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, scan: Path) -> str:
    model = LearnableFBP(ModelConfig(geometry=COARSE, window=WindowConfig(kind="frequency", init="hann", cutoff=0.5)))
    folder = tmp_path_factory.mktemp("run")
    save_checkpoint(folder / "best", model, epoch=1, metrics={}, data={"dir": str(scan)})
    return str(folder)


def test_the_protocol_scores_by_patient_beside_what_was_published(
    scan: Path, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--checkpoint", run, "--hann_psnr", "0.6", "--hann_ssim", "0.5", "--panels", "0"]
    main([*given, "--protocol", "lodopab", "--out", str(tmp_path / "out")])
    said = " ".join(capsys.readouterr().out.split())
    assert "test part, 4 images of 2 patients" in said
    assert "bootstrap over patients (2000 draws, seed 0)" in said
    assert "FBP + U-Net (published)" in said
    assert "not comparable: these are other images" in said
    assert all(row.source.split()[-1] in said for row in PUBLISHED)
    with (tmp_path / "out" / "images.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "learned"]
    assert [row["patient"] for row in rows] == ["7", "9", "7", "9"]
    about = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    by_patient = [np.mean([float(row["psnr"]) for row in rows[first::2]]) for first in (0, 1)]
    assert about["intervals_95"]["learned"]["psnr"] == pytest.approx(sorted(by_patient))  # of two patients: the two
    with pytest.raises(ConfigError, match=r"leave out data.samples"):
        main([*given, "--protocol", "lodopab", "--data.samples", "2"])


def test_the_protocol_needs_whose_each_image_is(run: str, tmp_path: Path) -> None:
    folder = write_scan(tmp_path / "data")
    given = ["--checkpoint", run, "--data.dir", str(folder), "--protocol", "lodopab", "--out", str(tmp_path / "out")]
    with pytest.raises(DataError, match=r"no patient_ids_rand_test.csv.*add the file.* or leave out --protocol"):
        main(given)
    for lines in (5, 3):
        (folder / "patient_ids_rand_test.csv").write_text("1\n" * lines)
        with pytest.raises(DataError, match=f"{lines} lines, but there are 4 samples"):
            main(given)
    assert not (tmp_path / "out").exists()
    main([*given[:4], *given[6:], "--hann_psnr", "0.6", "--hann_ssim", "0.5", "--panels", "0"])
    assert "patient" not in (tmp_path / "out" / "images.csv").read_text()


def test_every_published_figure_has_its_source() -> None:
    assert {row.on for row in PUBLISHED} == IMAGES.keys()
    row = PUBLISHED[0].model_dump()
    for source in ("", "somebody said so"):
        with pytest.raises(ValidationError, match="source"):
            Published(**{**row, "source": source})
    with pytest.raises(ValidationError, match="source"):
        Published(**{name: value for name, value in row.items() if name != "source"})


def test_a_submission_is_written_whole_and_is_not_overwritten(scan: Path, run: str, tmp_path: Path) -> None:
    path = tmp_path / "mine" / "submission.zip"
    given = ["--checkpoint", run, "--submission", str(path)]
    main(given)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["reco_000.hdf5", "reco_001.hdf5"]
        with h5py.File(io.BytesIO(archive.read("reco_001.hdf5")), "r") as file:
            assert (file["data"].shape, file["data"].dtype) == ((128, 47, 47), np.float32)
    check(["--file", str(path), "--data.dir", str(scan)])
    before = path.read_bytes()
    with pytest.raises(RunError, match="--overwrite replaces it"):
        main(given)
    bad = iter([np.full((1, 47, 47), np.nan, np.float32)])
    with pytest.raises(DataError, match="image 0 has values that are NaN or infinite"):
        write_submission(path, bad, 1, (47, 47), overwrite=True)
    assert [file.name for file in path.parent.iterdir()] == ["submission.zip"]
    assert path.read_bytes() == before
    main([*given, "--overwrite"])


def test_the_genuine_challenge_has_so_many_observations(run: str, scan: Path, tmp_path: Path) -> None:
    genuine = tmp_path / "genuine"
    genuine.mkdir()
    whole = ParallelBeam.lodopab()
    model = LearnableFBP(ModelConfig(geometry=whole, window=WindowConfig()))
    save_checkpoint(tmp_path / "run" / "best", model, epoch=1, metrics={}, data={"dir": str(genuine)})
    options = ["--submission", str(tmp_path / "file.zip"), "--checkpoint"]
    with pytest.raises(DataError, match="has no observation_challenge"):
        main([*options, str(tmp_path / "run")])
    with h5py.File(genuine / "observation_challenge_000.hdf5", "w") as file:
        file.create_dataset("data", shape=(2, *whole.sinogram_shape), dtype=np.float32)
    with pytest.raises(DataError, match="has 2 observations of the challenge, which has 3678; add the files"):
        main([*options, str(tmp_path / "run")])
    with pytest.raises(CheckpointError, match="another geometry"):
        main([*options, run, "--data.dir", str(genuine)])
    assert not (tmp_path / "file.zip").exists()


def hdf5(data: NDArray[Any], name: str = "data") -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset(name, data=data)
    return content.getvalue()


def put(row: int, value: float) -> Callable[[Files], Files]:
    def change(files: Files) -> Files:
        images = np.random.default_rng(0).random((128, 47, 47), np.float32)
        images[row] = value
        return {**files, "reco_000.hdf5": hdf5(images)}

    return change


def second(data: NDArray[Any], name: str = "data") -> Callable[[Files], Files]:
    return lambda files: {**files, "reco_001.hdf5": hdf5(data, name)}


ONES = np.ones((128, 47, 47), np.float32)
BROKEN: dict[str, tuple[Callable[[Files], Files], str]] = {
    "missing": (lambda files: {"reco_000.hdf5": files["reco_000.hdf5"]}, "reco_001.hdf5: is missing.* 128 to 129"),
    "extra": (lambda files: {**files, "reco_002.hdf5": b""}, "reco_002.hdf5: expected reco_000.hdf5 to reco_001.hdf5"),
    "folder": (lambda files: {f"mine/{name}": content for name, content in files.items()}, "mine/reco_000.*zip -j"),
    "name": (lambda files: {name.replace("reco", "r"): content for name, content in files.items()}, "r_000.*leave it"),
    "nan": (put(5, np.nan), r"reco_000.hdf5: image 5 \(row 5\) has 2209 values that are NaN or infinite"),
    "infinite": (put(127, np.inf), r"image 127 \(row 127\) has 2209 values that are NaN or infinite"),
    "zero": (put(9, 0), r"image 9 \(row 9\) is zero throughout"),
    "dtype": (second(ONES.astype(np.float64)), r"`data` \(128, 47, 47\) float64, expected .*float32; convert it"),
    "shape": (second(ONES[:, :46]), r"`data` \(128, 46, 47\) float32, expected `data` \(128, 47, 47\)"),
    "data set": (second(ONES, "images"), "has 'images', expected `data`"),
    "rows": (second(ONES[:1]), r"`data` \(1, 47, 47\) float32, but 2 of its rows count; add the images from 129 on"),
    "too many": (second(np.ones((129, 47, 47), np.float32)), "128 images a file"),
    "cut short": (lambda files: {**files, "reco_001.hdf5": files["reco_001.hdf5"][:3000]}, "cannot be read as HDF5"),
    "empty": (lambda files: {**files, "reco_001.hdf5": b""}, "cannot be read as HDF5"),
    "huge": (lambda files: {**files, "reco_001.hdf5": bytes(10**7)}, "unpacks to 10000000 bytes"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The files of a submission of random images, whose spare rows are nan."""
    path = tmp_path_factory.mktemp("submission") / "random.zip"
    random = np.random.default_rng(0)
    write_submission(path, (random.random((10, 47, 47), np.float32) for _ in range(13)), 130, (47, 47), overwrite=False)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path: Path, files: Files) -> list[str]:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return ["--file", str(path)]


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_with_a_submission_is_named(scan: Path, files: Files, tmp_path: Path, kind: str) -> None:
    change, message = BROKEN[kind]
    options = zipped(tmp_path / "file.zip", change(files))
    with pytest.raises(DataError, match=f"no submission of 130 images:(.|\n)*{message}"):
        check([*options, "--data.dir", str(scan)])


def test_an_archive_that_is_none_is_named(scan: Path, files: Files, tmp_path: Path) -> None:
    path, there = tmp_path / "file.zip", ["--data.dir", str(scan)]
    options = zipped(path, files)
    check([*options, *there])
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("reco_000.hdf5", files["reco_000.hdf5"])
    with pytest.raises(DataError, match=r"reco_000.hdf5: is there 2 times, expected once"):
        check([*options, *there])
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="is no zip file, or is cut short"):
        check([*options, *there])
    path.unlink()
    with pytest.raises(DataError, match=r"cannot be read.*name the zip file with --file"):
        check([*options, *there])


def test_the_first_angles_are_a_scan_of_their_own() -> None:
    part = COARSE.part(40, 2)
    assert part.theta.tolist() == COARSE.theta[:40:2].tolist()
    assert COARSE.part(None, 1) == COARSE.part(60, 1) == COARSE
    with pytest.raises(GeometryError, match="first 61 angles were asked for, of a scan that has 60"):
        COARSE.part(61, 1)


def test_the_window_is_shown_beside_the_hanns_that_it_is_compared_with() -> None:
    for kind in ("frequency", "ray_noise"):
        stage = LearnableFBP(ModelConfig(geometry=COARSE, window=WindowConfig(kind=kind, photons=1000.0))).filter
        figure = window_figure(stage, COARSE.cells, [0.52, 0.74])
        assert figure is not None
        said = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert {"hann 0.52, compared", "hann 0.74, compared"} <= set(said)
        assert not any("0.641" in text for text in said)


def test_a_model_for_one_number_of_photons_is_scored_with_it(tmp_path: Path, run: str) -> None:
    folder = write_scan(tmp_path / "data")
    described = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**described, "photons": 1000.0}))
    model = load_model(run)
    data = {"dir": str(folder), "photons": [300.0, 300.0], "description": describe(folder)}
    save_checkpoint(tmp_path / "run" / "best", model, epoch=1, metrics={}, data=data)
    known = Baseline(hann_psnr=1, hann_ssim=1, hann_psnr_cutoff=0.44, hann_ssim_cutoff=0.34)
    (tmp_path / "run" / "baseline.json").write_text(known.model_dump_json())
    given = ["--panels", "0", "--data.dir", str(folder), "--checkpoint"]
    main([*given, str(tmp_path / "run"), "--out", str(tmp_path / "few")])
    main([*given, run, "--out", str(tmp_path / "all"), "--hann_psnr", "0.5", "--hann_ssim", "0.5"])
    few, whole = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("few", "all"))
    assert (few["photons"], few["hann_psnr_cutoff"]) == ([300, 300], 0.44)  # the run's: of this noise
    assert whole["photons"] is None
    ramps = [json.loads((tmp_path / name / "metrics.json").read_text())["ramp"]["psnr"] for name in ("few", "all")]
    assert ramps[1] - ramps[0] > 10 * np.log10(1 / 0.3) - 0.2  # three tenths of the photons, or noisier still
    main([*given, str(tmp_path / "run"), "--out", str(tmp_path / "more"), "--data.photons", "400", "600"])
    more = json.loads((tmp_path / "more" / "evaluation.json").read_text())
    assert more["photons"] == [400, 600]
    assert more["hann_psnr_cutoff"] != 0.44


@pytest.mark.parametrize(
    ("recipe", "data"),
    [
        ("lodopab-sparse", {"every": 5}),
        ("lodopab-limited", {"first_angles": 667}),
        ("lodopab-low-photon", {"photons": (512.0, 512.0)}),
    ],
)
def test_the_recipes_for_other_scans_differ_in_the_scan_alone(recipe: str, data: dict[str, Any]) -> None:
    usual = on_recipe(TrainConfig, {"recipe": "lodopab-window"})
    other = on_recipe(TrainConfig, {"recipe": recipe})
    assert other == usual.model_copy(update={"recipe": recipe, "data": usual.data.model_copy(update=data)})
