"""Room in the Ray cluster: who has its processors, waiting for them, and letting go of them."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import NamedTuple

import ray
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

from fbp_ray.errors import RunError

PATIENCE = 30.0  # seconds without a sign of the workers, after which it is said what they wait for
HOPELESS_SECONDS = 60.0  # in which what this process has let go of becomes free


class Shares(NamedTuple):
    """Who has the processors, or the GPUs, of the cluster."""

    free: float
    ours: float
    """Reserved by this process: by a training or a sweep of its own."""

    theirs: float
    """Reserved by other programs."""

    rest: float
    """Taken by tasks and actors without a reservation."""


def shares(kind: str) -> Shares:
    """Who has the cluster's `CPU` or `GPU` now. Trainings and trials reserve theirs as Ray's placement groups."""
    job = ray.get_runtime_context().get_job_id()
    ours = theirs = 0.0
    for name, group in placement_group_table().items():
        if group["state"] == "CREATED":
            amount = sum(bundle.get(kind, 0) for bundle in group["bundles"].values())
            if name.endswith(job):  # an identifier ends with that of the job that it belongs to
                ours += amount
            else:
                theirs += amount
    free = ray.available_resources().get(kind, 0)  # type: ignore[no-untyped-call]
    total = ray.cluster_resources().get(kind, 0)  # type: ignore[no-untyped-call]
    return Shares(free, ours, theirs, max(0.0, total - free - ours - theirs))


def wait_for_room(wanted: Mapping[str, float], say: Callable[[str], None]) -> None:
    """Waits until so much of the cluster is free. Says every PATIENCE seconds who has it.

    Raises:
        RunError: for HOPELESS_SECONDS there was not enough of it even if all other programs ended.
    """
    began = told = hoped = time.monotonic()
    while True:
        there = {kind: shares(kind) for kind, amount in wanted.items() if amount}
        lacking = [kind for kind, has in there.items() if has.free < wanted[kind]]
        if not lacking:
            return
        now = time.monotonic()
        who = "; ".join(_who_has(kind, wanted[kind], there[kind]) for kind in lacking)
        if all(there[kind].free + there[kind].theirs >= wanted[kind] for kind in lacking):
            hoped = now
        if now - hoped > HOPELESS_SECONDS:
            raise RunError(
                f"the cluster has no room, and nobody gives any back: {who}. End what holds it (actors, an earlier "
                "training of this process), or start this process again"
            )
        if now - told > PATIENCE:
            told = now
            say(f"waiting for room since {now - began:.0f} s: {who}")
        time.sleep(0.2)


def _who_has(kind: str, wanted: float, has: Shares) -> str:
    return (
        f"{wanted:g} {kind} needed, {has.free:g} free; this process holds {has.ours:g}, other programs "
        f"{has.theirs:g}, tasks and actors {has.rest:g}"
    )


def fit_and_let_go(fit: Callable[[], object]) -> None:
    """Calls the `fit` of a trainer or a tuner. However that ends, all that it had of the cluster is free then.

    After an error Ray's actors would live on with whoever keeps the error, as a notebook does: its traceback refers to
    them, and so does the trainer's handler of Ctrl-C, which stays, and ends the process instead of raising
    KeyboardInterrupt. Reservations stay behind where the actor that has made them was ended.

    Raises:
        KeyboardInterrupt: Ctrl-C.
        Exception: what `fit` raises, with its traceback as a note.
    """
    before, outer = _reservations(), sys.exception()
    handler = signal.getsignal(signal.SIGINT)
    ended: BaseException | None = None
    try:
        fit()
    except BaseException as error:
        ended = error
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGINT, handler)
    if ended is None:
        return
    if isinstance(ended, Exception):
        ended.add_note("".join(traceback.format_exception(ended)))
    each: BaseException | None = ended
    while each is not None and each is not outer:
        each = each.with_traceback(None).__context__
    gc.collect()  # what refers to each other
    for name in _reservations() - before:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))
    if isinstance(ended, SystemExit) and ended.code != signal.SIGTERM:
        raise KeyboardInterrupt
    raise ended


def _reservations() -> set[str]:
    """What this process has reserved. In a trial nothing: what its sweep has reserved is not the trial's own."""
    context = ray.get_runtime_context()
    if context.get_actor_id() is not None:
        return set()
    groups = placement_group_table().items()
    return {name for name, group in groups if name.endswith(context.get_job_id()) and group["state"] != "REMOVED"}
