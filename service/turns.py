"""Blocking work of one kind in threads of its own, so that no kind can take the threads of all."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

from service.problems import Problem

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Turns:
    """Threads for one kind of work, a queue before them that ends, and a time limit.

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
        self._queue: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
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
        future: Future[Result] = Future()
        work = future, lambda: function(*args, **kwargs)
        with self._changed:
            if self._unfinished >= self.most:
                raise self._problem(f"{self._unfinished} requests for {self.what} are in hand or wait, which is most")
            self._unfinished += 1
            self._queue.append(work)
            if self._started < min(self.threads, self._unfinished):
                self._started += 1
                threading.Thread(target=self._work, name=self.what, daemon=True).start()
            self._changed.notify()
        try:
            async with asyncio.timeout(self.seconds) as limit:
                return await asyncio.wrap_future(future)
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
                future, function = self._queue.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)
            del future, function  # not kept until the next work comes
            with self._changed:
                self._unfinished -= 1
