"""Which processors and GPUs of a cluster a training takes. Ray is not needed to find it out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fbp_ray.config import ScalingConfig
from fbp_ray.errors import RunError


class Node(NamedTuple):
    """A machine of a cluster, and what it has."""

    address: str
    processors: int
    gpus: int


class Resources(NamedTuple):
    """What the training takes of the cluster."""

    workers: int
    cpus: int
    """Processors of each worker."""

    use_gpu: bool


def allocate(scaling: ScalingConfig, nodes: Sequence[Node]) -> Resources:
    """What a training takes of the machines of a cluster.

    Raises:
        RunError: `scaling` asks for more than there is; with `min_workers`, not even so many workers find room.
    """
    processors = [node.processors for node in nodes]
    gpus = sum(node.gpus for node in nodes)
    use_gpu = gpus > 0
    workers = scaling.num_workers or (gpus if use_gpu else min(2, sum(processors)))
    needed = scaling.min_workers or workers
    cpus = scaling.cpus_per_worker or cpus_per_worker(processors, workers) or cpus_per_worker(processors, needed)
    room = sum(have // cpus for have in processors) if cpus else 0
    if room < needed or (use_gpu and needed > gpus):
        option = "--scaling.min_workers" if scaling.min_workers else "--scaling.num_workers"
        each = f", {cpus} processors each (--scaling.cpus_per_worker)" if scaling.cpus_per_worker else ""
        there = ", ".join(
            f"{node.address} with {node.processors} processors" + (f" and {node.gpus} GPUs" if use_gpu else "")
            for node in nodes
        )
        raise RunError(
            f"{needed} workers were asked for ({option}){each}, but the cluster has {there}; a worker takes at least "
            f"one processor{' and one GPU' if use_gpu else ''}. Ask for fewer, or add machines"
        )
    return Resources(workers, cpus, use_gpu)


def cpus_per_worker(processors: list[int], workers: int) -> int:
    """The most processors that each of `workers` can have, given those of each node; 0 when there are too few."""
    most = max(processors, default=0)
    return next((each for each in range(most, 0, -1) if sum(have // each for have in processors) >= workers), 0)
