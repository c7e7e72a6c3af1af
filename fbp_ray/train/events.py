"""From the workers to the driver: what happens, in order, without either waiting for the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

LOOK_SECONDS = 1.0  # from one look to the next: each costs the processors a millisecond or two

Event = dict[str, Any]


class _Kept:
    """Keeps events until they are taken."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def put(self, event: Event) -> None:
        self.events.append(event)

    def take(self) -> list[Event]:
        taken, self.events = self.events, []
        return taken


class Events:
    """A queue of events. Made by the driver, on its own machine: it must not be lost with another."""

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._sent: Any = None
        self._kept: Any = ray.remote(_Kept).options(num_cpus=0, scheduling_strategy=here).remote()

    def put(self, event: Event) -> None:
        """Sends an event and does not wait."""
        self._sent = self._kept.put.remote(event)

    def flush(self) -> None:
        """Waits until what was sent from this process has arrived."""
        if self._sent is not None:
            ray.get(self._sent)

    def take(self) -> list[Event]:
        """What has come since the last time."""
        taken: list[Event] = ray.get(self._kept.take.remote())
        return taken

    @contextmanager
    def shown(self, show: Callable[[Event], None], otherwise: Callable[[], None]) -> Iterator[None]:
        """Passes events to `show` from a thread, until the block ends and none is left.

        Args:
            show: is called with each.
            otherwise: is called at each look that found nothing.
        """
        done = threading.Event()

        def look() -> None:
            while True:
                ended = done.is_set()
                events = self.take()
                for event in events:
                    show(event)
                if not events:
                    otherwise()
                if ended:
                    return
                done.wait(LOOK_SECONDS)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(timeout=30)
            ray.kill(self._kept)
