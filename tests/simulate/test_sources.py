"""Scans from DICOM files and .npz stacks, and their division into parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from pydicom.uid import MPEG2MPML, JPEGLosslessSV1, SecondaryCaptureImageStorage

from fbp_ray.data import LoDoPaB, describe, geometry_of
from fbp_ray.data.layout import MU_MAX
from fbp_ray.errors import ConfigError, DataError
from fbp_ray.geometry import ParallelBeam
from fbp_ray.simulate.dicom import dicom_folder
from fbp_ray.simulate.sources import PARTS, Slice, Source, divide, stack_folder
from tests.support.simulating import entry, run, write_dicom, write_stacks


class TestStacks:
    def test_the_split_of_the_index_is_kept(self, scan_file: Path, tmp_path: Path) -> None:
        entries = [entry("a.npz", "test", "A"), entry("b.npz", "train", "B"), entry("c.npz", "train", "C")]
        folder = write_stacks(tmp_path / "ct", entries)
        assert run("--images", folder, "--geometry", scan_file, "--out", tmp_path / "out", "--train", 3) == 0
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
        parts = divide(source, (2, 1, 1), {}, 0)
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
        assert "0.split: must be 'train', 'validation' or 'test'" in message()
        (folder / "index.json").write_text(json.dumps([entry("a.npz", "train"), entry("a.npz")]))
        assert "in every entry, or in none" in message()
        (folder / "index.json").write_text("{")
        assert "is not JSON" in message()
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
        self, scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = write_stacks(tmp_path / "ct", [entry("a.npz", "train")], np.full((2, 30, 26), np.nan))
        assert run("--images", folder, "--geometry", scan_file, "--out", tmp_path / "out") == 2
        said = capsys.readouterr()
        assert "2 of 2 slices have values that are NaN or infinite: a.npz[0], a.npz[1]; take" in said.err
        assert "Simulating" not in said.out
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

    def test_the_image_is_the_slice_transposed(self, scan_file: Path, scan: ParallelBeam, tmp_path: Path) -> None:
        write_dicom(tmp_path / "ct" / "1.dcm", -1000, "Jane Doe")
        out = tmp_path / "out"
        assert run("--images", tmp_path / "ct", "--geometry", scan_file, "--out", out, "--split", "0,0,1") == 0
        image = LoDoPaB(out, "test", scan)[0].ground_truth
        # 30 rows and 26 columns become 24 x 20 pixels: 1 column and 5 rows are cut off at the start.
        assert torch.argwhere(image > 0.1).tolist() == [[7 - 1, 5 - 5]]
        assert image.max() * MU_MAX == pytest.approx(20 + 9.99, abs=0.021)
        assert "Jane" not in (out / "dataset.json").read_text()

    @pytest.mark.parametrize(
        ("tags", "message"),
        [
            ({"NumberOfFrames": 3}, r"found: 1 x CT of several frames \(split them"),
            ({"SamplesPerPixel": 3}, r"has no CT slice in DICOM \(found: 1 x CT in colour\)"),
            ({"PhotometricInterpretation": "PALETTE COLOR"}, "found: 1 x CT in colour"),
            ({"RescaleSlope": None}, "found: 1 x CT whose values are not in HU"),
            ({"RescaleSlope": "0.0"}, "found: 1 x CT whose values are not in HU"),
            ({"RescaleType": "ED"}, "found: 1 x CT whose values are not in HU"),
            ({"BitsAllocated": 8}, "found: 1 x CT whose values are not in HU"),
            ({"SOPClassUID": SecondaryCaptureImageStorage}, "found: 1 x CT whose values are not in HU"),
            ({"PixelSpacing": [0.7, 0.9]}, "found: 1 x CT whose pixels are not square"),
            ({"PixelData": None}, r"found: 1 x damaged or cut short \(the first is 1.dcm: "),
            ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "found: 1 x CT that is not axial"),
            ({"ImageOrientationPatient": [1, 0, 0, 0, 0.87, -0.5]}, "found: 1 x CT that is not axial"),
            ({"ImageOrientationPatient": None}, "found: 1 x CT that does not say that it is axial"),
            (
                {"ImageOrientationPatient": None, "ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]},
                "found: 1 x CT that does not say that it is axial",
            ),
            ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "found: 1 x CT whose values are not in HU"),
            ({"RescaleType": "US"}, "found: 1 x CT whose values are not in HU"),
            ({"PixelSpacing": [0, 0]}, "found: 1 x CT without the size of its pixels"),
            ({"PixelSpacing": None}, "found: 1 x CT without the size of its pixels"),
            ({"Modality": "MR"}, r"has no CT slice in DICOM \(found: 1 x MR\)"),
            ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, r"found: 1 x CT without axial pixels"),
        ],
    )
    def test_other_images(self, tmp_path: Path, tags: dict[str, Any], message: str) -> None:
        write_dicom(tmp_path / "1.dcm", **tags)
        with pytest.raises(DataError, match=message):
            dicom_folder(tmp_path)

    def test_without_an_orientation_the_image_type_may_say_axial(self, tmp_path: Path) -> None:
        write_dicom(tmp_path / "1.dcm", ImageOrientationPatient=None, ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])
        assert len(dicom_folder(tmp_path).slices) == 1

    @pytest.mark.parametrize("tag", [b"\x08\0\x60\0", b"\x28\0\x10\0", b"\x28\0\x53\x10"])
    def test_a_file_that_ends_within_its_header_is_cut_short(self, tmp_path: Path, tag: bytes) -> None:
        write_dicom(tmp_path / "1.dcm")
        whole = (tmp_path / "1.dcm").read_bytes()
        (tmp_path / "1.dcm").write_bytes(whole[: whole.index(tag)])  # before Modality, Rows and RescaleSlope
        with pytest.raises(DataError, match=r"found: 1 x damaged or cut short \(the first is 1.dcm: "):
            dicom_folder(tmp_path)

    def test_what_is_no_axial_slice_in_hu_is_passed_over_and_counted(
        self, scan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "ct"
        for number, patient in enumerate("AABC"):
            write_dicom(folder / f"{number}.dcm", patient=patient, z=2.5 * number)
        write_dicom(folder / "tilted.dcm", patient="C", ImageOrientationPatient=[1, 0, 0, 0, 0.9962, -0.0872])
        write_dicom(folder / "screenshot.dcm", RescaleSlope=None)
        write_dicom(folder / "colour.dcm", SamplesPerPixel=3)
        for number, column in enumerate(([0, 0, -1], [0, 0, 1])):
            write_dicom(folder / f"coronal {number}.dcm", ImageOrientationPatient=[1, 0, 0, *column])
        whole = (folder / "0.dcm").read_bytes()
        (folder / "notes.txt").write_bytes(whole[256:])
        out = tmp_path / "out"
        assert run("--images", folder, "--geometry", scan_file, "--out", out, "--split", "2,0,1") == 0
        said = capsys.readouterr().out
        assert (
            "Found 5 slices of 3 patients (DICOM files); passed over: 1 x CT in colour, 2 x CT that is not axial, "
            "1 x CT whose values are not in HU, 1 x not DICOM\n"
        ) in said
        assert "of 2 patients\n" in said
        assert "of 1 patient\n" in said

    def test_links_to_folders_are_followed(self, tmp_path: Path) -> None:
        write_dicom(tmp_path / "elsewhere" / "1.dcm", 1)
        write_dicom(tmp_path / "ct" / "2.dcm", 2, z=1.0)
        (tmp_path / "ct" / "linked").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "ct" / "again").symlink_to(tmp_path / "ct")
        (tmp_path / "ct" / "gone").symlink_to(tmp_path / "nowhere")
        assert [piece.name for piece in dicom_folder(tmp_path / "ct").slices] == ["linked/1.dcm", "2.dcm"]

    def test_a_compression_that_cannot_be_decoded(self, tmp_path: Path) -> None:
        write_dicom(tmp_path / "1.dcm")
        image = pydicom.dcmread(tmp_path / "1.dcm")
        image.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        image.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
        image["PixelData"].is_undefined_length = True
        image.save_as(tmp_path / "1.dcm")
        with pytest.raises(DataError, match=r"1 x CT compressed as JPEG Lossless.*gdcmconv --raw.*-m pip install"):
            dicom_folder(tmp_path)
        image.file_meta.TransferSyntaxUID = MPEG2MPML
        image.save_as(tmp_path / "1.dcm")
        with pytest.raises(DataError, match="1 x CT compressed as MPEG2"):
            dicom_folder(tmp_path)

    def test_what_cannot_be_read_to_the_end_stops_nothing(self, tmp_path: Path) -> None:
        write_dicom(tmp_path / "1.dcm", 7, z=-7.25)
        whole = (tmp_path / "1.dcm").read_bytes()
        (tmp_path / "2 copy.dcm").write_bytes(whole)
        (tmp_path / "3.dcm").write_bytes(whole[:-100])
        (tmp_path / "4.dcm").write_bytes(whole.replace(b"-7.25", b"-7x25"))
        (tmp_path / "5.dcm").write_bytes(b"\x08\0 some text that begins like DICOM")
        source = dicom_folder(tmp_path)
        assert [piece.name for piece in source.slices] == ["1.dcm"]
        damaged, count = source.passed_over.popitem()
        assert damaged.startswith("damaged or cut short (the first is 3.dcm: ")
        assert count == 2
        assert source.passed_over == {"CT slice that is there already": 1, "no modality": 1}

    @pytest.mark.parametrize("kept", ["neither", "file meta", "preamble"])
    def test_files_without_preamble_or_file_meta(self, tmp_path: Path, kept: str) -> None:
        write_dicom(tmp_path / "1.dcm", 7)
        whole = (tmp_path / "1.dcm").read_bytes()
        end = whole.index(b"\x08\0\x16\0")  # where the first element of the data set begins
        head = {"neither": b"", "file meta": whole[132:end], "preamble": whole[:132]}[kept]
        (tmp_path / "1.dcm").write_bytes(head + whole[end:])
        assert dicom_folder(tmp_path).slices[0].load()[0, 0] == 7

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
        assert "the slices are of 1 patient, too few for 3 parts" in capsys.readouterr().err


class TestSplit:
    @staticmethod
    def parts(patients: int, split: Any = None, seed: int = 0, **limits: int) -> dict[str, list[int]]:
        slices = tuple(
            Slice(f"{patient}/{z}", f"{patient:03d}", lambda: np.zeros((2, 2)))
            for patient in range(patients)
            for z in range(5)
        )
        divided = divide(Source("test", slices), split, limits, seed)  # type: ignore[arg-type]
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
            divide(stack_folder(folder), (1, 0, 0), {}, 0)
