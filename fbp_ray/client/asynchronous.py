"""The client for programs with an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from fbp_ray.client import follow as following
from fbp_ray.client import protocol
from fbp_ray.client.connection import TIMEOUT, URL, carried_by, request_of
from fbp_ray.client.display import JobDisplay
from fbp_ray.client.documents import Job, Model, Reconstruction
from fbp_ray.client.steps import Line, Open, Pause, Send, Steps

T = TypeVar("T")


class AsyncClient:
    """A client of the service, an asynchronous context manager: what `Client` does, without holding up others.

    Args:
        url: of the service.
        token: one of the service's; none is needed on its own machine where it has none.
        timeout: the most seconds without an answer.
        transport: what carries requests in place of the network, as `httpx` has it.

    Raises:
        ConfigError: no url, or a token that no header can hold.
    """

    def __init__(
        self,
        url: str = URL,
        token: str | None = None,
        timeout: float = TIMEOUT,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(**carried_by(url, token, timeout), transport=transport)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def ready(self) -> bool:
        """As `Client.ready`."""
        return await self._run(protocol.ready())

    async def reconstruct(
        self,
        array: Any,
        *,
        model: str | None = None,
        method: str | None = None,
        window: str | None = None,
        cutoff: float | None = None,
    ) -> Reconstruction:
        """As `Client.reconstruct`."""
        return await self._run(protocol.reconstruct(array, model, method, window, cutoff))

    async def models(self) -> list[Model]:
        """As `Client.models`."""
        return await self._run(protocol.models())

    async def model(self, name: str) -> Model:
        """As `Client.model`."""
        return await self._run(protocol.model(name))

    async def activate(self, name: str, source: str) -> Model:
        """As `Client.activate`."""
        return await self._run(protocol.activate(name, source))

    async def submit(
        self, kind: str, config: Mapping[str, Any] | BaseModel, *, idempotency_key: str | None = None, **more: Any
    ) -> Job:
        """As `Client.submit`."""
        return await self._run(protocol.submit(kind, config, idempotency_key, more))

    async def jobs(self, status: str | None = None, limit: int = 100) -> list[Job]:
        """As `Client.jobs`."""
        return await self._run(protocol.jobs(status, limit))

    async def job(self, id: str) -> Job:
        """As `Client.job`."""
        return await self._run(protocol.job(id))

    def logs(self, id: str, follow: bool = False) -> AsyncGenerator[str, None]:
        """As `Client.logs`."""
        return self._told(following.logs(id, follow))

    async def stop(self, id: str) -> Job:
        """As `Client.stop`."""
        return await self._run(protocol.stop(id))

    async def activate_job(self, id: str, name: str = "best") -> Model:
        """As `Client.activate_job`."""
        return await self._run(protocol.activate_job(id, name))

    async def wait(self, id: str, timeout: float | None = None, progress: bool = True) -> Job:
        """As `Client.wait`."""
        steps = following.wait(id, timeout)
        if not progress:
            return await self._run(steps)
        with JobDisplay() as display:
            async with aclosing(self._told(steps)) as told:
                async for job in told:
                    display.show(job)
        found: Job = job
        return found

    async def _run(self, steps: Steps[T]) -> T:
        """What steps come to."""
        result: Any = None
        async with aclosing(self._told(steps)) as told:
            async for item in told:
                result = item
        found: T = result
        return found

    async def _told(self, steps: Steps[Any]) -> AsyncGenerator[Any, None]:
        """Carries steps out; gives what they tell, and at the end what they return."""
        answer: Any = None
        failed: httpx.TransportError | None = None
        stream: httpx.Response | None = None
        try:
            while True:
                try:
                    step = steps.send(answer) if failed is None else steps.throw(failed)
                except StopIteration as end:
                    if end.value is not None:
                        yield end.value
                    return
                answer = failed = None
                try:
                    if isinstance(step, Send):
                        answer = await self._http.send(request_of(self._http, step.call))
                    elif isinstance(step, Open):
                        if stream is not None:
                            await stream.aclose()
                        request = request_of(self._http, step.call, step.silence)
                        stream = answer = await self._http.send(request, stream=True)
                        lines = stream.aiter_lines()
                        if not stream.is_success:
                            await stream.aread()
                    elif isinstance(step, Line):
                        answer = await anext(lines, None)
                    elif isinstance(step, Pause):
                        await asyncio.sleep(step.seconds)
                    else:
                        yield step.item
                except httpx.TransportError as error:
                    failed = error
        finally:
            steps.close()
            if stream is not None:
                await stream.aclose()
