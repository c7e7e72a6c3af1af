"""Slabs on Ray Data: the numbers of the slabs are the data set, an actor of each machine or GPU does them.

Values go from the data's disk to the volume's without passing Ray: it hands out the numbers, does those of a machine
that goes away on another one, and gives back who has done what.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ray
import ray.data
import torch
from ray.exceptions import RayError

from fbp_ray.errors import FbpRayError, RunError
from fbp_ray.reconstruct.plan import Plan
from fbp_ray.reconstruct.slabs import Slabs
from fbp_ray.train.cluster import cpus_per_worker, nodes
from fbp_ray.train.room import wait_for_room


class Done(NamedTuple):
    """A slab that is on the disk."""

    slab: int
    node: str
    """Ray's identifier of the machine that has done it."""


class Actor:
    """Does slabs in a process of its own, two at a time: one is read or written while the other is computed.

    Args:
        plan: the volume, as JSON.
        out: where it is to be.
        threads: to compute on.
    """

    def __init__(self, plan: str, out: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.node = ray.get_runtime_context().get_node_id()
        self.problem: FbpRayError | None = None
        try:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            self.slabs = Slabs(Plan.model_validate_json(plan), Path(out), device)
        except FbpRayError as error:  # raised here, it would have Ray start this actor over and over
            self.problem = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Does the slabs of a batch; a problem is told in words."""
        numbers = batch["slab"].tolist()
        problem = ""
        try:
            if self.problem:
                raise self.problem
            list(self.slabs.do(numbers))
        except (FbpRayError, OSError) as error:
            problem = f"{socket.gethostname()}: {error}"
        return {
            "slab": batch["slab"],
            "node": [self.node] * len(numbers),
            "problem": [problem] * len(numbers),
        }


def do_on_ray(plan: Plan, out: Path, slabs: Collection[int]) -> Iterator[Done]:
    """Does slabs on the cluster that this process is in; gives each when it is on the disk.

    Raises:
        RunError: an actor could not do one, or Ray could not go on.
    """
    there = [node for node in nodes() if node.processors]
    gpus = sum(node.gpus for node in there)
    processors = [node.processors for node in there]
    cpus = cpus_per_worker(processors, gpus) if gpus else min(processors)
    wait_for_room({"CPU": cpus, "GPU": float(gpus > 0)}, print)
    actors = min(len(slabs), gpus or sum(have // cpus for have in processors))
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    numbers = ray.data.from_items([{"slab": slab} for slab in slabs], override_num_blocks=len(slabs))
    done = numbers.map_batches(
        Actor,
        fn_constructor_args=(plan.model_dump_json(), str(out.absolute()), cpus),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(
            size=actors,
            max_concurrent_calls_per_actor=2,
            max_tasks_in_flight_per_actor=2,
            enable_true_multi_threading=True,
        ),
        num_cpus=cpus,
        num_gpus=1 if gpus else None,
    )
    try:
        for row in done.iter_rows():
            if row["problem"]:
                raise RunError(f"a slab could not be done on {row['problem']}")
            yield Done(int(row["slab"]), str(row["node"]))
    except RayError as error:
        raise RunError(
            f"the slabs could not be done on Ray: {error}; those that are done are kept: give the same command to go on"
        ) from None
