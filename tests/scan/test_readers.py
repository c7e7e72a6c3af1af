"""Every kind of file gives the same scan; what is missing or does not fit is said in words, with the way out."""

from __future__ import annotations

import fcntl
import re
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from fbp_ray.errors import DataError
from fbp_ray.scan import ScanConfig
from fbp_ray.scan.files import read_scan
from fbp_ray.scan.raw import Frames, RawScan, in_radians
from fbp_ray.scan.rows import RowReader
from tests.support.raw_scans import Raw, simulated, write_dxchange, write_nexus, write_tiffs, write_variables

ALL = slice(None)


@pytest.fixture(scope="module")
def raw() -> Raw:
    return simulated(rows=5, angles=24, cells=20, axis=9.5)


def read(path: Path, **options: Any) -> tuple[RawScan, np.ndarray, ExitStack]:
    stack = ExitStack()
    scan = read_scan(ScanConfig(scan=path, out=path / "out", read=options), stack)
    return scan, everything(scan.projections), stack


def everything(frames: Frames) -> np.ndarray:
    return frames.read(np.arange(frames.shape[0]), ALL)


WRITERS: dict[str, Callable[[Path, Raw], Path]] = {
    "scan.nxs": write_nexus,
    "scan.h5": write_dxchange,
    "tiffs": write_tiffs,
    "scan.npz": write_variables,
    "scan.mat": write_variables,
    "scan_73.mat": write_variables,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_scan(name: str, raw: Raw, tmp_path: Path) -> None:
    scan, projections, stack = read(WRITERS[name](tmp_path / name, raw))
    with stack:
        np.testing.assert_array_equal(projections, raw.projections)
        np.testing.assert_array_equal(
            scan.projections.read(np.array([3, 4, 9]), slice(1, 3)), raw.projections[[3, 4, 9], 1:3]
        )
        np.testing.assert_allclose(scan.angles, np.deg2rad(raw.degrees), rtol=1e-15)
        np.testing.assert_array_equal(np.concatenate([everything(flat.frames) for flat in scan.flats]), raw.flats)
        assert scan.darks is not None
        np.testing.assert_array_equal(everything(scan.darks), raw.darks)
        assert [flat.time for flat in scan.flats] == ([0, 24] if name == "scan.nxs" else [0])


def test_stacks_of_sinograms_or_projections_with_their_parts_in_other_files(raw: Raw, tmp_path: Path) -> None:
    sinograms = raw.projections.transpose(1, 0, 2)
    np.save(tmp_path / "angles.npy", raw.degrees)
    np.save(tmp_path / "scan.npy", sinograms)
    tifffile.imwrite(tmp_path / "scan.tif", sinograms)
    tifffile.imwrite(tmp_path / "flats.tif", raw.flats)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["deep/in/it"] = sinograms
    for name in ("scan.npy", "scan.tif", "scan.h5"):
        angles, flats = str(tmp_path / "angles.npy"), str(tmp_path / "flats.tif")
        scan, projections, stack = read(tmp_path / name, angles=angles, flats=flats, order="sinograms")
        with stack:
            np.testing.assert_array_equal(projections, raw.projections)
            np.testing.assert_array_equal(everything(scan.flats[0].frames), raw.flats)
    with pytest.raises(DataError, match=re.escape("no angles are given with it; say what it is: --read.order")):
        read(tmp_path / "scan.npy", arc=(0, 180))


@pytest.mark.parametrize("name", ["scan.nxs", "scan.h5", "tiffs"])
def test_images_whose_axis_lies_along_their_rows(name: str, raw: Raw, tmp_path: Path) -> None:
    stored = {part: getattr(raw, part).swapaxes(1, 2) for part in ("projections", "flats", "darks")}
    scan, projections, stack = read(WRITERS[name](tmp_path / name, raw._replace(**stored)), axis="horizontal")
    with stack:
        np.testing.assert_array_equal(projections, raw.projections)
        np.testing.assert_array_equal(
            scan.projections.read(np.array([3, 4, 9]), slice(1, 3)), raw.projections[[3, 4, 9], 1:3]
        )
        np.testing.assert_array_equal(np.concatenate([everything(flat.frames) for flat in scan.flats]), raw.flats)
        assert scan.darks is not None
        np.testing.assert_array_equal(everything(scan.darks), raw.darks)
        reader = RowReader(scan.projections, 1, 5, 2 * 24 * 20 * 2)  # memory for two rows
        reader.prepare(tmp_path / "scratch", lambda count: None)
        np.testing.assert_array_equal(reader.read(2, 4), raw.projections[:, 2:4].swapaxes(0, 1))


def _beamline(folder: Path, raw: Raw) -> Path:
    """A file whose data and angles lie in other files, and some of whose links dangle."""
    (folder / "parts").mkdir()
    with h5py.File(folder / "parts/camera.h5", "w") as file:
        file["entry/detector"] = np.concatenate([raw.flats, raw.darks, raw.projections])
    with h5py.File(folder / "parts/stage.h5", "w") as file:
        file["theta"] = np.concatenate([np.zeros(len(raw.flats) + len(raw.darks)), raw.degrees])
    with h5py.File(folder / "scan.nxs", "w") as file:
        file["entry/imaging/data"] = h5py.ExternalLink("parts/camera.h5", "/entry/detector")
        file["entry/imaging/gts_theta"] = h5py.ExternalLink("parts/stage.h5", "/theta")
        file["entry/imaging/gts_theta_set"] = h5py.ExternalLink("parts/lost.h5", "/theta")
        file["entry/imaging/temperature"] = h5py.ExternalLink("parts/lost.h5", "/t")
        file["entry/instrument/imaging/data"] = h5py.SoftLink("/entry/imaging/data")
        file["entry/instrument/imaging/image_key"] = np.repeat(
            [1, 2, 0], [len(raw.flats), len(raw.darks), len(raw.degrees)]
        )
    return folder / "scan.nxs"


def test_links_that_dangle_matter_only_where_they_are_needed(raw: Raw, tmp_path: Path) -> None:
    path = _beamline(tmp_path, raw)
    scan, projections, stack = read(path)
    with stack:
        np.testing.assert_array_equal(projections, raw.projections)
        np.testing.assert_allclose(scan.angles, np.deg2rad(raw.degrees))
    with pytest.raises(
        DataError, match=r"gts_theta_set leads to /theta in parts/lost\.h5, but there is no file .*lost\.h5"
    ):
        read(path, angles="entry/imaging/gts_theta_set")
    (tmp_path / "parts/camera.h5").unlink()
    with pytest.raises(DataError, match=r"imaging/data leads to /entry/detector in parts/camera\.h5, but there is no"):
        read(path)


def test_a_virtual_data_set_whose_source_is_missing_does_not_read_as_zeros(raw: Raw, tmp_path: Path) -> None:
    layout = h5py.VirtualLayout(raw.projections.shape, raw.projections.dtype)
    layout[:] = h5py.VirtualSource("lost.h5", "data", raw.projections.shape)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_virtual_dataset("exchange/data", layout)
        file["exchange/theta"] = raw.degrees
    with pytest.raises(DataError, match=r"leads to data in lost\.h5, but there is no file"):
        read(tmp_path / "scan.h5")


def test_angles_that_are_no_numbers_are_named(raw: Raw, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["exchange/data"], file["exchange/data_white"] = raw.projections, raw.flats[0]
        file["exchange/theta"] = ["north"] * len(raw.degrees)
    with pytest.raises(DataError, match="the angles in /exchange/theta are object, not numbers; name others"):
        read(tmp_path / "scan.h5")


def test_parts_that_do_not_fit_are_named(raw: Raw, tmp_path: Path) -> None:
    cases = {
        "24 projections but 23 angles": raw._replace(degrees=raw.degrees[:-1]),
        r"the flats are 5 x 19 \(rows x columns\), but the projections 5 x 20": raw._replace(flats=raw.flats[..., 1:]),
    }
    for message, case in cases.items():
        for name in ("scan.h5", "tiffs", "scan.npz"):
            shutil.rmtree(tmp_path / "case", ignore_errors=True)
            (tmp_path / "case").mkdir()
            path = WRITERS[name](tmp_path / "case" / name, case)
            with pytest.raises(DataError, match=message):
                read(path, **({"order": "projections"} if name == "scan.npz" else {}))
    path = write_nexus(tmp_path / "scan.nxs", raw)
    with h5py.File(path, "a") as file:
        del file["entry1/tomo_entry/instrument/detector/image_key"]
        file["entry1/tomo_entry/instrument/detector/image_key"] = np.zeros(7)
    with pytest.raises(DataError, match=r"35 images but .*image_key 7 image keys; .*--read\.keys"):
        read(path, keys="entry1/tomo_entry/instrument/detector/image_key")
    with pytest.raises(DataError, match=r"--read\.skip 24, but .* has 24 projections"):
        read(write_dxchange(tmp_path / "scan.h5", raw), skip=(24,))


def test_a_file_without_its_end_is_not_said_to_be_locked(raw: Raw, tmp_path: Path) -> None:
    path = write_dxchange(tmp_path / "scan.h5", raw)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DataError, match=r"ends before its end .*or copy it again"):
        read(path)


def test_a_file_that_is_being_written_is_refused_in_words(raw: Raw, tmp_path: Path) -> None:
    path = write_dxchange(tmp_path / "scan.h5", raw)
    with path.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)  # as HDF5 does where it writes
        with pytest.raises(DataError, match="being written by another process; wait until the scan is finished"):
            read(path)


@pytest.mark.parametrize(
    ("degrees", "told", "stored", "message"),
    [
        (np.linspace(0, 179, 180), "auto", None, ""),
        (np.linspace(-88.2, 91.8, 91), "auto", None, ""),
        (np.linspace(0, 360, 721), "auto", "degrees", ""),
        (np.linspace(-60, 60, 61), "degrees", None, ""),
        (np.linspace(-60, 60, 61), "auto", None, "far from a half or a full circle in degrees and in radians"),
        (np.linspace(0, 179, 180), "radians", None, "were degrees meant"),
        (np.linspace(0, 179, 180), "auto", "radians", "said to be radians, but are a half or a full circle in degrees"),
    ],
)
def test_degrees_and_radians(degrees: np.ndarray, told: Any, stored: Any, message: str) -> None:
    if message:
        with pytest.raises(DataError, match=message):
            in_radians(degrees, told, stored)
        return
    np.testing.assert_allclose(in_radians(degrees, told, stored), np.deg2rad(degrees))
    radians = np.deg2rad(degrees)
    if told == "auto":
        np.testing.assert_allclose(in_radians(radians, "auto"), radians)
    with pytest.raises(DataError, match=r"in degrees is a scan over .* were radians meant"):
        in_radians(radians, "degrees")


@pytest.mark.parametrize("chunks", [(1, 40, 8), (4, 3, 8), None])
def test_rows_are_the_same_however_they_are_stored_and_read(chunks: Any, tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 60000, (30, 40, 8)).astype(np.uint16)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file.create_dataset("exchange/data", data=stored, chunks=chunks)
        file["exchange/theta"] = np.linspace(0, 174, 30)
    scan, _, stack = read(tmp_path / "scan.h5")
    row = 30 * 8 * 2
    with stack:
        for budget in (100 * row, 7 * row):
            reader = RowReader(scan.projections, 2, 39, budget)
            assert (reader.scratch_bytes > 0) == (budget < 37 * row and chunks == (1, 40, 8))
            reader.prepare(tmp_path / "scratch", lambda count: None)
            blocks = reader.blocks()
            assert (blocks[0][0], blocks[-1][1]) == (2, 39)
            assert max(last - first for first, last in blocks) * row <= budget
            pieces = [reader.read(first, last) for first, last in blocks]
            np.testing.assert_array_equal(np.concatenate(pieces), stored[:, 2:39].transpose(1, 0, 2))
