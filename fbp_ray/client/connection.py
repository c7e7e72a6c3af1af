"""How both clients reach the service."""

from __future__ import annotations

from typing import Any

import httpx

from fbp_ray.client.steps import Call
from fbp_ray.errors import ConfigError

URL = "http://127.0.0.1:8000"
TIMEOUT = 150.0
"""Seconds; the service gives up after 120."""

CONNECT_SECONDS = 5.0
_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")


def carried_by(url: str, token: str | None, timeout: float) -> dict[str, Any]:
    """The arguments of an `httpx` client."""
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


def request_of(http: httpx.Client | httpx.AsyncClient, call: Call, silence: float | None = None) -> httpx.Request:
    """A call as a request.

    Args:
        http: the client that is to send it.
        call: what to send.
        silence: the most seconds without a byte of the answer; the client's by default.
    """
    timeout = http.timeout
    if silence is not None:
        timeout = httpx.Timeout(**(timeout.as_dict() | {"read": silence}))
    return http.build_request(
        call.method, call.path, params=call.params, headers=call.headers, content=call.content, timeout=timeout
    )
