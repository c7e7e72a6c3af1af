"""The cache that processes share: what it gives back, how exactly, how much fits, and that nothing stays behind."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.multiprocessing

from fbp_ray.data import Batches, LoDoPaB, SharedCache, geometry_of
from fbp_ray.data import cache as cache_module
from fbp_ray.errors import DataError
from fbp_ray.geometry import ParallelBeam
from tests.support.layouts import write_layout

SAMPLE = 4 * (12 * 9 + 6 * 5)


def write(folder: Path, geometry: ParallelBeam, layout: str = "rows") -> LoDoPaB:
    """33 samples in two files."""
    write_layout(folder, geometry, layout)
    (folder / "dataset.json").write_text(f'{{"geometry": {geometry.model_dump_json()}}}')
    return LoDoPaB(folder, "train", geometry)


@pytest.fixture(params=["rows", "blocks"])
def data(request: pytest.FixtureRequest, tmp_path: Path, small_geometry: ParallelBeam) -> LoDoPaB:
    return write(tmp_path / "data", small_geometry, request.param)


def epoch(batches: Batches, number: int) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """All samples of an epoch by their numbers."""
    found = {}
    for batch in batches.epoch(number):
        for observation, ground_truth, index in zip(*batch, strict=True):
            found[int(index)] = observation.clone(), ground_truth.clone()
    return found


def overwrite(data: LoDoPaB, value: float) -> None:
    """Whatever is read from the files from now on is this value."""
    for path in data.folder.glob("*.hdf5"):
        with h5py.File(path) as file:
            values, chunks = np.full_like(file["data"], value), file["data"].chunks
        path.unlink()
        with h5py.File(path, "w") as file:
            file.create_dataset("data", data=values, chunks=chunks)
    # A copy opens the files anew.
    data.__dict__.update(pickle.loads(pickle.dumps(data)).__dict__)


@pytest.mark.parametrize("mode", ["memory", "half"])
def test_a_second_epoch_comes_from_memory(data: LoDoPaB, mode: str) -> None:
    cache = SharedCache(data, mode)  # type: ignore[arg-type]
    assert cache.samples == 33
    assert cache.bytes == 33 * (SAMPLE // (1 if mode == "memory" else 2) + 8)
    batches = Batches(data, 4, seed=0, cache=cache)
    threads = torch.get_num_threads()
    first = epoch(batches, 1)
    overwrite(data, 9.0)
    second = epoch(batches, 2)
    assert sorted(first) == sorted(second) == list(range(33))
    for index, parts in second.items():
        for part, original in zip(parts, first[index], strict=True):
            error = (part - original).abs()
            assert (error <= (0 if mode == "memory" else 2**-11) * original.abs() + 3e-8 * (mode == "half")).all()
    assert torch.get_num_threads() == threads


def test_an_epoch_does_not_read_what_it_stored_itself(data: LoDoPaB) -> None:
    batches = Batches(data, 4, seed=0, cache=SharedCache(data, "memory"))
    epoch(batches, 1)
    overwrite(data, 9.0)
    assert epoch(batches, 1)[0][0][0, 0] == 9


def test_a_part_fits(data: LoDoPaB, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "free_bytes", lambda _: int(10.5 * (SAMPLE + 8) / (1 - cache_module.RESERVE)))
    cache = SharedCache(data, "memory")
    assert cache.samples == 10
    assert SharedCache(data, "half").samples == 20
    batches = Batches(data, 4, seed=0, cache=cache)
    first = epoch(batches, 1)
    overwrite(data, 9.0)
    second = epoch(batches, 2)
    for index in range(33):
        changed = bool((second[index][0] == 9).all())
        # A block that is only in part in memory is read from the file again.
        assert changed == (index >= (8 if data.blocks[0, 1] == 8 else 10))
        assert changed or torch.equal(second[index][0], first[index][0])


def test_nothing_fits(data: LoDoPaB, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "free_bytes", lambda _: SAMPLE)
    with pytest.raises(DataError, match=r"needs .* GiB of shared memory.* are free in /.*or use --data.cache none"):
        SharedCache(data, "memory")


def test_shared_memory_that_cannot_be_written(data: LoDoPaB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "SHARED", tmp_path / "missing")
    monkeypatch.setattr(cache_module.tempfile, "tempdir", str(tmp_path))
    assert SharedCache(data, "memory").samples == 33
    assert not list(tmp_path.glob("fbp-ray-*"))
    monkeypatch.setattr(cache_module.tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(DataError, match=r"no file can be made in .*missing for --data.cache"):
        SharedCache(data, "memory")


def test_half_precision_says_what_it_cannot_hold(tmp_path: Path, small_geometry: ParallelBeam) -> None:
    data = write(tmp_path / "data", small_geometry)
    with h5py.File(data.folder / "observation_train_000.hdf5", "r+") as file:
        file["data"][2, 3, 4] = -7e4
    with pytest.raises(DataError, match=r"sample 2 has values beyond 65504.*--data.cache memory"):
        epoch(Batches(data, 4, seed=0, cache=SharedCache(data, "half")), 1)


def left_behind() -> set[str]:
    folder = cache_module.SHARED if cache_module.SHARED.is_dir() else Path("/tmp")
    return {path.name for path in folder.glob("fbp-ray-*")}


def together(rank: int, folder: Path) -> None:
    """Two processes: one's second epoch comes from what the other stored in the first."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    data = LoDoPaB(folder, "train", geometry_of(folder))
    cache = SharedCache(data, "memory")
    assert cache.samples == 33
    torch.distributed.barrier()
    assert not left_behind()
    batches = Batches(data, 4, rank, 2, seed=0, cache=cache)
    first = epoch(batches, 1)
    torch.distributed.barrier()
    if rank == 0:
        for path in folder.glob("*.hdf5"):
            path.write_bytes(b"gone")
    torch.distributed.barrier()
    second = epoch(batches, 2)
    both: list[dict[int, tuple[torch.Tensor, torch.Tensor]]] = [{}, {}]
    torch.distributed.all_gather_object(both, first)
    assert set(second) - set(first)
    assert all(torch.equal(second[index][0], (both[0] | both[1])[index][0]) for index in second)

    # One of them cannot: both say so.
    cache_module.free_bytes = lambda _: 0
    with pytest.raises(DataError, match="are free in"):
        SharedCache(data, "memory")
    torch.distributed.destroy_process_group()


def test_two_processes_share_one_memory(tmp_path: Path, small_geometry: ParallelBeam) -> None:
    before = left_behind()
    write(tmp_path / "data", small_geometry)
    torch.multiprocessing.spawn(together, (tmp_path / "data",), nprocs=2)
    assert left_behind() == before


def test_a_process_that_is_killed_leaves_nothing_behind(tmp_path: Path, small_geometry: ParallelBeam) -> None:
    data = write(tmp_path / "data", small_geometry)
    code = (
        "import time\n"
        "from fbp_ray.data import Batches, LoDoPaB, SharedCache, geometry_of\n"
        f"data = LoDoPaB({str(data.folder)!r}, 'train', geometry_of({str(data.folder)!r}))\n"
        "for _ in Batches(data, 4, seed=0, cache=SharedCache(data, 'memory')).epoch(1):\n"
        "    print('reading', flush=True)\n"
        "    time.sleep(60)\n"
    )
    before = left_behind()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        if Path(f"/proc/{process.pid}/maps").exists():
            assert "fbp-ray-" in Path(f"/proc/{process.pid}/maps").read_text()
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert left_behind() == before


def test_values_beside_zero_are_kept(tmp_path: Path, small_geometry: ParallelBeam) -> None:
    """Small values are what half precision is worst at: their error is absolute."""
    data = write(tmp_path / "data", small_geometry)
    values = np.geomspace(1e-9, 1, 30).astype(np.float32).reshape(6, 5)
    with h5py.File(data.folder / "ground_truth_train_000.hdf5", "r+") as file:
        file["data"][0] = values
    batches = Batches(data, 4, seed=0, cache=SharedCache(data, "half"))
    epoch(batches, 1)
    kept = epoch(batches, 2)[0][1].numpy()
    assert (np.abs(kept - values) <= np.maximum(2**-11 * values, 3e-8)).all()
