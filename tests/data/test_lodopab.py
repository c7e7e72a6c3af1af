"""The reader: files as they are, whole or in part, and what is said about each way they can be wrong."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fbp_ray.data import LoDoPaB, Sample, describe, geometry_of
from fbp_ray.data.lodopab import Place
from fbp_ray.errors import DataError, GeometryError
from fbp_ray.geometry import ParallelBeam
from tests.support.scans import COARSE, write_scan


@pytest.fixture
def folder(lodopab_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(lodopab_folder, tmp_path / "data"))


def test_every_sample_is_read_with_its_ground_truth(lodopab_folder: Path, small_geometry: ParallelBeam) -> None:
    data = LoDoPaB(lodopab_folder, "train", small_geometry)
    assert len(data) == 11  # the twelfth row of the padded last ground-truth file does not count
    for index, sample in enumerate(data):
        assert isinstance(sample, Sample)
        assert sample.index == index
        assert sample.observation.dtype == sample.ground_truth.dtype == torch.float32
        assert torch.equal(sample.observation, torch.full(small_geometry.sinogram_shape, float(index)))
        assert torch.equal(sample.ground_truth, torch.full(small_geometry.image_shape, index / 1000))


def test_each_so_many_of_the_angles_are_taken(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "data", test=3)
    whole, sparse = LoDoPaB(scan, "test", COARSE), LoDoPaB(scan, "test", COARSE, every=7)
    assert sparse.geometry == COARSE.every(7)
    for one, other in zip(whole, pickle.loads(pickle.dumps(sparse)), strict=True):
        assert torch.equal(other.observation, one.observation[::7])
        assert torch.equal(other.ground_truth, one.ground_truth)


def test_a_sample_has_a_place_and_a_name(lodopab_folder: Path, small_geometry: ParallelBeam) -> None:
    data = LoDoPaB(lodopab_folder, "train", small_geometry)
    assert data.place(6) == Place(file=1, row=2)
    assert data.name(6) == "observation_train_001.hdf5[2]"
    with pytest.raises(IndexError, match="sample 11 of 11"):
        data[11]
    with pytest.raises(IndexError):
        data[-1]


def test_files_may_have_any_number_of_rows(
    tmp_path: Path, small_geometry: ParallelBeam, write_part: Callable[..., None]
) -> None:
    write_part(tmp_path, "train", [2, 1, 3])
    data = LoDoPaB(tmp_path, "train", small_geometry)
    assert [data.place(index) for index in range(len(data))] == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2)]


@pytest.mark.parametrize(("samples", "files"), [(1, 1), (4, 1), (5, 2), (11, 3)])
def test_the_first_samples_are_taken(
    lodopab_folder: Path, small_geometry: ParallelBeam, samples: int, files: int
) -> None:
    data = LoDoPaB(lodopab_folder, "train", small_geometry, samples=samples)
    assert len(data) == samples
    assert len({data.place(index).file for index in range(samples)}) == files
    assert data[samples - 1].observation[0, 0] == samples - 1


def test_files_beyond_the_first_samples_may_be_damaged(folder: Path, small_geometry: ParallelBeam) -> None:
    (folder / "observation_train_002.hdf5").write_bytes(b"half a download")
    assert len(LoDoPaB(folder, "train", small_geometry, samples=8)) == 8


def test_more_samples_than_there_are(lodopab_folder: Path, small_geometry: ParallelBeam) -> None:
    with pytest.raises(DataError, match=r"12 samples were asked for.* 11 in all"):
        LoDoPaB(lodopab_folder, "train", small_geometry, samples=12)
    with pytest.raises(DataError, match="1 or more"):
        LoDoPaB(lodopab_folder, "train", small_geometry, samples=0)


def test_the_challenge_part_has_no_ground_truth(lodopab_folder: Path, small_geometry: ParallelBeam) -> None:
    with pytest.raises(DataError, match=r"no ground_truth_challenge_000.hdf5 beside it"):
        LoDoPaB(lodopab_folder, "challenge", small_geometry)


def test_nothing_is_open_until_it_is_read(folder: Path, small_geometry: ParallelBeam) -> None:
    data = LoDoPaB(folder, "train", small_geometry)
    with h5py.File(folder / "observation_train_000.hdf5", "r+") as file:  # HDF5 does not write to what is open
        file["data"][0] = 7
    assert data[0].observation[0, 0] == 7


def test_a_pickled_copy_opens_its_own_files(lodopab_folder: Path, small_geometry: ParallelBeam) -> None:
    data = LoDoPaB(lodopab_folder, "train", small_geometry)
    data[0]
    copy = pickle.loads(pickle.dumps(data))
    assert copy[10].observation[0, 0] == data[10].observation[0, 0] == 10


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_worker_processes_read_the_same(lodopab_folder: Path, small_geometry: ParallelBeam, start: str) -> None:
    data = LoDoPaB(lodopab_folder, "train", small_geometry)
    data[0]  # a file is open here when the workers start
    context = multiprocessing.get_context(start)
    loader = DataLoader(data, batch_size=3, num_workers=2, multiprocessing_context=context)
    batches = list(loader)
    assert all(isinstance(batch, Sample) for batch in batches)
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(11))
    assert torch.cat([batch.observation[:, 0, 0] for batch in batches]).tolist() == list(range(11))
    assert data[10].observation[0, 0] == 10


class TestErrors:
    def test_no_folder(self, tmp_path: Path, small_geometry: ParallelBeam) -> None:
        with pytest.raises(DataError, match=r"no data folder .*missing; .*fbp_ray.simulate --sample --out DIR"):
            LoDoPaB(tmp_path / "missing", "train", small_geometry)

    def test_no_such_part(self, lodopab_folder: Path, tmp_path: Path, small_geometry: ParallelBeam) -> None:
        with pytest.raises(DataError, match="it has the parts challenge, test, train, validation"):
            LoDoPaB(lodopab_folder, "valid", small_geometry)
        with pytest.raises(DataError, match=r"no LoDoPaB-CT files at all.*fbp_ray.simulate"):
            LoDoPaB(tmp_path, "train", small_geometry)

    def test_a_gap(self, folder: Path, small_geometry: ParallelBeam) -> None:
        (folder / "observation_train_001.hdf5").unlink()
        with pytest.raises(DataError, match=r"observation_train_002.hdf5 but not observation_train_001.hdf5"):
            LoDoPaB(folder, "train", small_geometry)

    def test_no_ground_truth(self, folder: Path, small_geometry: ParallelBeam) -> None:
        (folder / "ground_truth_train_001.hdf5").unlink()
        with pytest.raises(DataError, match=r"observation_train_001.hdf5 has no ground_truth_train_001.hdf5"):
            LoDoPaB(folder, "train", small_geometry)

    def test_a_short_ground_truth(self, folder: Path, small_geometry: ParallelBeam) -> None:
        with h5py.File(folder / "ground_truth_test_000.hdf5", "w") as file:
            file["data"] = np.zeros((2, 6, 5), np.float32)
        with pytest.raises(DataError, match=r"has 2 rows, but observation_test_000.hdf5 has 3"):
            LoDoPaB(folder, "test", small_geometry)

    def test_a_truncated_file(self, folder: Path, small_geometry: ParallelBeam) -> None:
        path = folder / "observation_test_000.hdf5"
        path.write_bytes(path.read_bytes()[:1500])
        with pytest.raises(DataError, match=r"observation_test_000.hdf5 \(1500 bytes\) cannot be read.*simulate"):
            LoDoPaB(folder, "test", small_geometry)

    def test_another_data_set(self, folder: Path, small_geometry: ParallelBeam) -> None:
        with h5py.File(folder / "observation_test_000.hdf5", "w") as file:
            file["sinogram"] = np.zeros((3, 12, 9), np.float32)
        with pytest.raises(DataError, match=r"no data set `data`, only \['sinogram'\]"):
            LoDoPaB(folder, "test", small_geometry)

    @pytest.mark.parametrize(("shape", "dtype"), [((3, 12), "f4"), ((3, 12, 9), "i2"), ((3, 12, 9), "f8")])
    def test_another_kind_of_array(
        self, folder: Path, small_geometry: ParallelBeam, shape: tuple[int, ...], dtype: str
    ) -> None:
        with h5py.File(folder / "observation_test_000.hdf5", "w") as file:
            file["data"] = np.zeros(shape, dtype)
        with pytest.raises(DataError, match=r"should be float32 of shape \(rows, ., .\), but it is"):
            LoDoPaB(folder, "test", small_geometry)

    def test_no_rows(self, folder: Path, small_geometry: ParallelBeam) -> None:
        with h5py.File(folder / "observation_test_000.hdf5", "w") as file:
            file["data"] = np.zeros((0, 12, 9), np.float32)
        with pytest.raises(DataError, match="have 0 in all"):
            LoDoPaB(folder, "test", small_geometry)

    def test_another_geometry(self, lodopab_folder: Path, small_geometry: ParallelBeam) -> None:
        with pytest.raises(GeometryError, match=r"\(rows, 6, 9\), but it is \(3, 12, 9\); .*geometry_of"):
            LoDoPaB(lodopab_folder, "test", small_geometry.every(2))
        other = small_geometry.model_copy(update={"image_shape": (5, 6)})
        with pytest.raises(GeometryError, match=r"ground_truth_test_000.hdf5: an image .* \(rows, H, W\)"):
            LoDoPaB(lodopab_folder, "test", other)

    @pytest.mark.parametrize("kind", ["observation", "ground_truth"])
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_value_that_is_not_finite(
        self, folder: Path, small_geometry: ParallelBeam, kind: str, value: float
    ) -> None:
        with h5py.File(folder / f"{kind}_train_001.hdf5", "r+") as file:
            file["data"][2, 3, 4] = value
        data = LoDoPaB(folder, "train", small_geometry)
        data[5]
        with pytest.raises(DataError, match=rf"sample 6 of train .*: row 2 of .*{kind}_train_001.hdf5 has 1 values"):
            data[6]

    def test_a_file_that_is_damaged_inside(self, folder: Path, small_geometry: ParallelBeam) -> None:
        path = folder / "observation_test_000.hdf5"
        with h5py.File(path, "w") as file:
            file.create_dataset("data", data=np.ones((3, 12, 9), np.float32), chunks=(1, 12, 9), compression="gzip")
            where = file["data"].id.get_chunk_info(1)
        content = bytearray(path.read_bytes())
        content[where.byte_offset : where.byte_offset + where.size] = bytes(where.size)
        path.write_bytes(content)
        data = LoDoPaB(folder, "test", small_geometry)
        assert data[0].observation[0, 0] == 1
        with pytest.raises(DataError, match=r"row 1 of .*observation_test_000.hdf5 cannot be read"):
            data[1]


class TestDescription:
    def test_genuine_files_have_none(self, lodopab_folder: Path) -> None:
        assert describe(lodopab_folder) is None
        assert geometry_of(lodopab_folder) == ParallelBeam.lodopab()

    def test_the_geometry_is_found(self, tmp_path: Path, small_geometry: ParallelBeam) -> None:
        content = {"photons": 512, "geometry": small_geometry.model_dump(mode="json")}
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        assert describe(tmp_path) == content
        assert geometry_of(tmp_path) == small_geometry

    @pytest.mark.parametrize(
        ("content", "message"),
        [("{", "is not JSON"), ("[]", "a JSON list, not an object"), ("{}", "no usable `geometry`")],
    )
    def test_a_damaged_description(self, tmp_path: Path, content: str, message: str) -> None:
        (tmp_path / "dataset.json").write_text(content)
        with pytest.raises(DataError, match=message):
            geometry_of(tmp_path)
