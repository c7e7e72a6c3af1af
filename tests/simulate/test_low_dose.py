"""CT slices with the noise of less dose: how much noise that is, and what else the files say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, RLELossless

from fbp_ray.geometry import ParallelBeam
from fbp_ray.simulate.dicom import hounsfield
from fbp_ray.simulate.low_dose import (
    added_variance,
    estimated_photons,
    line_integrals,
    reconstructed_noise,
    scan_of,
)
from tests.support.simulating import contents, run, write_dicom, write_stacks

SHAPE, PIXEL, RADIUS = (96, 104), 2e-3, 0.085
PHOTONS = 2e4


@pytest.fixture(scope="module")
def disc() -> NDArray[np.float32]:
    """Water in air, in HU."""
    row, column = (np.arange(count) - (count - 1) / 2 for count in SHAPE)
    return np.where(np.hypot(row[:, None], column) * PIXEL < RADIUS, 0, -1000).astype(np.float32)


@pytest.fixture(scope="module")
def geometry() -> ParallelBeam:
    return scan_of(SHAPE, PIXEL)


@pytest.fixture(scope="module")
def integrals(disc: NDArray[np.float32], geometry: ParallelBeam) -> NDArray[np.float64]:
    return line_integrals(disc, geometry)


@pytest.fixture(scope="module")
def noisy(disc: NDArray[np.float32], geometry: ParallelBeam, integrals: NDArray[np.float64]) -> NDArray[np.float32]:
    noise = reconstructed_noise(np.exp(integrals) / PHOTONS, geometry, 1.0, np.random.default_rng(7))
    return np.rint(disc + noise)


def middle(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return image[38:58, 42:62]


def write_disc(path: Path, image: NDArray[np.float32], **tags: Any) -> None:
    stored = (image + 2000).astype(np.uint16)
    size = {"Rows": SHAPE[0], "Columns": SHAPE[1], "PixelSpacing": [1000 * PIXEL] * 2}
    write_dicom(path, **size, RescaleIntercept=-2000, PixelData=stored.tobytes(), **tags)


class TestNoise:
    def test_in_the_middle_of_a_disc_it_is_as_the_theory_of_fbp_says(
        self, geometry: ParallelBeam, integrals: NDArray[np.float64]
    ) -> None:
        """The variance of a pixel: that of a ray, through ramp, window and linear interpolation, over all angles."""
        dose, electronic, cutoff = 0.2, 30.0, 0.8
        p = 2 * RADIUS * 20
        fewer, all_of_them = dose * PHOTONS * math.exp(-p), PHOTONS * math.exp(-p)
        ray = (fewer + electronic**2) / fewer**2 - (all_of_them + electronic**2) / all_of_them**2
        f = np.linspace(0, 0.5, 10001)
        window = np.where(2 * f < cutoff, np.cos(math.pi * f / cutoff) ** 2, 0)
        passed = 2 * np.trapezoid((f * window) ** 2 * (2 + np.cos(2 * math.pi * f)) / 3, f) / PIXEL**2
        expected = math.pi**2 / geometry.num_angles * ray * passed * (1000 / 19.98) ** 2

        variance = added_variance(integrals, PHOTONS, dose, electronic)
        draws = [middle(reconstructed_noise(variance, geometry, cutoff, np.random.default_rng(k))) for k in range(12)]
        assert np.square(draws).mean() == pytest.approx(expected, rel=0.06)
        assert abs(np.mean(draws)) < 0.02 * math.sqrt(expected)

    def test_rays_without_photons_stay_within_bounds(self, geometry: ParallelBeam) -> None:
        integrals = line_integrals(np.full(SHAPE, 60_000, np.float32), geometry)
        assert added_variance(integrals, PHOTONS, 0.25).max() == pytest.approx(1 - 0.25)

    @pytest.mark.parametrize("cutoff", [1.0, 0.7])
    def test_photons_are_told_by_the_noise_and_what_is_added_suits_it_whatever_the_kernel_was(
        self, disc: NDArray[np.float32], geometry: ParallelBeam, integrals: NDArray[np.float64], cutoff: float
    ) -> None:
        own = reconstructed_noise(np.exp(integrals) / PHOTONS, geometry, cutoff, np.random.default_rng(0))
        unit = reconstructed_noise(np.exp(integrals), geometry, 1.0, np.random.default_rng(1))
        photons = estimated_photons(disc + own, unit, PIXEL)
        assert photons is not None
        if cutoff == 1:
            assert photons == pytest.approx(PHOTONS, rel=0.1)
        added = reconstructed_noise(added_variance(integrals, photons, 0.25), geometry, 1.0, np.random.default_rng(2))
        assert middle(added).std() == pytest.approx(math.sqrt(1 / 0.25 - 1) * middle(own).std(), rel=0.15)


class TestFiles:
    def test_nothing_changes_but_the_noise_and_what_the_header_says_of_it(
        self, noisy: NDArray[np.float32], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = tmp_path / "ct"
        filled = noisy.copy()
        filled[:4] = -2000
        write_disc(
            source / "a" / "1.dcm", filled, z=1.0, SeriesDescription="Chest", PatientName="X^Y", SliceThickness=3
        )
        write_disc(source / "a" / "2.dcm", np.full(SHAPE, -1000, np.float32), z=2.0)  # takes its photons from the first
        (source / "notes.txt").write_text("no slice")
        before = contents(source / "a")
        assert run("--images", source, "--like-dose", 0.25, "--out", tmp_path / "quarter") == 0
        said = capsys.readouterr().out
        assert "Adding noise: 2 of 2" in said
        assert "passed over, and not written: 1 x not DICOM" in said
        assert "2 slices with the noise of 25 % of their dose (" in said
        assert "estimated from the image). For research, not for diagnosis." in said
        assert contents(source / "a") == before
        written = sorted(path.relative_to(tmp_path / "quarter") for path in (tmp_path / "quarter").rglob("*.*"))
        assert [path.as_posix() for path in written] == ["a/1.dcm", "a/2.dcm"]
        assert not list(tmp_path.glob(".*"))

        first, second = (pydicom.dcmread(tmp_path / "quarter" / "a" / name) for name in ("1.dcm", "2.dcm"))
        original = pydicom.dcmread(source / "a" / "1.dcm")
        added = hounsfield(first) - filled
        assert not added[:4].any()
        assert middle(added).std() == pytest.approx(math.sqrt(3) * middle(noisy).std(), rel=0.15)
        assert abs(added[4:].mean()) < 0.03 * added.std()
        assert first.SOPInstanceUID == first.file_meta.MediaStorageSOPInstanceUID != original.SOPInstanceUID
        assert first.SeriesInstanceUID == second.SeriesInstanceUID != original.SeriesInstanceUID
        assert first.SOPInstanceUID != second.SOPInstanceUID
        assert first.SourceImageSequence[0].ReferencedSOPInstanceUID == original.SOPInstanceUID
        assert list(first.ImageType) == ["DERIVED", "SECONDARY"]
        assert first.SeriesDescription == "Noise of 25 % dose, research: Chest"
        assert "photons a ray at full dose, estimated from the image" in first.DerivationDescription
        assert "For research, not for diagnosis" in first.DerivationDescription
        changed = {element.keyword for element in first if original.get(element.keyword) != element.value}
        assert changed == {
            *("ImageType", "SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription", "DerivationDescription"),
            *("SourceImageSequence", "PixelData"),
        }

        for out, dose in (("again", 0.25), ("half", 0.5)):
            assert run("--images", source, "--like-dose", dose, "--out", tmp_path / out) == 0
        assert contents(tmp_path / "again" / "a") == contents(tmp_path / "quarter" / "a")
        half = hounsfield(pydicom.dcmread(tmp_path / "half" / "a" / "1.dcm")) - filled
        assert added.std() / half.std() == pytest.approx(math.sqrt((1 / 0.25 - 1) / (1 / 0.5 - 1)), rel=1e-3)

    @pytest.mark.parametrize("kind", ["signed", "big-endian", "compressed", "bare"])
    def test_any_slice_that_is_read_is_written(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "ct" / "1.dcm"
        stored = np.full((30, 26), 20, np.int16)
        stored[0], stored[1], stored[2] = -2048, -7, 2047
        signed = {"PixelRepresentation": 1, "BitsStored": 12, "HighBit": 11, "PixelData": stored.tobytes()}
        write_dicom(path, **signed, RescaleIntercept=0, RescaleSlope=2, SmallestImagePixelValue=-2048)
        image = pydicom.dcmread(path)
        image.add_new("PixelPaddingValue", "US", 65529)  # -7
        image.save_as(path)
        if kind == "compressed":
            image.compress(RLELossless)
            image.save_as(path)
        if kind == "big-endian":
            image.PixelData = stored.astype(">i2").tobytes()
            image.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
            pydicom.dcmwrite(path, image, implicit_vr=False, little_endian=False)
        if kind == "bare":
            whole = path.read_bytes()
            path.write_bytes(whole[whole.index(b"\x08\0\x16\0") :])
        assert run("--images", path.parent, "--like-dose", 0.1, "--photons", 5000, "--out", tmp_path / "out") == 0
        made = pydicom.dcmread(tmp_path / "out" / "1.dcm")
        syntax = ExplicitVRBigEndian if kind == "big-endian" else ExplicitVRLittleEndian
        assert made.file_meta.TransferSyntaxUID == syntax
        pixels = made.pixel_array
        assert (pixels[0] == -2048).all()
        assert (pixels[1] == -7).all()
        assert pixels.max() == 2047  # noise leaves no room above
        assert 2 < pixels[8:-8, 8:-8].std() < 200
        assert "SmallestImagePixelValue" not in made

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--like-dose", "1"], "--like_dose: must be less than 1"),
            (["--like-dose", "0"], "--like_dose: must be greater than 0"),
            (["--like-dose", "nan"], "--like_dose: must be"),
            (["--like-dose", "0.5", "--train", "3"], "--train does not apply"),
            (["--like-dose", "0.5", "--electronic-noise", "3"], "--electronic_noise takes --photons"),
            (["--cutoff", "0.5"], "--cutoff goes with --like_dose"),
            (["--electronic-noise", "-1"], "--electronic_noise: must be greater than or equal to 0"),
            (["--like-dose", "0.5"], "the series of 1.dcm has no noise in soft tissue"),
            (["--like-dose", "0.5", "--out", "{ct}/low"], "lies within --images"),
            (["--like-dose", "0.5", "--out", "{full}"], "is there already; choose another --out"),
            (["--like-dose", "0.5", "--images", "{full}"], "has no CT slice in DICOM (found: 1 x not DICOM)"),
            (["--like-dose", "0.5", "--images", "{stacks}"], "--like_dose takes DICOM files"),
            (["--like-dose", "0.5", "--images", "{ct}/none"], "there is no folder"),
        ],
    )
    def test_what_cannot_be(
        self, arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folders = {name: tmp_path / name for name in ("ct", "full", "stacks")}
        write_dicom(folders["ct"] / "1.dcm")
        write_stacks(folders["stacks"], [])
        folders["full"].mkdir()
        (folders["full"] / "thesis.tex").write_text("years of work")
        given = [argument.format(**folders) for argument in arguments]
        assert run("--images", folders["ct"], "--out", tmp_path / "out", *given) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
        assert [path.name for path in folders["full"].iterdir()] == ["thesis.tex"]

    def test_it_takes_slices(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--phantoms", 3, "--like-dose", 0.5, "--out", tmp_path / "out") == 2
        assert "--like_dose writes CT slices again; give their folder, --images DIR" in capsys.readouterr().err
