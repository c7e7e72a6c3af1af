"""The memory that requests take: counted as it comes, refused before it is taken, until the answer is sent."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fbp_ray.memory import available_bytes
from service.observability import Metrics
from service.problems import Problem
from service.settings import LimitsConfig

MEGABYTE = 1_000_000
SHARE = 0.6
"""Of the memory that is free when the service starts, its requests may take so much; models and others need some."""

LARGE, SMALL = 0.8, 0.05
"""Of that, requests may fill the first part; the rest is left to those that take no more than the second."""


class Memory:
    """The memory for all requests together. Any thread may take and give.

    Args:
        limits: says how much there is; without that a share of what the machine, or its container, has free.
        metrics: told how many bytes are in use.
    """

    def __init__(self, limits: LimitsConfig, metrics: Metrics) -> None:
        waiting = limits.waiting_mb
        self.budget = int(waiting * MEGABYTE if waiting else SHARE * available_bytes())
        self.in_use = 0
        self.given_back = 0
        """Bytes since the C library was last told to give memory back."""
        self._metrics = metrics
        self._changing = threading.Lock()

    @property
    def free(self) -> int:
        """Bytes that may still be taken."""
        return self.budget - self.in_use

    def take(self, size: int, already: int) -> None:
        """Counts bytes that are about to be taken by somebody who has some already.

        Raises:
            Problem: 413 for more than there is for all; 503, others have it.
        """
        small = already + size <= SMALL * self.budget
        most = int(self.budget * (1 if small else LARGE))
        with self._changing:
            if self.in_use + size > most:
                if already + size > most:
                    raise Problem(
                        413,
                        f"this takes {already + size} bytes of memory at a time, and may take {most}; send the stack "
                        "in parts",
                    )
                raise Problem(
                    503,
                    f"other requests take {self.in_use} of {self.budget} bytes of memory; try again in a second",
                    {"Retry-After": "1"},
                )
            self._add(size)

    def give(self, size: int) -> None:
        """Counts bytes that are free again."""
        with self._changing:
            self.given_back += size
            self._add(-size)

    def _add(self, size: int) -> None:
        self.in_use += size
        self._metrics.bodies.set(self.in_use)

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Counts bytes while the block runs, which cannot be refused any more."""
        with self._changing:
            self._add(size)
        try:
            yield
        finally:
            self.give(size)

    def give_to_system(self) -> None:
        """Has the C library give back the memory that is free again: it keeps what it once had."""
        self.given_back = 0
        if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
            trim(0)


class Bill:
    """What one request has taken. It is paid back when the last of the blocks that it is the context of ends: that of
    the request, and those of threads that still work for it when nobody waits any more.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.bytes = 0
        self._blocks = 0
        self._changing = threading.Lock()

    def take(self, size: int) -> None:
        """Counts bytes that are about to be taken.

        Raises:
            Problem: 413 for more than there is for all; 503, others have it.
        """
        self.memory.take(size, self.bytes)
        with self._changing:
            self.bytes += size

    def give(self, size: int) -> None:
        """Counts bytes that are free again."""
        with self._changing:
            self.bytes -= size
        self.memory.give(size)

    def __enter__(self) -> Bill:
        with self._changing:
            self._blocks += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._changing:
            self._blocks -= 1
            if self._blocks:
                return
            size, self.bytes = self.bytes, 0
        self.memory.give(size)
