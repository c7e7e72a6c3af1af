"""Blocking work of one kind in threads of its own, so that no kind can take the threads of all."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

from service.problems import Problem

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Work(Generic[Result]):
    function: Callable[[], Result]
    whose: str
    done: Future[Result]


class Turns:
    """Threads for one kind of work, a queue before them that ends, and a time limit.

    Those who have the fewest threads come first, and nobody may fill more than half of the queue.

    Args:
        threads: that work at a time. They are daemons: one that hangs does not keep the process from ending.
        waiting: how much more work may wait for one of them.
        seconds: that a caller waits for its turn and for the work together.
        what: names the work in messages.
    """

    def __init__(self, threads: int, waiting: int, seconds: float, what: str = "work of this kind") -> None:
        self.threads = threads
        self.most = threads + waiting
        self.seconds = seconds
        self.what = what
        self._changed = threading.Condition()
        self._queue: list[_Work[Any]] = []
        self._at_work: Counter[str] = Counter()  # threads by whom they work for
        self._unfinished = 0
        self._started = 0
        self._closed = False

    async def run(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """What the function returns or raises. Work that nobody waits for any more and that has not begun is left out.

        Raises:
            Problem: 503 when too much waits already, or it took too long. What had begun then goes on, and holds its
                thread until it ends.
        """
        return await self.run_for("", partial(function, *args, **kwargs))

    async def run_for(self, whose: str, function: Callable[[], Result]) -> Result:
        """The same for one of several clients, who share the threads fairly."""
        work = _Work(function, whose, Future())
        with self._changed:
            mine = sum(other.whose == whose for other in self._queue)
            if self._unfinished >= self.most or (whose and mine >= max(1, (self.most - self.threads) // 2)):
                raise self._problem(f"{self._unfinished} requests for {self.what} are in hand or wait, which is most")
            self._unfinished += 1
            self._queue.append(work)
            if self._started < min(self.threads, self._unfinished):
                self._started += 1
                threading.Thread(target=self._work, name=self.what, daemon=True).start()
            self._changed.notify()
        try:
            async with asyncio.timeout(self.seconds) as limit:
                return await asyncio.wrap_future(work.done)
        except TimeoutError:
            if not limit.expired():
                raise  # the work's own
            raise self._problem(f"{self.what} took more than {self.seconds:g} s") from None
        finally:
            with self._changed:
                if work in self._queue:
                    self._queue.remove(work)
                    self._unfinished -= 1

    def close(self) -> None:
        """Has the threads end when they have finished what they are at."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _problem(self, why: str) -> Problem:
        return Problem(503, f"{why}; try again later", {"Retry-After": "2"})

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return
                work = min(self._queue, key=lambda work: self._at_work[work.whose])  # of equals the first
                self._queue.remove(work)
                self._queue.sort(key=lambda other: other.whose == work.whose)  # the others' turn is before its next
                self._at_work[work.whose] += 1
            tell: Callable[[], object] = bool
            if work.done.set_running_or_notify_cancel():
                try:
                    tell = partial(work.done.set_result, work.function())
                except BaseException as error:
                    tell = partial(work.done.set_exception, error)
            with self._changed:
                self._unfinished -= 1
                self._at_work[work.whose] -= 1
                self._at_work += Counter()  # forgets those without a thread
            tell()
            del work, tell  # not kept until the next one comes
