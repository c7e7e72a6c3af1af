"""Processes that read an epoch on command, one or two at once, each in the ways that are compared."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import h5py
import numpy as np
import torch
import torch.distributed as dist

from benchmarks.loader.files import LAYOUTS, Layout, open_set
from fbp_ray.data import Batches, SharedCache
from fbp_ray.data.layout import Kind, file_name
from fbp_ray.data.sampler import plan
from fbp_ray.geometry import ParallelBeam

How = Literal["h5py alone", "h5py into batches", "loader", "loader, cache memory", "loader, cache half"]
BATCH = 4  # samples a step and process
SEED = 0


class Case(NamedTuple):
    """What is read, how, and by how many processes at once."""

    layout: Layout
    how: How
    processes: int


HOWS: dict[Layout, tuple[How, ...]] = {
    "a chunk a row": ("h5py alone", "h5py into batches", "loader", "loader, cache memory", "loader, cache half"),
    "h5py's chunks": ("h5py alone", "loader"),  # what is in a cache is as fast to read, whatever the files
}
CASES = [Case(layout, how, processes) for processes in (1, 2) for layout in LAYOUTS for how in HOWS[layout]]


def measure(root: Path, rounds: int, after: Callable[[int], None]) -> dict[Case, list[float]]:
    """Samples a second of each case, once a round; all cases have their turn in every round, after one to warm up."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for rank in range(2):
        pipe, end = context.Pipe()
        process = context.Process(target=_serve, args=(end, root, rank), daemon=True)
        process.start()
        end.close()
        pipes.append(pipe)
        processes.append(process)
    found: dict[Case, list[float]] = {case: [] for case in CASES}
    for pipe in pipes:
        pipe.recv()  # it is ready
    for number in range(rounds + 1):
        for case in CASES:
            at_work = pipes[: case.processes]
            for pipe in at_work:
                pipe.send((case, number + 1))
            replies = [pipe.recv() for pipe in at_work]
            if number > 0:
                samples, seconds = zip(*replies, strict=True)
                found[case].append(sum(samples) / max(seconds))
        after(number)
    for pipe in pipes:
        pipe.send(None)
    for process in processes:
        process.join()
    return found


def rate(found: dict[Case, list[float]], case: Case) -> float:
    """The median of a case, samples a second."""
    return median(found[case])


def _serve(pipe: Connection, root: Path, rank: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{root}/store", rank=rank, world_size=2)
    geometry = ParallelBeam.lodopab()
    sets = {layout: open_set(root, layout, geometry) for layout in LAYOUTS}
    caches = {
        "loader, cache memory": SharedCache(sets["a chunk a row"], "memory"),
        "loader, cache half": SharedCache(sets["a chunk a row"], "half"),
    }
    for cache in caches.values():  # both fill them, so that the first round finds all
        for _ in Batches(sets["a chunk a row"], 2 * BATCH, rank, 2, seed=SEED, cache=cache).epoch(1):
            pass
    dist.barrier()
    batches: dict[Case, Batches] = {
        case: Batches(
            sets[case.layout],
            BATCH * case.processes,
            rank if case.processes > 1 else 0,
            case.processes,
            seed=SEED,
            cache=caches.get(case.how),
        )
        for case in CASES
        if not case.how.startswith("h5py")
    }
    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        case, epoch = order
        began = time.perf_counter()
        if case in batches:
            count = sum(len(batch.observation) for batch in batches[case].epoch(epoch + 1))
        else:
            count = _bare(root, case, rank if case.processes > 1 else 0, epoch)
        pipe.send((count, time.perf_counter() - began))
    dist.destroy_process_group()


def _bare(root: Path, case: Case, rank: int, epoch: int) -> int:
    """Reads what the loader reads, block by block in its order, and does nothing with it; the number of samples.

    Alone, h5py overwrites what it has read, which then stays in the processor's cache. Into batches, it writes to the
    memory of four batches in turn, as whoever hands out batches must.
    """
    dataset = open_set(root, case.layout, ParallelBeam.lodopab())
    order = plan(dataset.blocks, BATCH * case.processes, rank, case.processes, seed=SEED, epoch=epoch + 1)
    kinds: tuple[Kind, ...] = ("observation", "ground_truth")
    numbers = range(dataset.place(len(dataset) - 1).file + 1)
    files = [[h5py.File(dataset.folder / file_name(kind, "train", number)) for kind in kinds] for number in numbers]
    shapes = dataset.geometry.sinogram_shape, dataset.geometry.image_shape
    batches = [np.empty((4 * BATCH, *shape), np.float32) for shape in shapes]
    for number, (first, end) in enumerate(order.blocks.tolist()):
        place = dataset.place(first)
        for file, batch in zip(files[place.file], batches, strict=True):
            if case.how == "h5py into batches":  # of files with a chunk a row, whose blocks are single samples
                file["data"].read_direct(batch[number % len(batch)], np.s_[place.row])
            else:
                file["data"][place.row : place.row + end - first]
    for pair in files:
        for file in pair:
            file.close()
    return len(order.samples)
