"""The simulator as a user meets it: the files that it writes, and what it says about options and targets."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from fbp_ray.data import LoDoPaB, describe, electronic_noise_of, geometry_of
from fbp_ray.errors import DataError
from fbp_ray.geometry import ParallelBeam
from fbp_ray.simulate import SimulateConfig, simulate
from fbp_ray.simulate.sources import PARTS, phantoms
from tests.support.simulating import contents, run


class TestPhantoms:
    def test_a_data_folder_is_written(
        self, scan_file: Path, scan: ParallelBeam, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "deep" / "out"
        assert run("--phantoms", 10, "--geometry", scan_file, "--out", out, "--photons", 1024) == 0
        said = capsys.readouterr().out
        assert "Simulating: 10 of 10" in said
        assert "8 train, 1 validation, 1 test samples from phantoms (1024 photons, seed 0)" in said
        assert [path.name for path in out.parent.iterdir()] == ["out"]

        data = LoDoPaB(out, "train", geometry_of(out))
        assert len(data) == 8
        assert geometry_of(out) == scan
        assert len(set((out / "patient_ids_rand_train.csv").read_text().split())) == 8
        for sample in data:
            assert 0 <= sample.ground_truth.min() < 0.01
            assert 0.2 < sample.ground_truth.max() <= 1
            assert sample.observation.max() < 0.1305376

        description = describe(out)
        assert description is not None
        assert description["source"] == "phantoms"
        assert description["photons"] == 1024
        assert description["samples"] == {"train": 8, "validation": 1, "test": 1}
        assert not (out / "ATTRIBUTION.md").exists()
        patients = [set(description["patients"][part].values()) for part in PARTS]
        assert not patients[0] & patients[1]
        assert sum(map(len, patients)) == 10

    def test_the_observation_is_that_of_the_ground_truth(
        self, scan_file: Path, scan: ParallelBeam, tmp_path: Path
    ) -> None:
        simulate(SimulateConfig(phantoms=3, geometry=scan_file, out=tmp_path / "out", photons=1e12))
        observation, image, _ = LoDoPaB(tmp_path / "out", "train", scan)[0]
        # Each angle sees the whole image: its mass is the same from everywhere.
        mass = observation.sum(1) * scan.cell_size
        assert torch.allclose(mass, image.sum() * scan.pixel_size**2, rtol=0.02)
        # At an angle of 0.05 the profile is about the image's sum along y.
        profile = np.interp(scan.x, scan.detector, observation[0].numpy())
        assert np.corrcoef(profile, image.sum(1).numpy())[0, 1] > 0.98

    def test_the_same_seed_writes_the_same_bytes(self, scan_file: Path, tmp_path: Path) -> None:
        threads = torch.get_num_threads()
        for out, seed, used in (("a", 1, threads), ("b", 1, 1 if threads > 1 else 2), ("c", 2, threads)):
            torch.set_num_threads(used)
            try:
                simulate(SimulateConfig(phantoms=5, geometry=scan_file, out=tmp_path / out, seed=seed))
            finally:
                torch.set_num_threads(threads)
        a, b, c = (contents(tmp_path / name) for name in "abc")
        assert a == b
        assert a.keys() == c.keys()
        assert a["observation_train_000.hdf5"] != c["observation_train_000.hdf5"]
        assert a["ground_truth_train_000.hdf5"] != c["ground_truth_train_000.hdf5"]

    def test_electronic_noise_is_known_to_whoever_reads_the_data(self, scan_file: Path, tmp_path: Path) -> None:
        for noise in (0, 8):
            given = ("--phantoms", 3, "--geometry", scan_file, "--out", tmp_path / f"{noise}")
            assert run(*given, "--electronic-noise", noise) == 0
            assert electronic_noise_of(tmp_path / f"{noise}") == noise
        (tmp_path / "8" / "dataset.json").write_text('{"electronic_noise": "some"}')
        with pytest.raises(DataError, match=r"dataset.json has the `electronic_noise` 'some'; it is a standard dev"):
            electronic_noise_of(tmp_path / "8")

    def test_data_of_before_there_was_electronic_noise_are_known_as_the_same(self, tmp_path: Path) -> None:
        assert SimulateConfig(phantoms=3, out=tmp_path).request().keys() == {
            *("sample", "images", "phantoms", "train", "validation", "test", "split", "photons", "seed", "geometry"),
            "simulator",
        }

    def test_files_hold_128_rows_as_the_genuine_ones(self, scan_file: Path, tmp_path: Path, scan: ParallelBeam) -> None:
        out = tmp_path / "out"
        simulate(SimulateConfig(phantoms=130, geometry=scan_file, out=out, split=(1, 0, 0)))
        for kind, shape in (("observation", scan.sinogram_shape), ("ground_truth", scan.image_shape)):
            for number, rows in ((0, 128), (1, 2)):
                with h5py.File(out / f"{kind}_train_{number:03d}.hdf5") as file:
                    assert file["data"].shape == (rows, *shape)
                    assert file["data"].chunks == (1, *shape)
                    assert file["data"].dtype == np.float32
        data = LoDoPaB(out, "train", scan)
        assert len(data) == len(set((out / "patient_ids_rand_train.csv").read_text().split())) == 130
        assert not list(out.glob("*_test_*"))

    def test_phantoms_look_like_a_chest(self) -> None:
        image = phantoms({None: 1}, (200, 200), 0).slices[0].load()
        assert image.shape == (200, 200)
        assert image[0, 0] == -1000
        tissue, air = (image > -150).mean(), ((image > -950) & (image < -700)).mean()
        assert 0.15 < tissue < 0.5
        assert 0.05 < air < 0.35
        assert image.max() > 400


class TestCommandLine:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "choose one of --sample, --images DIR and --phantoms N; got none of them"),
            (["--sample", "--phantoms", "3"], "got --sample and --phantoms"),
            (["--phantoms", "0"], "--phantoms: must be greater than or equal to 1"),
            (["--phantoms", "3", "--photons", "-1"], "--photons: must be greater than 0"),
            (["--phantoms", "3", "--photons", "nan"], "--photons: must be"),
            (["--phantoms", "3", "--seed", "x"], "--seed: must be a whole number"),
            (["--phantoms", "3", "--split", "1,2"], "--split: has too few values"),
            (["--phantoms", "3", "--split", "0,0,0"], "gives no part any patients"),
            (["--phantoms", "3", "--dose", "low"], "--dose: there is no such option"),
            (["--phantoms", "3", "--geometry", "none.json"], "the geometry file none.json cannot be read"),
        ],
    )
    def test_options_that_do_not_hold(
        self, arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("--out", tmp_path / "out", *arguments) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert "Traceback" not in captured.err
        assert not (tmp_path / "out").exists()

    def test_a_geometry_that_cannot_be(
        self, scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        scan_file.write_text('{"cells": 0}')
        assert run("--phantoms", 3, "--geometry", scan_file, "--out", tmp_path / "out") == 2
        assert "does not hold a geometry" in capsys.readouterr().err

    def test_help_explains_each_option(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--help") == 0
        text = capsys.readouterr().out
        for name in SimulateConfig.model_fields:
            assert f"--{name}" in text

    def test_the_environment_is_not_read(
        self, scan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SEED", "7")
        monkeypatch.setenv("seed", "7")
        assert run("--phantoms", 3, "--geometry", scan_file, "--out", tmp_path / "out") == 0
        description = describe(tmp_path / "out")
        assert description is not None
        assert description["seed"] == 0

    def test_the_same_request_again_is_done_already(
        self, scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out"
        out.mkdir()  # an empty folder may be filled
        request = ("--phantoms", 3, "--geometry", scan_file, "--out", out)
        assert run(*request) == 0
        before = contents(out)
        capsys.readouterr()
        assert run(*request) == 0
        assert "holds these data already (phantoms); nothing to do" in capsys.readouterr().out
        assert run(*request, "--seed", 1) == 2
        assert "data of another request; choose another --out" in capsys.readouterr().err
        assert contents(out) == before

    def test_a_target_with_something_else_is_left_alone(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "thesis.tex").write_text("years of work")
        assert run("--phantoms", 3, "--out", tmp_path) == 2
        assert "holds something else; choose another --out, or remove it first" in capsys.readouterr().err
        assert run("--phantoms", 3, "--out", tmp_path / "thesis.tex") == 2
        assert "is a file; choose another --out" in capsys.readouterr().err

    def test_a_target_that_cannot_be_written(
        self, scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("")
        assert run("--phantoms", 3, "--geometry", scan_file, "--out", tmp_path / "file" / "out") == 1
        assert "could not be written" in capsys.readouterr().err

    def test_a_disk_without_room(
        self, scan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=20_000))
        assert run("--phantoms", 6, "--geometry", scan_file, "--out", tmp_path / "deep" / "out") == 1
        assert f"6 samples take 0.00 GB, but the disk of {tmp_path} has" in capsys.readouterr().err
        assert not (tmp_path / "deep").exists()

    def test_it_runs_as_a_module(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "fbp_ray.simulate",
                "--images",
                str(tmp_path / "none"),
                "--out",
                str(tmp_path / "o"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("error: there is no folder ")
        assert done.stderr.count("\n") == 1


def test_reading_and_simulating_need_neither_ray_nor_a_web_server() -> None:
    code = "import sys, fbp_ray.data, fbp_ray.simulate.__main__; print({'ray', 'fastapi'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
