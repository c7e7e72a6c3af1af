"""Batches: what they hold, that each chunk is read once, what happens at the ends and when reading fails."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from fbp_ray.data import Batches, LoDoPaB, Sample
from fbp_ray.data.hdf5_reader import Hdf5Reader
from fbp_ray.errors import DataError
from fbp_ray.geometry import ParallelBeam
from tests.support.huge import TRAIN, write_huge
from tests.support.layouts import LAYOUTS, write_layout


def copied(batch: Sample) -> Sample:
    return Sample(*(part.clone() for part in batch))  # type: ignore[attr-defined]


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fbp-ray batches")]


@pytest.fixture(params=sorted(LAYOUTS))
def data(request: pytest.FixtureRequest, tmp_path: Path, small_geometry: ParallelBeam) -> LoDoPaB:
    """33 samples in two files, in each layout."""
    return LoDoPaB(write_layout(tmp_path, small_geometry, request.param), "train", small_geometry)


@pytest.fixture
def rows(tmp_path: Path, small_geometry: ParallelBeam) -> LoDoPaB:
    """70 samples in three files, a chunk a row."""
    return LoDoPaB(write_layout(tmp_path, small_geometry, "rows", (20, 13, 37)), "train", small_geometry)


@pytest.mark.parametrize("seed", [None, 4])
def test_batches_of_all_processes_hold_each_sample_once(data: LoDoPaB, seed: int | None) -> None:
    found: Counter[int] = Counter()
    for rank in range(3):
        batches = Batches(data, 5, rank, 3, seed=seed)
        assert len(batches) == 7
        sizes = []
        for batch in batches.epoch(2):
            sizes.append(len(batch.observation))
            assert batch.index.dtype == torch.int64  # type: ignore[attr-defined]
            for observation, ground_truth, index in zip(*batch, strict=True):
                expected = data[int(index)]
                assert torch.equal(observation, expected.observation)
                assert torch.equal(ground_truth, expected.ground_truth)
                found[int(index)] += 1
        assert sizes == [[2] * 6 + [1], [2] * 6 + [1], [1] * 7][rank]
    assert found == Counter(range(33))


def test_an_empty_share_is_a_batch_of_nothing(rows: LoDoPaB) -> None:
    *_, last = Batches(rows, 23, rank=1, world_size=2, seed=0).epoch(1)
    assert last.observation.shape == (0, 12, 9)
    assert last.ground_truth.shape == (0, 6, 5)
    assert last.index.tolist() == []  # type: ignore[attr-defined]


def test_epochs_differ_and_repeat(data: LoDoPaB) -> None:
    batches = Batches(data, 4, seed=7)
    orders = [
        torch.cat([batch.index for batch in batches.epoch(number)]).tolist()  # type: ignore[misc]
        for number in (1, 2, 1)
    ]
    assert orders[0] == orders[2] != orders[1]
    in_order = [batch.index for batch in Batches(data, 4, seed=None).epoch(1)]
    assert torch.cat(in_order).tolist() == list(range(33))  # type: ignore[arg-type]


def test_a_batch_stays_until_the_second_one_after_it_is_asked_for(rows: LoDoPaB) -> None:
    before: list[tuple[Sample, Sample]] = []
    for batch in Batches(rows, 4, seed=1).epoch(1):
        before = [*before[-1:], (batch, copied(batch))]
        for given, kept in before:
            assert torch.equal(given.observation, kept.observation)
            assert torch.equal(given.ground_truth, kept.ground_truth)


@pytest.mark.parametrize("world_size", [1, 2])
def test_each_chunk_is_read_once(data: LoDoPaB, world_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int, int]] = []
    original = Hdf5Reader.read

    def record(self: Hdf5Reader, file: int, row: int, into: np.ndarray) -> None:
        if self.paths[0].name.startswith("observation"):
            read.append((file, row, row + len(into)))
        original(self, file, row, into)

    monkeypatch.setattr(Hdf5Reader, "read", record)
    for rank in range(world_size):
        for _ in Batches(data, 4, rank, world_size, seed=3).epoch(1):
            pass
    per_block = int(data.blocks[0, 1])
    chunks = Counter(
        (file, chunk) for file, first, end in read for chunk in range(first // per_block, (end - 1) // per_block + 1)
    )
    assert set(chunks) == {
        (file, chunk) for file, rows in enumerate((20, 13)) for chunk in range(-(-rows // per_block))
    }
    assert sum(chunks.values()) - len(chunks) <= world_size - 1


def test_the_next_batches_are_read_meanwhile(rows: LoDoPaB, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = threading.Semaphore(0)
    original = LoDoPaB.read

    def read(self: LoDoPaB, *arguments: object) -> None:
        original(self, *arguments)  # type: ignore[arg-type]
        finished.release()

    monkeypatch.setattr(LoDoPaB, "read", read)
    epoch = Batches(rows, 4, seed=0).epoch(1)
    next(epoch)
    assert all(finished.acquire(timeout=30) for _ in range(8))  # the first batch and one more, at least
    epoch.close()  # type: ignore[attr-defined]


def test_what_was_waited_for_is_told(rows: LoDoPaB, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    original = LoDoPaB.read
    monkeypatch.setattr(LoDoPaB, "read", lambda self, *rest: gate.wait() and original(self, *rest))
    batches = Batches(rows, 4, seed=0)
    assert batches.waited == 0
    threading.Timer(0.2, gate.set).start()
    for _ in batches.epoch(1):
        pass
    assert batches.waited > 0.1


def test_pinning_is_left_out_where_there_is_no_gpu(rows: LoDoPaB) -> None:
    batch = next(iter(Batches(rows, 4, seed=0, pin=True).epoch(1)))
    assert batch.observation.is_pinned() == torch.cuda.is_available()


def test_names_are_those_of_the_step(data: LoDoPaB) -> None:
    batches = Batches(data, 5, rank=1, world_size=2, seed=2)
    for step, batch in enumerate(batches.epoch(3), start=1):
        assert batches.names(3, step) == [data.name(int(index)) for index in batch.index]  # type: ignore[attr-defined]


class TestEnds:
    def test_a_sample_that_cannot_be_used_is_named(self, tmp_path: Path, small_geometry: ParallelBeam) -> None:
        for layout in ("rows", "blocks"):
            folder = write_layout(tmp_path / layout, small_geometry, layout)
            with h5py.File(folder / "observation_train_001.hdf5", "r+") as file:
                file["data"][3, 2, 1] = np.nan
            batches = Batches(LoDoPaB(folder, "train", small_geometry), 4, seed=0)
            with pytest.raises(DataError, match=r"sample 23 of train .*row 3 of .*observation_train_001.hdf5"):
                list(batches.epoch(1))
            assert not threads()

    def test_an_epoch_that_is_left_ends_its_thread(self, data: LoDoPaB) -> None:
        batches = Batches(data, 4, seed=0)
        for _ in batches.epoch(1):
            break
        assert not threads()

        def fail() -> None:
            for _ in batches.epoch(1):
                raise ValueError

        with pytest.raises(ValueError, match=r"^$"):
            fail()
        assert not threads()
        assert len(list(batches.epoch(2))) == 9
        assert not threads()

    def test_another_epoch_ends_the_one_under_way(self, rows: LoDoPaB) -> None:
        batches = Batches(rows, 4, seed=0)
        first, second = batches.epoch(1), batches.epoch(2)
        next(first)
        next(second)
        assert len(threads()) == 1
        with pytest.raises(RuntimeError, match="use two `Batches`"):
            next(first)
        assert len(list(second)) == 17
        assert not threads()

    def test_a_process_ends_within_an_epoch(self, rows: LoDoPaB) -> None:
        code = (
            "from fbp_ray.data import Batches, LoDoPaB, geometry_of\n"
            "from fbp_ray.geometry import ParallelBeam\n"
            f"geometry = ParallelBeam.model_validate_json({rows.geometry.model_dump_json()!r})\n"
            f"epoch = Batches(LoDoPaB({str(rows.folder)!r}, 'train', geometry), 4, seed=0).epoch(1)\n"
            "print(len(next(epoch).observation))\n"
        )
        found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
        assert (found.stdout, found.stderr) == ("4\n", "")


PEAK = """
import sys
from pathlib import Path
from fbp_ray.data import Batches, LoDoPaB, geometry_of
folder, samples, batch_size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
data = LoDoPaB(folder, "train", geometry_of(folder), samples)
count = sum(len(batch.index) for batch in Batches(data, batch_size, seed=0).epoch(1))
assert count == samples, count
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(status["VmHWM"].split()[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured on Linux only")
def test_memory_does_not_grow_with_the_data_set(tmp_path: Path) -> None:
    most = TRAIN // 4
    folder = write_huge(tmp_path / "huge", most)
    few, many = (
        int(subprocess.run([sys.executable, "-c", PEAK, folder, str(samples), "32"], check=True, stdout=-1).stdout)
        for samples in (500, most)
    )
    assert many == pytest.approx(few, rel=0.05)
