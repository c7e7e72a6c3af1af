"""What the protocol asks of a client.

The protocol is written once, as generators that yield steps and are sent what came of them; an `httpx.TransportError`
is thrown into them. A client carries the steps out, with an event loop or without.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, NamedTuple, TypeVar

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


class Send(NamedTuple):
    """Sends a request; the answer is an `httpx.Response` that has been read."""

    call: Call


class Open(NamedTuple):
    """Sends a request whose answer is read line by line; the answer is an `httpx.Response`, read if it is an error."""

    call: Call
    silence: float
    """The most seconds without a byte."""


class Line(NamedTuple):
    """Reads a line of the answer that is open; the answer is a `str`, None at its end."""


class Pause(NamedTuple):
    """Waits."""

    seconds: float


class Tell(NamedTuple):
    """Gives something to the caller."""

    item: Any


Step = Send | Open | Line | Pause | Tell
Steps = Generator[Step, Any, T]
