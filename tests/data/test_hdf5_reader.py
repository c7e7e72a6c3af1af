"""Reading rows, in every way that HDF5 stores them: the values, and what is said of files that are not as they were."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from fbp_ray.data import LoDoPaB
from fbp_ray.data.hdf5_reader import MAX_OPEN, Hdf5Reader, inspect
from fbp_ray.errors import DataError
from fbp_ray.geometry import ParallelBeam
from tests.support.layouts import LAYOUTS, rows, write_layout

VALUES = np.random.default_rng(1).random((19, 12, 9), dtype=np.float32)
ROWS_PER_BLOCK = {"rows": 1, "contiguous": 1, "blocks": 8, "virtual": 8}


@pytest.fixture(params=sorted(LAYOUTS))
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def read(reader: Hdf5Reader, file: int, row: int, count: int = 1) -> NDArray[np.float32]:
    found = np.empty((count, 12, 9), np.float32)
    reader.read(file, row, found)
    return found


def test_rows_are_as_stored(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "file.hdf5"
    LAYOUTS[layout](path, VALUES)
    reader = Hdf5Reader([path])
    for first, count in ((4, 1), (9, 7), (0, 8), (16, 3), (3, 16), (18, 1)):
        assert np.array_equal(read(reader, 0, first, count), VALUES[first : first + count])
    assert inspect(path).shape == VALUES.shape
    assert inspect(path).rows_per_block == ROWS_PER_BLOCK.get(layout, inspect(path).rows_per_block)


def test_rows_never_written_are_zeros(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.hdf5", "w") as file:
        data = file.create_dataset("data", (3, 12, 9), "f4", chunks=(1, 12, 9))
        data[1] = 5
    assert read(Hdf5Reader([tmp_path / "file.hdf5"]), 0, 0, 3).max((1, 2)).tolist() == [0, 5, 0]


def test_a_block_holds_whole_chunks_of_both_files(tmp_path: Path, small_geometry: ParallelBeam) -> None:
    folder = write_layout(tmp_path, small_geometry, "blocks", (20, 13))
    assert LoDoPaB(folder, "train", small_geometry).blocks.tolist() == [[0, 8], [8, 16], [16, 20], [20, 28], [28, 33]]
    with h5py.File(folder / "ground_truth_train_001.hdf5", "w") as file:
        file.create_dataset("data", data=np.zeros((13, 6, 5), np.float32), chunks=(6, 6, 5))
    assert LoDoPaB(folder, "train", small_geometry).blocks.tolist()[3:] == [[20, 33]]
    assert LoDoPaB(folder, "train", small_geometry, samples=18).blocks.tolist() == [[0, 8], [8, 16], [16, 18]]


def test_the_files_used_last_stay_open(tmp_path: Path, write_part: Callable[..., None]) -> None:
    write_part(tmp_path, "train", [1] * (MAX_OPEN + 2))
    reader = Hdf5Reader(sorted(tmp_path.glob("observation_*")))
    for number in [*range(MAX_OPEN), 0, MAX_OPEN, MAX_OPEN + 1]:
        assert read(reader, number, 0).max() == number
    with h5py.File(reader.paths[1], "r+"):  # HDF5 does not write to what is open for reading
        pass
    with pytest.raises(OSError, match=r"already open|unable to lock"), h5py.File(reader.paths[0], "r+"):
        pass


def test_a_file_that_took_the_place_of_another_is_read_as_it_is(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.hdf5" for number in range(MAX_OPEN + 1)]
    for path in paths:
        rows(path, VALUES)
    reader = Hdf5Reader(paths)
    read(reader, 0, 0)
    with h5py.File(tmp_path / "new", "w") as file:
        file["other"] = np.zeros(1000)
        file.create_dataset("data", data=VALUES[:10:-1], chunks=(1, 12, 9))
    (tmp_path / "new").replace(paths[0])
    for number in range(1, MAX_OPEN + 1):  # so that the first is closed
        read(reader, number, 0)
    assert np.array_equal(read(reader, 0, 0)[0], VALUES[-1])
    with pytest.raises(DataError, match=r"row 18 of .*0.hdf5 cannot be read"):
        read(reader, 0, 18)
    paths[1].unlink()
    read(reader, 2, 0)
    with pytest.raises(DataError, match=r"1.hdf5 .*cannot be read"):
        read(reader, 1, 0)


def test_a_file_cut_short_while_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "file.hdf5"
    rows(path, VALUES)
    reader = Hdf5Reader([path])
    read(reader, 0, 0)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"row 18 of .*file.hdf5 cannot be read: the file ends at byte"):
        read(reader, 0, 18)


def test_a_file_that_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "file.hdf5"
    rows(path, VALUES)
    code = f"import h5py; file = h5py.File({str(path)!r}, 'r+'); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(DataError, match=r"file.hdf5 is locked: .* open for writing.*HDF5_USE_FILE_LOCKING=FALSE"):
            read(Hdf5Reader([path]), 0, 0)
        process.communicate("\n")
    assert np.array_equal(read(Hdf5Reader([path]), 0, 3)[0], VALUES[3])


def test_of_a_block_the_sample_that_cannot_be_used_is_named(tmp_path: Path, small_geometry: ParallelBeam) -> None:
    folder = write_layout(tmp_path, small_geometry, "blocks", (20, 13))
    with h5py.File(folder / "ground_truth_train_001.hdf5", "r+") as file:
        file["data"][3, 2, 1] = -np.inf
    data = LoDoPaB(folder, "train", small_geometry)
    buffers = [np.empty((8, *shape), np.float32) for shape in (small_geometry.sinogram_shape, (6, 5))]
    data.read(20, *(buffer[:3] for buffer in buffers))
    with pytest.raises(DataError, match=r"sample 23 of train .*: row 3 of .*ground_truth_train_001.hdf5 has 1 values"):
        data.read(20, *buffers)


def test_a_block_that_cannot_be_read(tmp_path: Path, small_geometry: ParallelBeam) -> None:
    folder = write_layout(tmp_path, small_geometry, "blocks", (20, 13))
    data = LoDoPaB(folder, "train", small_geometry)
    data[20]
    path = folder / "ground_truth_train_001.hdf5"
    os.truncate(path, path.stat().st_size - 100)
    buffers = [np.empty((5, *shape), np.float32) for shape in (small_geometry.sinogram_shape, (6, 5))]
    with pytest.raises(DataError, match=r"sample 28 of train .*: one of the rows 8 to 12 of .* the file ends at byte"):
        data.read(28, *buffers)


def test_threads_read_at_once(tmp_path: Path, layout: str) -> None:
    paths = [tmp_path / f"{number}.hdf5" for number in range(MAX_OPEN + 2)]
    for number, path in enumerate(paths):
        LAYOUTS[layout](path, VALUES + np.float32(number))
    reader = Hdf5Reader(paths)
    wrong: list[int] = []

    def read_some(first: int) -> None:
        for number in range(first, first + 60):
            file, row = number % len(paths), number % len(VALUES)
            if not np.array_equal(read(reader, file, row)[0], VALUES[row] + np.float32(file)):
                wrong.append(number)

    threads = [threading.Thread(target=read_some, args=(first,)) for first in (0, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
