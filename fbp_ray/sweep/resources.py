"""What each trial takes of the cluster, and how many trials run at a time. Ray is not needed to find it out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fbp_ray.errors import ConfigError
from fbp_ray.sweep.config import SweepTree
from fbp_ray.train.cluster import Node, cpus_per_worker


class TrialResources(NamedTuple):
    """What the trials take of a cluster."""

    concurrent: int
    """Trials at a time."""

    workers: int
    """Training processes of a trial."""

    cpus: int
    """Processors of each process."""

    gpus: float
    """GPUs of each process, or the part of one; 0 where there are none."""


def allocate_trials(tree: SweepTree, nodes: Sequence[Node]) -> TrialResources:
    """What each trial takes of a cluster.

    Args:
        tree: the settings of the sweep.
        nodes: the cluster's machines.

    Raises:
        ConfigError: the trials that are to run at a time take more than there is.
    """
    processors = [node.processors for node in nodes]
    gpus = [node.gpus for node in nodes]
    workers = tree.sweep.workers_per_trial
    fraction = 0.0 if not sum(gpus) else tree.sweep.gpu_fraction if workers == 1 else 1.0
    asked = tree.sweep.max_concurrent
    room = room_for_trials(processors, gpus, workers, tree.scaling.cpus_per_worker if workers > 1 else None, fraction)
    concurrent = min(asked or room, tree.sweep.trials)
    if (asked is not None and asked > room) or room == 0:
        each = f"{workers} workers of a processor" if workers > 1 else "a processor"
        each += f" and {fraction:g} of a GPU" if fraction else ""
        each += f" ({tree.scaling.cpus_per_worker} processors a worker)" if tree.scaling.cpus_per_worker else ""
        raise ConfigError(
            f"{asked or 1} trials at a time were asked for (--sweep.max_concurrent), each of at least {each}, but the "
            f"cluster has {sum(processors)} processors and {sum(gpus)} GPUs, which is room for {room}; ask for fewer"
            + (", or for fewer --sweep.workers_per_trial" if workers > 1 else "")
            + (", or for a smaller --sweep.gpu_fraction" if fraction and workers == 1 else "")
        )
    cpus = (tree.scaling.cpus_per_worker if workers > 1 else None) or cpus_per_worker(processors, concurrent * workers)
    return TrialResources(concurrent, workers, cpus, fraction)


def room_for_trials(
    processors: list[int], gpus: list[int], workers: int, cpus: int | None = None, fraction: float = 0.0
) -> int:
    """How many trials fit at a time.

    Args:
        processors, gpus: of each node.
        workers: processes of a trial, which may be on several nodes.
        cpus: processors that each process needs; without it one.
        fraction: the part of a GPU that each process needs, 0 for none.
    """
    each = cpus or 1
    processes = 0
    for have, devices in zip(processors, gpus, strict=True):
        by_processor = have // each
        processes += min(by_processor, devices * int(1 / fraction + 1e-9)) if fraction else by_processor
    return processes // workers
