"""JSON bodies: no larger and no deeper than the limits, found out before anything parses them."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import Problem, problem_response
from service.settings import LimitsConfig

_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS", "DELETE")


class JsonLimits:
    """Refuses bodies of all routes but /reconstruct, which has limits of its own."""

    def __init__(self, app: ASGIApp, limits: LimitsConfig) -> None:
        self.app = app
        self.most = limits.json_kb * 1000
        self.deepest = limits.json_depth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it."""
        if scope["type"] != "http" or scope["method"] in _WITHOUT_BODY or scope["path"] == "/reconstruct":
            await self.app(scope, receive, send)
            return
        body = bytearray()
        more = True
        while more and len(body) <= self.most:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        problem = self._problem(bytes(body))
        if problem is not None:
            await problem_response(problem, scope.get("state", {}).get("request_id", ""))(scope, receive, send)
            return
        sent = False

        async def again() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self.app(scope, again, send)

    def _problem(self, body: bytes) -> Problem | None:
        if len(body) > self.most:
            return Problem(
                413, f"a JSON body may have {self.most} bytes; leave out what is not needed", {"Connection": "close"}
            )
        if depth(body) > self.deepest:
            return Problem(422, f"a JSON body may be nested {self.deepest} deep; a configuration needs no more")
        return None


def depth(text: bytes) -> int:
    """How deep the brackets of a JSON text are nested; those in strings do not count."""
    deepest = level = 0
    in_string = escaped = False
    for byte in text:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            level += 1
            deepest = max(deepest, level)
        elif byte in b"]}":
            level -= 1
    return deepest
