"""Caches of what is made of a scan, which somebody else's scan can leave alone, and of signatures."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Own = dict[Hashable, Any]

_own: ContextVar[Own | None] = ContextVar("own", default=None)


def cached(most: int) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Decorates a function whose last so many results are kept, as by `functools.lru_cache`, for the whole process.

    Tensors are made as outside of `torch.inference_mode`: what an evaluation made first, a training can use.
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @functools.wraps(function)
        def make(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            torch: Any = sys.modules.get("torch")  # where it is not loaded, there are no tensors
            if torch is None:
                return function(*args, **kwargs)
            with torch.inference_mode(False):
                return function(*args, **kwargs)

        shared = functools.lru_cache(maxsize=most)(make)

        @functools.wraps(function)
        def look_up(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            own = _own.get()
            if own is None:
                return shared(*args, **kwargs)  # type: ignore[arg-type]
            key = (function, *args, *sorted(kwargs.items()))
            if key not in own:
                own[key] = make(*args, **kwargs)
            return own[key]  # type: ignore[no-any-return]

        return look_up

    return decorate


@contextmanager
def apart_from_caches(own: Own) -> Iterator[None]:
    """While the block runs, in this thread, what is `cached` goes to `own` and lives as long as that does.

    So a scan that comes once neither drives others out of the caches nor stays in memory when it is done with.
    """
    before = _own.set(own)
    try:
        yield
    finally:
        _own.reset(before)


def signature_kept(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorates the forward of an operator, whose signature torch asks for at each call: that took half of a call."""
    vars(function)["__signature__"] = inspect.signature(function)
    return function
