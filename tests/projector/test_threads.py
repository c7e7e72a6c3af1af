"""Tasks are each done once, on as many threads as torch is told to use; an error in one of them reaches the caller."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fbp_ray import threads


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 97])
def test_every_number_is_done_once(count: int) -> None:
    alone: list[int] = []
    threads.parallel_for_torch(alone.append, count)
    assert sorted(alone) == list(range(count))
    together: list[int] = []
    threads.parallel_for(lambda first, last: together.extend(range(first, last)), count, 10)
    assert sorted(together) == list(range(count))


@pytest.mark.skipif(os.cpu_count() == 1, reason="there are no more helpers than processors")
def test_as_many_threads_work_as_torch_is_told_to_use() -> None:
    both = threading.Barrier(2, timeout=60)  # breaks, and raises, unless two tasks are under way at once
    threads.parallel_for_torch(lambda number: both.wait(), 2)
    three = threading.Barrier(3, timeout=0.5)
    with pytest.raises(threading.BrokenBarrierError):
        threads.parallel_for_torch(lambda number: three.wait(), 3)


def test_tasks_run_on_one_thread_of_torch_each_and_without_gradients() -> None:
    seen: list[tuple[int, bool]] = []
    threads.parallel_for_torch(lambda number: seen.append((torch.get_num_threads(), torch.is_grad_enabled())), 8)
    assert seen == [(1, False)] * 8
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(os.cpu_count() == 1, reason="there are no more helpers than processors")
@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_reaches_the_caller_when_no_task_runs_any_more(failing: int) -> None:
    both = threading.Barrier(2, timeout=60)
    ended: list[int] = []

    def task(number: int) -> None:
        both.wait()
        if number == failing:
            raise ValueError("one of them")
        time.sleep(0.2)
        ended.append(number)

    with pytest.raises(ValueError, match="one of them"):
        threads.parallel_for_torch(task, 2)
    assert ended == [1 - failing]


def test_nobody_waits_for_a_thread_that_others_keep_busy() -> None:
    pool, released = threads._pool(os.getpid()), threading.Event()
    busy = [pool.submit(released.wait) for _ in range((os.cpu_count() or 1) - 1)]
    done: list[int] = []
    try:
        with ThreadPoolExecutor(1) as caller:
            caller.submit(threads.parallel_for_torch, done.append, 20).result(timeout=60)
    finally:
        released.set()
    assert sorted(done) == list(range(20))
    assert all(one.result(timeout=60) for one in busy)


def test_after_the_main_thread_has_ended_the_caller_works() -> None:
    code = (
        "import threading, torch\n"
        "from fbp_ray.threads import parallel_for, parallel_for_torch, use_one_thread\n"
        "torch.set_num_threads(2)\n"
        "def late():\n"
        "    threading.main_thread().join()\n"
        "    done = []\n"
        "    parallel_for_torch(done.append, 20)\n"
        "    parallel_for(lambda first, last: done.extend(range(first, last)), 20, 3)\n"
        "    use_one_thread()\n"
        "    print(sorted(done) == sorted(2 * list(range(20))))\n"
        "threading.Thread(target=late).start()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.stdout.strip(), done.stderr) == ("True", "")
