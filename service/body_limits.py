"""Limits on bodies: their size, the memory for all of them together, and how deep JSON is nested."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
from fastapi import Request
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.observability import Metrics
from service.problems import Problem, problem_response
from service.settings import LimitsConfig

MEGABYTE = 1_000_000
COPIES = 3
"""A request takes this many times the memory of its body: the body, the array made of it, the images."""
_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS", "DELETE")
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[][{}]', re.DOTALL)


class BodyBudget:
    """The memory for bodies of sinograms.

    Args:
        limits: on the size of each body, and of all together.
        metrics: told how many bytes are in use.
    """

    def __init__(self, limits: LimitsConfig, metrics: Metrics) -> None:
        self.max_bytes = int(limits.body_mb * MEGABYTE)
        self.seconds = limits.request_seconds
        waiting = limits.waiting_mb
        self.budget = int(waiting * MEGABYTE) if waiting else psutil.virtual_memory().available // 4 // COPIES
        self.in_use = 0
        self._metrics = metrics

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytearray]:
        """The body of a request, which counts against the budget until the block ends.

        Raises:
            Problem: 400 for a length that is no number, 408 for a body that does not come, 413 for one that is too long
                (before it is read, where its length is known), 503 where there is no room for it now.
            ClientDisconnect: the client went away.
        """
        length = self._length(request)
        body = bytearray()
        taken = 0
        try:
            try:
                async with asyncio.timeout(self.seconds):
                    if length is not None:
                        taken += self._take(length)
                        body = bytearray(length)
                    filled = 0
                    async for chunk in request.stream():
                        end = filled + len(chunk)
                        self._refuse_if_long(end)
                        if length is None:
                            taken += self._take(len(chunk))
                        body[filled:end] = chunk
                        filled = end
            except TimeoutError:
                raise Problem(
                    408, f"the body had not come whole after {self.seconds:g} s; send it faster, or less of it"
                ) from None
            if length is not None and filled != length:
                raise ClientDisconnect
            yield body
        finally:
            self.in_use -= taken
            self._metrics.bodies.set(self.in_use)

    def _length(self, request: Request) -> int | None:
        given = request.headers.get("content-length")
        if given is None:
            return None
        if not given.isdecimal():
            raise Problem(400, f"Content-Length should be a number of bytes; got {given[:40]!r}")
        self._refuse_if_long(int(given))
        return int(given)

    def _refuse_if_long(self, size: int) -> None:
        if size > self.max_bytes:
            raise Problem(
                413,
                f"a body may have {self.max_bytes} bytes, but this one has {size} or more; send the stack in parts",
                {"Connection": "close"},
            )

    def _take(self, size: int) -> int:
        if size and self.in_use and self.in_use + size > self.budget:
            raise Problem(
                503,
                f"the bodies of other requests take {self.in_use} of {self.budget} bytes; try again in a second",
                {"Retry-After": "1"},
            )
        self.in_use += size
        self._metrics.bodies.set(self.in_use)
        return size


class JsonLimits:
    """Refuses large and deep JSON before anything parses it, on all routes but /reconstruct.

    Bodies that are compressed as a whole are refused on every route: limits hold for what is sent.
    """

    def __init__(self, app: ASGIApp, limits: LimitsConfig) -> None:
        self.app = app
        self.max_bytes = limits.json_kb * 1000
        self.max_depth = limits.json_depth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it."""
        if scope["type"] != "http" or scope["method"] in _WITHOUT_BODY:
            await self.app(scope, receive, send)
            return
        request_id = scope.get("state", {}).get("request_id", "")
        encoding = Headers(scope=scope).get("content-encoding", "identity")
        if encoding.strip().lower() not in ("identity", ""):
            refusal = Problem(
                415,
                f"a body with Content-Encoding: {encoding[:40]} is not taken; send it as it is, or sinograms in a file "
                "that compresses its own arrays (.npz, .h5)",
                {"Accept-Encoding": "identity", "Connection": "close"},
            )
            await problem_response(refusal, request_id)(scope, receive, send)
            return
        if scope["path"].removeprefix(scope.get("root_path", "")) == "/reconstruct":
            await self.app(scope, receive, send)
            return
        body = b""
        more = True
        while more and len(body) <= self.max_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        problem = None
        if len(body) > self.max_bytes:
            detail = f"a JSON body may have {self.max_bytes} bytes; leave out what is not needed"
            problem = Problem(413, detail, {"Connection": "close"})
        elif depth(body) > self.max_depth:
            problem = Problem(422, f"a JSON body may be nested {self.max_depth} deep; a configuration needs no more")
        if problem is not None:
            await problem_response(problem, request_id)(scope, receive, send)
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self.app(scope, replay, send)


def depth(text: bytes) -> int:
    """How deep the brackets of a JSON text are nested; those in strings do not count."""
    deepest = level = 0
    for token in _STRING_OR_BRACKET.findall(text):
        if token in (b"[", b"{"):
            level += 1
            deepest = max(deepest, level)
        elif token in (b"]", b"}"):
            level -= 1
    return deepest
