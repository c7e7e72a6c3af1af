"""One look at a job for all who follow it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, TypeVarTuple

LOOK_SECONDS = 0.5  # from one look to the next

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class Looks:
    """The looks that somebody waits for. Those who wait for the same one share it.

    Args:
        run: runs a function in a thread.
    """

    def __init__(self, run: Callable[..., Awaitable[Any]]) -> None:
        self._run = run
        self._next: dict[Any, asyncio.Task[Any]] = {}

    async def next(self, look: Callable[[*Arguments], Result], *args: *Arguments) -> Result:
        """What the next look gives, which is made within LOOK_SECONDS; raises what it raises."""
        key = (look, args)
        if key not in self._next:
            self._next[key] = asyncio.create_task(self._look(key))
        result: Result = await asyncio.shield(self._next[key])  # the others still wait when one goes away
        return result

    async def _look(self, key: Any) -> Any:
        look, args = key
        try:
            await asyncio.sleep(LOOK_SECONDS)
            return await self._run(look, *args)
        finally:  # before it is done: who comes now waits for the next one, and never for what is over
            del self._next[key]
