"""Taking in bodies: no more bytes than are allowed, no more at a time than there is memory for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psutil
from fastapi import Request
from starlette.requests import ClientDisconnect

from service.observe import Metrics
from service.problems import Problem
from service.settings import LimitsConfig

MEGABYTE = 1_000_000
COPIES = 3
"""What a request holds, in bytes of its body: the body, the array made of it, the images."""


class BodyBudget:
    """The bodies that are in memory.

    Args:
        limits: on each, and on all together.
        metrics: show how many bytes there are.
    """

    def __init__(self, limits: LimitsConfig, metrics: Metrics) -> None:
        self.most = int(limits.body_mb * MEGABYTE)
        self.seconds = limits.request_seconds
        waiting = limits.waiting_mb
        self.room = int(waiting * MEGABYTE) if waiting else psutil.virtual_memory().available // 4 // COPIES
        self.held = 0
        self._metrics = metrics

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytearray]:
        """The body of a request, which counts as held until the block ends.

        Raises:
            Problem: 400 for a length that is none, 408 for a body that does not come, 413 for one that is too long
                (before it is read, where its length is known), 503 where there is no room for it now.
        """
        length = self._length(request)
        if length is not None and length > self.most:
            raise self._too_long(length)
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self.held and self.held + size > self.room:
                raise Problem(
                    503,
                    f"the bodies of other requests take {self.held} of {self.room} bytes; try again in a second",
                    {"Retry-After": "1"},
                )
            self.held += size
            taken += size
            self._metrics.bodies.set(self.held)

        try:
            if length:
                take(length)
            try:
                async with asyncio.timeout(self.seconds):
                    body = await self._receive(request, length, take)
            except TimeoutError:
                raise Problem(
                    408, f"the body had not come whole after {self.seconds:g} s; send it faster, or less of it"
                ) from None
            yield body
        finally:
            self.held -= taken
            self._metrics.bodies.set(self.held)

    async def _receive(self, request: Request, length: int | None, take: Callable[[int], None]) -> bytearray:
        body = bytearray(length or 0)
        filled = 0
        async for chunk in request.stream():
            end = filled + len(chunk)
            if end > self.most:
                raise self._too_long(end)
            if length is None:
                take(len(chunk))
                body += chunk
            else:
                body[filled:end] = chunk
            filled = end
        if length is not None and filled != length:
            raise ClientDisconnect
        return body

    @staticmethod
    def _length(request: Request) -> int | None:
        given = request.headers.get("content-length")
        if given is None:
            return None
        if not given.isdecimal():
            raise Problem(400, f"Content-Length should be a number of bytes; got {given[:40]!r}")
        return int(given)

    def _too_long(self, size: int) -> Problem:
        return Problem(
            413,
            f"a body may have {self.most} bytes, but this one has {size} or more; send the stack in parts",
            {"Connection": "close"},
        )
