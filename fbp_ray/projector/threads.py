"""Sharing out the tasks of a kernel among as many threads as torch is told to use."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def share(task: Callable[[int, int], None], count: int, size: int) -> None:
    """Calls `task(first, last)` for the numbers 0 to count - 1, `size` at a time, on `torch.get_num_threads()` threads.

    The caller works through the tasks itself and others only help: any number of threads may call at once, and none
    waits for a thread that has not started on its tasks.
    """
    starts = range(0, count, size)
    waiting = iter(starts)  # each number is handed out once, whichever thread asks

    def work() -> None:
        for first in waiting:
            task(first, min(first + size, count))

    helpers = min(torch.get_num_threads(), len(starts)) - 1
    if helpers < 1:
        work()
        return
    helping = [_pool(os.getpid()).submit(work) for _ in range(helpers)]
    try:
        work()
    finally:
        for helper in helping:
            if not helper.cancel():
                helper.result()


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """The helpers of this process: a forked child does not inherit threads, and so has its own."""
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="fbp-ray")
