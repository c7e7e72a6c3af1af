"""What every request passes before it is read: who sends it, how large it is, how fast it comes and goes."""

from __future__ import annotations

import asyncio
import re

import numpy as np
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access import authorise, refuse_other_sites
from service.memory import Bill, Memory
from service.problems import Problem, problem_response
from service.settings import LimitsConfig, Settings

PART = 1 << 20
"""Bytes of an answer that are handed to the server at a time: so many may wait for a client that does not take them."""
CLIENT_GONE = 499  # what proxies log for a client that went away; nobody receives it
_HEALTH = ("/health/live", "/health/ready")
_FILES = ("/reconstruct", "/array", "/noise")
"""Where bodies are files, which the routes read themselves; all other bodies are JSON, for those who may operate."""
_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS", "DELETE")
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[][{}]', re.DOTALL)


class Intake:
    """Refuses who may not ask before a body is read, and large or deep JSON before it is parsed.

    It gives each request a `bill` of the memory that it takes until the last byte of its answer is sent. Bodies that
    are compressed as a whole are refused: limits hold for what is sent.
    """

    def __init__(self, app: ASGIApp, settings: Settings, memory: Memory) -> None:
        self.app = app
        self.settings = settings
        self.memory = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        parts = _InParts(send)
        with Bill(self.memory) as bill:
            state["bill"] = bill
            try:
                receive = await self._admit(scope, receive, bill)
                await self.app(scope, receive, parts)
            except Problem as problem:
                await problem_response(problem, state.get("request_id", ""))(scope, receive, parts)
            except ClientDisconnect:
                if not parts.begun:
                    await Response(status_code=CLIENT_GONE)(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, bill: Bill) -> Receive:
        """What the application receives the request from.

        Raises:
            Problem: it is refused.
            ClientDisconnect: the client went away.
        """
        headers, limits, access = Headers(scope=scope), self.settings.limits, self.settings.access
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path not in _HEALTH:
            if scope["state"].get("crowded"):
                raise Problem(
                    503,
                    f"there are {limits.connections} connections already; try again in a second",
                    {"Retry-After": "1", "Connection": "close"},
                )
            if not (access.reconstruct or access.operate):
                refuse_other_sites(headers, access.cors_origins)
        if scope["method"] in _WITHOUT_BODY:
            return receive
        authorise("reconstruct" if path in _FILES else "operate", headers, self.settings)
        encoding = headers.get("content-encoding", "identity")
        if encoding.strip().lower() not in ("identity", ""):
            raise Problem(
                415,
                f"a body with Content-Encoding: {encoding[:40]} is not taken; send it as it is, or sinograms in a file "
                "that compresses its own arrays (.npz, .h5)",
                {"Accept-Encoding": "identity", "Connection": "close"},
            )
        if path in _FILES:
            return receive
        view = await read_body(receive, bill, headers, limits, limits.json_kb * 1000, "a JSON body")
        body = bytes(view)
        if depth(body) > limits.json_depth:
            raise Problem(422, f"a JSON body may be nested {limits.json_depth} deep; a configuration needs no more")
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        return replay


async def read_body(
    receive: Receive, bill: Bill, headers: Headers, limits: LimitsConfig, most: int, what: str
) -> memoryview:
    """A body, which is put on the bill as it arrives.

    Args:
        receive: gives its parts.
        bill: of the request.
        headers: of the request.
        limits: how long it may take, and how slowly it may come.
        most: bytes that it may have.
        what: names it in messages.

    Raises:
        Problem: 400 for a length that is no number, 408 for a body that does not come, 413 for one that is too long
            (before it is read, where its length is known), 503 where there is no room for it now.
        ClientDisconnect: the client went away.
    """
    known = "content-length" in headers
    given = headers.get("content-length", "0")
    if not (given.isascii() and given.isdecimal()):
        raise Problem(400, f"Content-Length should be a number of bytes; got {given[:40]!r}")
    length = int(given[:18])
    _refuse_if_long(length, most, what)
    announced = np.empty(length, np.uint8).data  # takes memory where it is written to, not before
    body, filled = bytearray(), 0
    loop = asyncio.get_running_loop()
    end, step = loop.time() + limits.request_seconds, int(limits.slowest_kb * 1000 * limits.idle_seconds)
    due = step  # when so much is there, there is time for the next step
    more = True
    try:
        async with asyncio.timeout_at(min(end, loop.time() + limits.idle_seconds)) as limit:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                part, more = message.get("body", b""), message.get("more_body", False)
                end_of_part = filled + len(part)
                _refuse_if_long(end_of_part, most, what)
                if known:
                    bill.take(len(part))
                    announced[filled:end_of_part] = part
                else:  # a bytearray that grows has an eighth to spare
                    bill.take(len(part) + (len(part) >> 3))
                    body += part
                filled = end_of_part
                if filled >= due:
                    due = filled + step
                    limit.reschedule(min(end, loop.time() + limits.idle_seconds))
    except TimeoutError:
        raise Problem(
            408,
            f"the body did not come whole in {limits.request_seconds:g} s, or in {limits.idle_seconds:g} s fewer than "
            f"{limits.slowest_kb:g} kB a second of it; send it faster, or less of it",
            {"Connection": "close"},
        ) from None
    return announced[:filled] if known else memoryview(body)


def _refuse_if_long(size: int, most: int, what: str) -> None:
    if size > most:
        raise Problem(
            413,
            f"{what} may have {most} bytes, but this one has {size} or more; send the stack in parts, or leave out "
            "what is not needed",
            {"Connection": "close"},
        )


class _InParts:
    """Sends an answer in parts, between which the server waits for a client that does not take them."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        """Sends a message."""
        self.begun = True
        body = message.get("body", b"")
        for begin in range(0, len(body) - PART, PART):
            await self.send({"type": message["type"], "body": body[begin : begin + PART], "more_body": True})
        if len(body) > PART:
            message = {**message, "body": body[(len(body) - 1) // PART * PART :]}
        await self.send(message)


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
