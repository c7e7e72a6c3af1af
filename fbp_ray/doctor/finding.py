"""What a check says of a machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Literal, NamedTuple, TypeVar

State = Literal["ok", "warning", "fault"]
T = TypeVar("T")


class Finding(NamedTuple):
    """One thing that a check found."""

    check: str
    """Which check it was: versions, storage, .."""

    machine: str
    """Where, in the words that name the machine to a person."""

    state: State
    """ok; warning: it works, but badly or not for long; fault: training will fail, or give wrong results."""

    found: str
    """What is so, and what should be."""

    way_out: str = ""
    """What to do about it; nothing where all is well."""


def usual(values: Iterable[T]) -> T:
    """The value that most have; of those that equally many have, the first."""
    return Counter(values).most_common(1)[0][0]


def some(names: Collection[str], most: int = 3) -> str:
    """The first few of some names, and how many there are besides."""
    shown = list(names)[:most]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
