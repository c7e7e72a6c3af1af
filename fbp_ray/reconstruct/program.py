"""What a reconstruction does: makes a plan of it, begins or goes on with the volume, and does the slabs that lack."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from fbp_ray.checkpoint import read_manifest
from fbp_ray.cli import clock, progress
from fbp_ray.errors import RunError
from fbp_ray.reconstruct import ReconstructConfig
from fbp_ray.reconstruct.partial import Partial
from fbp_ray.reconstruct.plan import Plan, Trained, make_plan
from fbp_ray.reconstruct.slabs import Slabs
from fbp_ray.reconstruct.volume import require_zarr, size

if TYPE_CHECKING:
    from collections.abc import Collection


def reconstruct(config: ReconstructConfig) -> None:
    """Reconstructs what the options name, or what lacks of it; prints how it goes.

    Raises:
        FbpRayError: the data, the checkpoint or the volume cannot be used, or something failed on the way.
        KeyboardInterrupt: Ctrl-C; what is done is kept.
    """
    if config.out.suffix.lower() == ".zarr":
        require_zarr()
    plan = make_plan(config)
    partial = Partial(config.out)
    with partial.begun(plan) as lacking:
        if not lacking:
            print(f"{config.out} is complete already, made by this very command; remove it to make it anew")
            return
        _say(plan, partial)
        began = time.monotonic()
        todo = sorted(set(range(plan.slabs)) - partial.done())
        rows = sum(end - first for first, end in map(plan.rows_of, todo))
        try:
            machines = _do(config, plan, todo)
        except OSError as error:
            raise RunError(
                f"{config.out} could not be written: {error}; what is done is kept: put the cause right and give the "
                "same command to go on"
            ) from None
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; {len(partial.done())} of {plan.slabs} slabs are kept: the same command goes on"
            ) from None
        took = time.monotonic() - began
        partial.finish()
    each = f", {1000 * took / rows:.3g} ms a row" if rows else ""
    on = f" on {len(machines)} machines" if len(machines) > 1 else ""
    print(f"{rows} rows in {clock(took)}{each}{on}\nvolume {config.out}")


def _say(plan: Plan, partial: Partial) -> None:
    rows, height, width = plan.shape
    print(
        f"{rows} row{'s'[: rows != 1]} of {height} x {width} pixels of {plan.geometry.pixel_size:.4g} m, "
        f"{size(4 * math.prod(plan.shape))}, in {plan.slabs} slab{'s'[: plan.slabs != 1]} of {plan.slab}"
    )
    if done := partial.done():
        print(f"going on: {len(done)} of {plan.slabs} slabs are there")


def _do(config: ReconstructConfig, plan: Plan, todo: Collection[int]) -> set[str]:
    """Does slabs, and shows how many rows are there; the machines that did them."""
    machines: set[str] = set()
    count = {slab: end - first for slab in range(plan.slabs) for first, end in [plan.rows_of(slab)]}
    with progress("Reconstructing", plan.shape[0]) as advance:
        advance(plan.shape[0] - sum(count[slab] for slab in todo))
        if todo and _on_ray(config):
            for slab, node in _by_ray(config, plan, todo):
                machines.add(node)
                advance(count[slab])
        elif todo:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            for slab in Slabs(plan, config.out, device).do(todo):
                advance(count[slab])
    return machines


def _on_ray(config: ReconstructConfig) -> bool:
    """Whether Ray is asked for, or there is more than this process could use.

    Alone, one process with all processors is as fast as Ray's actors, and begins at once.
    """
    joined = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    return bool(config.ray.address or os.environ.get("RAY_ADDRESS") or joined or torch.cuda.device_count() > 1)


def _by_ray(config: ReconstructConfig, plan: Plan, todo: Collection[int]) -> Iterator[tuple[int, str]]:
    from fbp_ray.train.cluster import cluster, keep_to_loopback, starting_ray

    keep_to_loopback(config.ray.address)
    print(starting_ray(config.ray.address), flush=True)
    own = read_manifest(plan.method.checkpoint).model.own_code if isinstance(plan.method, Trained) else []
    with cluster(config.ray.address, own_code=own):
        from fbp_ray.reconstruct.on_ray import do_on_ray

        yield from do_on_ray(plan, config.out, todo)
