"""The server's connections: how many, how large a head, how long without news; and an end in time."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import threading
import time
from collections import deque
from http import HTTPStatus
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from service.problems import Problem, problem_response
from service.settings import LimitsConfig, Settings

PIPELINED = 16
"""Requests that a client may send without waiting for answers; their heads count as one."""
FOR_HEALTH = 16
"""Connections beyond the limit, for /health alone."""
OTHER_FILES = 128
"""Files that the process needs besides connections."""
LAST_SECONDS = 1.5
"""Of the time for ending, what is left to put away models, jobs and files when requests have had theirs."""
REFUSALS = {
    414: "the URL and the headers of a request may have {} bytes together; this URL has more",
    429: "requests are taken one after the other; wait for an answer before the next, or send no more than a few",
    431: "the URL and the headers of a request may have {} bytes together, but these have more; leave out some",
}
_log = logging.getLogger("service")


class Server(uvicorn.Server):
    """A server that keeps the limits on connections, and is gone in time.

    Args:
        app: the service.
        settings: where it listens, and the limits.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        limits = settings.limits
        before_last = max(limits.end_seconds / 2, limits.end_seconds - LAST_SECONDS)
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http="httptools",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=cast("int", before_last),  # asyncio takes fractions
        )
        config.load()
        self.watch = Watch(limits)
        config.http_protocol_class = bounded(config.http_protocol_class, self.watch)
        super().__init__(config)
        self.closing: threading.Event = app.state.closing
        self.end_seconds = limits.end_seconds

    async def on_tick(self, counter: int) -> bool:
        """Is called ten times a second."""
        if counter % 10 == 0:
            self.watch.look()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Takes a signal to end, which endless answers hear at once: uvicorn waits for them."""
        if not self.closing.is_set():
            last = threading.Timer(self.end_seconds, _end_at_once)
            last.daemon = True
            last.start()
        self.closing.set()
        super().handle_exit(sig, frame)


def _end_at_once() -> None:
    _log.error("the time for ending is over: what is unfinished is given up")
    logging.shutdown()
    os.kill(os.getpid(), signal.SIGKILL)


class Watch:
    """All connections, by what they are at.

    Args:
        limits: how many there may be, and how long they may be silent.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = hard if hard != resource.RLIM_INFINITY else max(soft, limits.connections + OTHER_FILES + FOR_HEALTH)
        wanted = min(max(soft, limits.connections + OTHER_FILES + FOR_HEALTH), files)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        self.most = max(1, min(limits.connections, wanted - OTHER_FILES - FOR_HEALTH))
        if self.most < limits.connections:
            _log.warning("only %d connections at a time: the process may open %d files", self.most, wanted)
        self.seconds = limits.idle_seconds
        self.least = int(limits.slowest_kb * 1000 * limits.idle_seconds)  # bytes that are taken in that time
        self.head_bytes = limits.head_kb * 1000
        self.open: dict[Any, None] = {}  # in the order of their opening
        self._complained = -60.0

    def complain(self) -> None:
        """Logs, at most once a minute, that there are too many connections."""
        if time.monotonic() - self._complained >= 60:
            self._complained = time.monotonic()
            _log.warning("%d connections are open, and at most %d may be; others get 503", len(self.open), self.most)

    def look(self) -> None:
        """Closes those of which nothing has been heard for too long."""
        now = time.monotonic()
        for connection in list(self.open):
            since = connection.waits_since()
            if (since is not None and now - since > self.seconds) or connection.takes_too_little(now):
                connection.transport.abort()


def bounded(protocol: Any, watch: Watch) -> type[asyncio.Protocol]:
    """The server's protocol with the limits of `watch`.

    What it adds to are the methods of asyncio's protocols, and those that httptools' parser calls.
    """

    class Bounded(protocol):  # type: ignore[misc]
        """A connection."""

        def connection_made(self, transport: asyncio.Transport) -> None:
            self.since = time.monotonic()  # it has been at what it is at
            self.in_head = True  # the client is to send a head
            self.in_body = False  # and then a body
            self.heads: deque[int] = deque()  # bytes, of the requests that are not answered yet
            self.answered = 0  # requests
            self.refused: Problem | None = None
            self.looked_at = self.since, 0  # at what waits to be sent, and how much that was
            self.head = self.progress = self.silent = 0
            super().connection_made(transport)
            if len(watch.open) >= watch.most:
                watch.complain()
                oldest = next((other for other in watch.open if other.in_head and not other.answered), None)
                if oldest is not None:  # it has never asked for anything, and others want to
                    oldest.transport.abort()
                    watch.open.pop(oldest)
                elif len(watch.open) < watch.most + FOR_HEALTH:
                    self.app_state = {"crowded": True}  # what requests find in their state
                else:
                    transport.abort()
                    return
            watch.open[self] = None

        def connection_lost(self, error: Exception | None) -> None:
            watch.open.pop(self, None)
            super().connection_lost(error)

        def waits_since(self) -> float | None:
            """Since when the client is to send or to take something; None while that is the application's to judge."""
            if self.heads and not self.transport.is_closing():
                return None
            if self.refused or self.transport.is_closing() or self.in_head or self.in_body:
                return self.since
            return None

        def takes_too_little(self, now: float) -> bool:
            """Whether the client has taken less of what waits for it than it must, since that was looked at last."""
            unsent = self.transport.get_write_buffer_size()
            looked, then = self.looked_at
            if not then >= unsent > 0:  # nothing waits, or more of the answer came, which happens when most is taken
                self.looked_at = now, unsent
            elif now - looked > watch.seconds:
                self.looked_at = now, unsent
                return bool(then - unsent < watch.least)
            return False

        def data_received(self, data: bytes) -> None:
            if self.refused is not None:
                return  # the rest of what it sends, until it has read why
            progress = self.progress
            super().data_received(data)
            self.silent = self.silent + len(data) if progress == self.progress else 0
            if self.silent > watch.head_bytes and self.refused is None:
                self.refuse(431 if self.head else 414)

        def on_message_begin(self) -> None:
            self.in_head, self.head, self.since = True, 0, time.monotonic()
            if len(self.heads) >= PIPELINED:
                self.refuse(429)
                raise ValueError("too many requests in one go")
            super().on_message_begin()

        def on_url(self, url: bytes) -> None:
            self.count(len(url), 414)
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            self.count(len(name) + len(value) + 4, 431)
            super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self.in_head, self.in_body, self.since = False, True, time.monotonic()
            self.heads.append(self.head)
            self.head = 0
            self.progress += 1
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self.progress += 1
            super().on_body(body)

        def on_message_complete(self) -> None:
            self.in_body = False
            self.progress += 1
            super().on_message_complete()

        def on_response_complete(self) -> None:
            self.heads.popleft()
            self.answered += 1
            self.since = time.monotonic()
            super().on_response_complete()
            if self.refused is not None and not self.heads:
                self.send_refusal(self.refused)
            elif (
                len(self.heads) > 1 and not self.transport.is_closing()
            ):  # others wait: more is taken when their turn has come
                self.flow.pause_reading()

        def count(self, size: int, status: int) -> None:
            """Counts bytes of the URL, of headers, or of those that may follow a body."""
            self.head += size
            if self.head + sum(self.heads) > watch.head_bytes:
                self.refuse(status if self.head > watch.head_bytes or not self.heads else 429)
                raise ValueError("the head is too large")

        def refuse(self, status: int) -> None:
            """Answers that nothing more is taken."""
            self.since = time.monotonic()
            self.refused = Problem(status, REFUSALS[status].format(watch.head_bytes), {"Connection": "close"})
            if self.in_body:  # of which the application will not see the end
                self.transport.abort()
            elif not self.heads:  # otherwise the application answers first
                self.send_refusal(self.refused)

        def send_refusal(self, problem: Problem) -> None:
            """Answers, and takes and sends nothing more."""
            answer = problem_response(problem)
            head = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n".encode()
            head += b"".join(name + b": " + value + b"\r\n" for name, value in answer.raw_headers)
            self.transport.write(head + b"\r\n" + answer.body)
            self.transport.write_eof()

        def send_400_response(self, text: str) -> None:
            if self.refused is None:
                super().send_400_response(text)

    return Bounded
