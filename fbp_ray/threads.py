"""Sharing out tasks among as many threads as torch is told to use, and how many processors there are for them."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ThreadPoolExecutor, wait
from pathlib import Path

import torch


def parallel_for(task: Callable[[int, int], None], count: int, size: int) -> None:
    """Calls `task(first, last)` for the numbers 0 to count - 1, `size` at a time, on `torch.get_num_threads()` threads.

    For tasks that leave the interpreter's lock and do not call torch. Any number of threads may call at once.
    """
    starts = range(0, count, size)
    waiting = iter(starts)  # each number is handed out once, whichever thread asks

    def work() -> None:
        for first in waiting:
            task(first, min(first + size, count))

    _by_helpers(work, len(starts))


def parallel_for_torch(task: Callable[[int], None], count: int) -> None:
    """Calls `task(number)` for the numbers 0 to count - 1 on `torch.get_num_threads()` threads.

    For tasks that call torch on a CPU, each of them on one thread, without gradients, and write into tensors that are
    there. Torch's own threads share every single operation and wait for each other after it, which takes many times
    longer than the operation as soon as another program has one of the processors; these wait once, at the end.
    """
    waiting = iter(range(count))

    def work() -> None:
        # no_grad would leave forward mode on: an operator turns it off, but for its own thread only
        with torch.inference_mode():
            for number in waiting:
                task(number)

    _by_helpers(work, count)


def _by_helpers(work: Callable[[], None], count: int) -> None:
    """Has as many threads work as torch is told to use and there are tasks for; the caller waits, or works alone.

    So it is the same threads each time, and the system leaves each on its processor. The caller cannot be one of them
    for tasks that call torch, which would use all of its threads for what the caller calls; as one of them for the
    other tasks it shared a processor with a helper now and then, and a training step took a seventh longer.
    """
    helpers = min(torch.get_num_threads(), count)
    if helpers < 2:
        work()
        return
    helping: list[Future[None]] = []
    with contextlib.suppress(RuntimeError):  # the main thread has ended, and with it the helpers: no new ones come
        for _ in range(helpers):
            helping.append(_pool(os.getpid()).submit(work))  # noqa: PERF401 - those before an error count
    if not helping:
        work()
        return
    wait(helping, return_when=FIRST_COMPLETED)  # it found nothing left to do: who has not begun need not
    begun = [helper for helper in helping if not helper.cancel()]
    wait(begun)
    try:
        for helper in begun:
            helper.result()
    except BrokenExecutor:  # a helper could not be started
        work()


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """The helpers of this process: a forked child does not inherit threads, and so has its own."""
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="fbp-ray", initializer=use_one_thread)


def use_one_thread() -> None:
    """Has torch use one thread for what this thread calls, and as many as before for what others call."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)  # for this thread, and for threads that call torch for the first time from now on
    restoring = threading.Thread(target=torch.set_num_threads, args=(usual,))
    with contextlib.suppress(RuntimeError):  # no thread can be started once the main thread has ended
        restoring.start()
        restoring.join()


def processors() -> int:
    """The processors that this process may use: what it is bound to, and what the limit of its container allows."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(bound, math.ceil(limit() or bound))


def limit() -> float | None:
    """The processors that a container may use at a time (cgroup v2 or v1), None where nothing limits it."""
    root = Path("/sys/fs/cgroup")
    try:
        if (root / "cpu.max").is_file():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError):  # there is no such thing here, or it says "max"
        return None
