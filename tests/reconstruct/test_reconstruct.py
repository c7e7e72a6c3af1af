"""A scan's rows as a volume: the right images in the right places, whatever is killed on the way."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import torch
import zarr
from numpy.typing import NDArray

from fbp_ray.data import LoDoPaB
from fbp_ray.errors import CheckpointError, ConfigError, DataError, FbpRayError, RunError
from fbp_ray.model import LearnableFBP, ModelConfig, fbp
from fbp_ray.reconstruct import main
from fbp_ray.reconstruct.partial import Partial
from fbp_ray.reconstruct.slabs import Slabs
from fbp_ray.stage_settings import PostprocessingConfig, WindowConfig
from tests.support.checkpoints import save_checkpoint
from tests.support.scans import COARSE, write_scan

ROWS = {"train": list(range(3, 9)), "validation": [0, 1, 2, 11], "test": [9, 10]}  # of twelve, in blocks
UNIT = 300.0  # 1/m
WRITTEN = {**ROWS, "train": [3, 9]}  # a block as its first row and the one after its last
HANN = ["--window", "hann", "--cutoff", "0.6"]


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here this process does it, though other tests may have started Ray in it."""
    monkeypatch.setattr("fbp_ray.reconstruct.program._on_ray", lambda config: False)


def describe(folder: Path, **more: Any) -> None:
    about = {"geometry": COARSE.model_dump(mode="json"), **more}
    (folder / "dataset.json").write_text(json.dumps(about))


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts = {part: len(rows) for part, rows in ROWS.items()}
    folder = write_scan(tmp_path_factory.mktemp("data") / "scan", **counts)
    for file in folder.glob("ground_truth_*"):
        file.unlink()
    describe(folder, rows=WRITTEN, photons=1000, row_size=0.004, unit=UNIT)
    return folder


@pytest.fixture(scope="module")
def expected(scan: Path) -> NDArray[np.float32]:
    volume = np.empty((12, *COARSE.image_shape), np.float32)
    for part, rows in ROWS.items():
        for sample, row in zip(LoDoPaB(scan, part, COARSE, truth=False), rows, strict=True):
            volume[row] = fbp(sample.observation, COARSE, "hann", 0.6).numpy() * UNIT
    return volume


def reconstruct(scan: Path, out: Path, *more: object) -> Path:
    main([*HANN, "--data.dir", str(scan), "--out", str(out), *map(str, more)])
    return out


def read(volume: Path) -> NDArray[np.float32]:
    if volume.suffix == ".tif":
        return tifffile.imread(volume)
    if volume.suffix == ".h5":
        with h5py.File(volume) as file:
            return np.asarray(file["data"])
    return np.asarray(zarr.open_array(volume, mode="r"))


def contents(volume: Path) -> dict[str, bytes]:
    files = [volume] if volume.is_file() else [file for file in volume.rglob("*") if file.is_file()]
    return {str(file.relative_to(volume)): file.read_bytes() for file in files}


@pytest.mark.parametrize("ending", ["tif", "h5", "zarr"])
def test_a_volume_has_the_rows_in_the_scans_order_and_goes_on_after_a_failure(
    ending: str, scan: Path, expected: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = reconstruct(scan, tmp_path / f"whole.{ending}", "--slab", 5)
    np.testing.assert_allclose(read(whole), expected, rtol=1e-4, atol=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == [whole.name]

    again, put, done = tmp_path / f"again.{ending}", Slabs._put, []

    def torn(self: Slabs, slab: int, images: NDArray[np.float32]) -> int:
        if slab == 1:
            self.write(5, images[:3] * 7)  # a part of it, and that wrong
            raise OSError(28, "No space left on device")
        done.append(slab)
        return put(self, slab, images)

    with monkeypatch.context() as patch:
        patch.setattr(Slabs, "_put", torn)
        with pytest.raises(RunError, match=r"No space left.*the same command to go on"):
            reconstruct(scan, again, "--slab", 5)
    assert not again.exists()
    with pytest.raises(RunError, match=r"is of another command: a volume in slabs of another size \(--slab\)"):
        reconstruct(scan, again, "--slab", 4)
    monkeypatch.setattr(Slabs, "_put", lambda self, slab, images: done.append(slab) or put(self, slab, images))
    reconstruct(scan, again, "--slab", 5)
    assert done == [0, 1, 2]
    assert contents(again) == contents(whole)
    reconstruct(scan, again, "--slab", 5)  # it is there: nothing is done
    assert done == [0, 1, 2]
    with pytest.raises(RunError, match="was made by another command"):
        reconstruct(scan, again, "--slab", 5, "--rows", "0:3")


def test_a_scan_that_would_fill_the_memory_is_not_kept_there(
    scan: Path, expected: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go: list[int] = []
    monkeypatch.setattr("fbp_ray.reconstruct.rows.available_bytes", lambda: 12 * 1000)
    monkeypatch.setattr("fbp_ray.reconstruct.rows.keep_no_copy", let_go.append)
    volume = reconstruct(scan, tmp_path / "volume.h5", "--slab", 5)
    np.testing.assert_allclose(read(volume), expected, rtol=1e-4, atol=1e-3)
    assert len(let_go) >= 3  # slabs


def test_kill_9_in_the_middle_and_the_same_command_again_give_the_same_bytes(scan: Path, tmp_path: Path) -> None:
    """The process is killed with half a slab on the disk."""
    whole = reconstruct(scan, tmp_path / "whole.h5", "--slab", 5)
    killed = tmp_path / "killed.h5"
    code = f"""
import os, signal
from fbp_ray.reconstruct import main, slabs
put = slabs.Slabs._put
def half(self, slab, images):
    if slab == 1:
        self.write(5, images[:2])
        os.kill(os.getpid(), signal.SIGKILL)
    return put(self, slab, images)
slabs.Slabs._put = half
main({[*HANN, "--data.dir", str(scan), "--out", str(killed), "--slab", "5"]})
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert Partial(killed).done() == {0}
    assert not killed.exists()
    reconstruct(scan, killed, "--slab", 5)
    assert contents(killed) == contents(whole)


def test_rows_and_parts_are_chosen_by_the_scans_numbers(scan: Path, expected: Any, tmp_path: Path) -> None:
    some = reconstruct(scan, tmp_path / "some.tif", "--rows", "2:11:3")
    np.testing.assert_allclose(read(some), expected[2:11:3], rtol=1e-4, atol=1e-3)
    with tifffile.TiffFile(some) as file:
        about = json.loads(file.pages.first.description)
        across = file.pages.first.tags["XResolution"].value
    assert about["rows"] == [[2, 3], [5, 6], [8, 9]]
    assert about["unit"] == "1/m"
    assert about["voxel_size_m"] == [3 * 0.004, COARSE.pixel_size, COARSE.pixel_size]
    assert about["geometry"] == COARSE.model_dump(mode="json")
    assert across[0] / across[1] == pytest.approx(0.01 / COARSE.pixel_size)
    part = reconstruct(scan, tmp_path / "part.h5", "--part", "validation")
    np.testing.assert_allclose(read(part), expected[[0, 1, 2, 11]], rtol=1e-4, atol=1e-3)
    one = reconstruct(scan, tmp_path / "one.h5", "--rows", "7")
    np.testing.assert_allclose(read(one), expected[7:8], rtol=1e-4, atol=1e-3)


def test_a_checkpoint_reconstructs_as_its_model_does(scan: Path, tmp_path: Path) -> None:
    """Also one by noise, with the photons of the data, and one with a network, which takes the images one by one."""
    window = WindowConfig(kind="ray_noise", init="hann", cutoff=0.5, photons=4000.0)
    network = PostprocessingConfig(kind="tiny", channels=4, dilations=(1,))
    torch.manual_seed(0)
    model = LearnableFBP(ModelConfig(geometry=COARSE, window=window, postprocessing=network))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    save_checkpoint(tmp_path / "run" / "best", model)
    given = ["--checkpoint", str(tmp_path / "run"), "--data.dir", str(scan), "--rows", "9:11"]
    main([*given, "--out", str(tmp_path / "a.h5")])
    told = LearnableFBP(model.config.model_copy(update={"window": window.model_copy(update={"photons": 1000.0})}))
    told.load_state_dict(model.state_dict())
    sinograms = torch.stack([sample.observation for sample in LoDoPaB(scan, "test", COARSE, truth=False)])
    with torch.no_grad():
        images = told.eval()(sinograms).numpy() * UNIT
        assert np.abs(images - model.eval()(sinograms).numpy() * UNIT).max() > 0.05
    np.testing.assert_allclose(read(tmp_path / "a.h5"), images, rtol=1e-4, atol=1e-3)

    silent = shutil.copytree(scan, tmp_path / "silent")
    describe(silent, rows=ROWS, unit=UNIT)
    given[3] = str(silent)
    with pytest.raises(ConfigError, match=r"has no `photons`; .* --photons N, .* --photons estimate"):
        main([*given, "--out", str(tmp_path / "b.h5")])
    main([*given, "--out", str(tmp_path / "b.h5"), "--photons", "1000"])
    assert np.array_equal(read(tmp_path / "b.h5"), read(tmp_path / "a.h5"))


def another_geometry(scan: Path, tmp_path: Path) -> list[str]:
    save_checkpoint(tmp_path / "best", LearnableFBP(ModelConfig(geometry=COARSE.every(2))))
    return ["--checkpoint", str(tmp_path), "--data.dir", str(scan), "--out", str(tmp_path / "out.h5")]


def twice(scan: Path, tmp_path: Path) -> list[str]:
    folder = shutil.copytree(scan, tmp_path / "twice")
    describe(folder, rows={**ROWS, "test": [9, 0]})
    return [*HANN, "--data.dir", str(folder), "--out", str(tmp_path / "out.h5")]


def too_few(scan: Path, tmp_path: Path) -> list[str]:
    folder = shutil.copytree(scan, tmp_path / "few")
    describe(folder, rows={**ROWS, "test": [9]})
    return [*HANN, "--data.dir", str(folder), "--out", str(tmp_path / "out.h5")]


def no_rows_said(scan: Path, tmp_path: Path) -> list[str]:
    folder = shutil.copytree(scan, tmp_path / "unknown")
    describe(folder)
    return [*HANN, "--data.dir", str(folder), "--out", str(tmp_path / "out.h5")]


def something_else(scan: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "out.h5").write_text("a letter")
    return [*HANN, "--data.dir", str(scan), "--out", str(tmp_path / "out.h5")]


def folder_in_the_way(scan: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "out.h5.partial").mkdir()
    (tmp_path / "out.h5.partial" / "letter").write_text("")
    return [*HANN, "--data.dir", str(scan), "--out", str(tmp_path / "out.h5")]


def plain(*options: str) -> Callable[[Path, Path], list[str]]:
    return lambda scan, tmp_path: [*HANN, "--data.dir", str(scan), "--out", str(tmp_path / "out.h5"), *options]


@pytest.mark.parametrize(
    ("command", "error", "message"),
    [
        (plain("--out", "volume.nii"), ConfigError, r"--out: must end with .tif, .tiff, .h5, .hdf5 or .zarr"),
        (plain("--out", "s3://bucket/volume.h5"), ConfigError, "must be a path on a disk"),
        (plain("--rows", "0:13"), DataError, "asks for rows from 0 to 12, .* has 0 to 11"),
        (plain("--rows", "5:5"), DataError, "asks for rows from 5 to 4"),
        (plain("--rows=-1:3"), ConfigError, "must be one row, or FIRST:END"),
        (plain("--rows", "0:3:0"), ConfigError, "must be one row, or FIRST:END"),
        (plain("--part", "test", "--rows", "0:3"), DataError, "has 9 to 10"),
        (plain("--checkpoint", "chest-low-dose"), ConfigError, "give either --checkpoint RUN, or --window"),
        (plain("--photons", "5"), ConfigError, "photons are for the window of a --checkpoint"),
        (plain("--data.dir", "/nowhere"), DataError, "there is no data folder /nowhere"),
        (another_geometry, CheckpointError, "was trained for another geometry"),
        (twice, DataError, "has the row 0 twice, as sample 0 of validation and 1 of test"),
        (too_few, DataError, "lists 1 rows of the test part, which has 2 samples"),
        (no_rows_said, DataError, r"does not say which rows .* choose one of them: --part test"),
        (something_else, RunError, "exists and is no volume of this program"),
        (folder_in_the_way, RunError, "holds something else than a volume in the making"),
    ],
)
def test_what_cannot_be_reconstructed_says_why(
    command: Callable[[Path, Path], list[str]], error: type[FbpRayError], message: str, scan: Path, tmp_path: Path
) -> None:
    words = command(scan, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(error, match=message):
        main(words)
    assert contents(tmp_path) == before


def test_a_volume_larger_than_the_disk_or_a_slab_larger_than_the_memory_is_refused(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(RunError, match=r"needs 1.15 MB more, and the disk has 1 kB left; make room"):
        reconstruct(scan, tmp_path / "new" / "a.zarr")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    monkeypatch.setattr("fbp_ray.reconstruct.slabs.available_bytes", lambda: 200_000)
    with pytest.raises(RunError, match=r"12 rows at a time take about 897 kB of memory, and 200 kB are free.*--slab 1"):
        reconstruct(scan, tmp_path / "a.h5")


def test_two_at_the_same_volume_and_data_that_changed_are_refused(scan: Path, tmp_path: Path) -> None:
    from fbp_ray.cli import parse
    from fbp_ray.reconstruct import ReconstructConfig
    from fbp_ray.reconstruct.plan import make_plan

    data = shutil.copytree(scan, tmp_path / "data")
    words = [*HANN, "--data.dir", str(data), "--out", str(tmp_path / "a.h5")]
    plan = make_plan(parse(ReconstructConfig, words, ""))
    with Partial(tmp_path / "a.h5").begun(plan), pytest.raises(RunError, match="another process is at"):
        main(words)
    with pytest.raises(RunError, match="no cluster"), Partial(tmp_path / "b.h5").begun(plan):
        raise RunError("no cluster")
    assert not (tmp_path / "b.h5.partial").exists()  # nothing of it was done
    (data / "observation_test_000.hdf5").touch()
    with pytest.raises(RunError, match="of these data as they were before they changed"):
        main(words)
