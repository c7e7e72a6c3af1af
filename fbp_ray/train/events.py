"""From the workers to the driver: what happens, in order, without either waiting for the other.

Events lie in the key-value store of Ray's head. An actor that keeps them would wake a hundred times a second to look
for signals, as all of Ray's processes do, and take a hundredth of a processor from the training.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from ray.exceptions import RpcError
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get, _internal_kv_list, _internal_kv_put

LOOK_SECONDS = 1.0  # from one look to the next: each costs the processors a millisecond or two
FLUSH_SECONDS = 30.0
NAMESPACE = "fbp-ray"

Event = dict[str, Any]


class Events:
    """A queue of events, which JSON can hold. The driver makes it and gives it to the others; each may put, it takes.

    Those of one process come in the order in which it put them, those of several by their clocks.
    """

    def __init__(self, prefix: str | None = None) -> None:
        self._prefix = prefix or f"events-{uuid.uuid4().hex}-"
        self._sender_id = uuid.uuid4().hex
        self._last = 0
        self._sender: ThreadPoolExecutor | None = None
        self._sent: Future[object] | None = None

    def __reduce__(self) -> tuple[type[Events], tuple[str]]:
        return Events, (self._prefix,)

    def put(self, event: Event) -> None:
        """Sends an event and does not wait; one that cannot be sent is lost."""
        if self._sender is None:
            self._sender = ThreadPoolExecutor(1, "events")
        self._last = max(self._last + 1, time.time_ns())
        key = f"{self._prefix}{self._last:020d}-{self._sender_id}"
        self._sent = self._sender.submit(_internal_kv_put, key, json.dumps(event), namespace=NAMESPACE)

    def flush(self) -> None:
        """Waits until what was sent from this process has arrived, or cannot."""
        if self._sent is not None:
            self._sent.exception(FLUSH_SECONDS)

    def take(self) -> list[Event]:
        """What has come since the last time; nothing while the head does not answer."""
        taken = []
        try:
            for key in sorted(_internal_kv_list(self._prefix, namespace=NAMESPACE)):
                taken.append(json.loads(_internal_kv_get(key, namespace=NAMESPACE)))
                _internal_kv_del(key, namespace=NAMESPACE)
        except RpcError:
            pass
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
