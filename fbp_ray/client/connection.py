"""How both clients talk to the service: requests, when they are sent again, and the errors of those that fail.

Everything is written once, as coroutines over a `Connection`. Those over a `BlockingConnection` never wait for an event
loop, so `finish` and `iterate` run them without one.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar

import httpx

from fbp_ray.errors import ConfigError, ServiceError

URL = "http://127.0.0.1:8000"
TIMEOUT = 150.0
"""Seconds; the service gives up after 120."""

CONNECT_SECONDS = 5.0
TRIES = 8
"""The most times that a request is sent."""

PATIENCE = 60.0
"""Seconds to wait, all waits of a request together, for a service that says to come back later."""

CONNECTIONS = 3
"""The most connections that may fail in a row; every request here may be sent twice without doing its work twice."""

_LOST = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
_FIRST_PAUSE = 0.2
_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")

T = TypeVar("T")


class Call(NamedTuple):
    """A request."""

    method: str
    path: str
    params: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    content: bytes | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def request(self, http: httpx.Client | httpx.AsyncClient, silence: float | None = None) -> httpx.Request:
        """The request for a client that is to send it.

        Args:
            http: the client.
            silence: the most seconds without a byte of the answer; the client's by default.
        """
        timeout = http.timeout if silence is None else httpx.Timeout(**(http.timeout.as_dict() | {"read": silence}))
        return http.build_request(
            self.method, self.path, params=self.params, headers=self.headers, content=self.content, timeout=timeout
        )


class Stream(NamedTuple):
    """An answer that is read line by line; one that says no has been read whole."""

    answer: httpx.Response
    lines: AsyncIterator[str]


class Connection:
    """What the clients need of `httpx`; arguments as of `AsyncClient`."""

    def __init__(self, url: str, token: str | None, timeout: float, transport: httpx.AsyncBaseTransport | None) -> None:
        self._http = httpx.AsyncClient(**_settings(url, token, timeout), transport=transport)

    async def send(self, call: Call) -> httpx.Response:
        """Sends a request and reads the answer; raises httpx.TransportError."""
        return await self._http.send(call.request(self._http))

    @asynccontextmanager
    async def stream(self, call: Call, silence: float) -> AsyncIterator[Stream]:
        """Sends a request whose answer is read line by line, with so many seconds without a byte at most."""
        answer = await self._http.send(call.request(self._http, silence), stream=True)
        try:
            if not answer.is_success:
                await answer.aread()
            yield Stream(answer, answer.aiter_lines())
        finally:
            await answer.aclose()

    async def pause(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def exchange(self, call: Call) -> httpx.Response:
        """The answer to a request, which is sent again when its connection fails or the service is full.

        Raises:
            ServiceError: no answer, or one that says no.
        """
        waited, failed = 0.0, 0
        for tries in itertools.count(1):
            try:
                answer = await self.send(call)
            except httpx.TransportError as error:
                failed += 1
                if not isinstance(error, _LOST) or failed >= CONNECTIONS:
                    raise unreachable(call, error) from error
                pause = _FIRST_PAUSE * 2 ** (failed - 1)
            else:
                if answer.is_success:
                    return answer
                later = retry_after(answer)
                if later is None or tries >= TRIES or waited + later > PATIENCE:
                    raise refusal(call, answer)
                pause, failed = later, 0
            waited += pause
            await self.pause(pause)
        raise AssertionError("unreachable")


class BlockingConnection(Connection):
    """A connection for programs without an event loop: its coroutines block; arguments as of `Client`."""

    def __init__(self, url: str, token: str | None, timeout: float, transport: httpx.BaseTransport | None) -> None:
        self._blocking = httpx.Client(**_settings(url, token, timeout), transport=transport)

    async def send(self, call: Call) -> httpx.Response:
        """Sends a request and reads the answer."""
        return self._blocking.send(call.request(self._blocking))

    @asynccontextmanager
    async def stream(self, call: Call, silence: float) -> AsyncIterator[Stream]:
        """Sends a request whose answer is read line by line."""
        answer = self._blocking.send(call.request(self._blocking, silence), stream=True)
        try:
            if not answer.is_success:
                answer.read()
            yield Stream(answer, _each(answer.iter_lines()))
        finally:
            answer.close()

    async def pause(self, seconds: float) -> None:
        """Waits."""
        time.sleep(seconds)

    async def close(self) -> None:
        """Closes the connections."""
        self._blocking.close()


async def _each(lines: Iterator[str]) -> AsyncIterator[str]:
    for line in lines:
        yield line


def finish(work: Awaitable[T]) -> T:
    """The result of a coroutine over a `BlockingConnection`."""
    running = work.__await__()
    try:
        next(running)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("a coroutine over a blocking connection waits for an event loop")


def iterate(items: AsyncGenerator[T, None]) -> Iterator[T]:
    """The items of an asynchronous generator over a `BlockingConnection`."""
    try:
        while True:
            try:
                item = finish(anext(items))
            except StopAsyncIteration:
                return
            yield item
    finally:
        finish(items.aclose())


def _settings(url: str, token: str | None, timeout: float) -> dict[str, Any]:
    """The arguments of an `httpx` client; raises ConfigError."""
    try:
        base = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ConfigError(f"the url of the service should be such as {URL}; got {url!r}: {error}") from None
    if base.scheme not in ("http", "https") or not base.host:
        raise ConfigError(f"the url of the service should be such as {URL}; got {url!r}")
    if token is not None and not (token.isascii() and token.isprintable() and token.strip()):
        raise ConfigError("a token is of printable ASCII characters; was a line's end read with it?")
    return {
        "base_url": base,
        "headers": {"Authorization": f"Bearer {token}"} if token is not None else {},
        "timeout": httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
        "mounts": {f"all://{host}": None for host in _THIS_MACHINE},  # a proxy does not know what runs here
    }


def retry_after(answer: httpx.Response) -> float | None:
    """The seconds after which the service wants to be asked again; None where it does not."""
    given = answer.headers.get("retry-after")
    if answer.status_code != 503 or given is None:
        return None
    try:
        return max(0.0, float(given))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(given)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def request_id(answer: httpx.Response) -> str:
    """The id of a request in the service's log."""
    given: str = answer.headers.get("x-request-id", "")
    return given.split(",")[0].strip()


def refusal(call: Call, answer: httpx.Response) -> ServiceError:
    """The error that an answer tells of."""
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"detail": " ".join(answer.text.split())[:300] or answer.reason_phrase or "no reason given"}
    detail = str(problem.get("detail", problem))
    id = str(problem.get("request_id") or request_id(answer))
    token = "; give it as Client(url, token=...)" if answer.status_code == 401 else ""
    log = f" (request {id} in the service's log)" if id else ""
    message = f"{call} was refused with {answer.status_code}: {detail}{token}{log}"
    return ServiceError(message, status=answer.status_code, detail=detail, request_id=id)


def unreachable(call: Call, error: httpx.TransportError) -> ServiceError:
    """The error of a request that got no answer."""
    try:
        where = str(error.request.url.copy_with(query=None)).removesuffix(call.path)
    except RuntimeError:  # it did not get as far as a request
        where = "the url"
    why = str(error) or type(error).__name__
    if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout | httpx.PoolTimeout):
        message = (
            f"no answer to {call} from {where} in time ({why}); send fewer sinograms a request, or give Client a "
            "longer timeout"
        )
    else:
        message = (
            f"no service answers {call} at {where}: {why}; start one with `python -m service`, or give Client the url "
            "of one that runs, such as http://127.0.0.1:8000"
        )
    return ServiceError(message, detail=why)
