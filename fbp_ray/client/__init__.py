"""A client of the service, from Python.

    from fbp_ray.client import Client

    with Client("http://127.0.0.1:8000") as service:
        image = service.reconstruct(sinogram).image
        job = service.submit("train", {"recipe": "quickstart"})
        service.wait(job.id)
        service.activate_job(job.id)

`AsyncClient` has the same methods for programs with an event loop. It does the work; `Client` waits for it.

connection  requests, with and without an event loop; when they are sent again, and what errors say
answers     what callers get, read from what the service answers
follow      a job and its log while they grow, across lost connections, and the progress bar
"""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, nullcontext
from typing import Any, Concatenate, ParamSpec, Self, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx
from pydantic import BaseModel

from fbp_ray.client import answers
from fbp_ray.client.answers import Job, Model, Progress, Reconstruction
from fbp_ray.client.connection import (
    TIMEOUT,
    URL,
    BlockingConnection,
    Call,
    Connection,
    finish,
    iterate,
    refusal,
    unreachable,
)
from fbp_ray.client.follow import JobDisplay, log_lines, watch
from fbp_ray.errors import ConfigError, ServiceError
from fbp_ray.geometry import Geometry

__all__ = ["AsyncClient", "Client", "Job", "Model", "Progress", "Reconstruction", "ServiceError"]

P = ParamSpec("P")
T = TypeVar("T")


class AsyncClient:
    """A client of the service for programs with an event loop; an asynchronous context manager.

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
        self._connection = Connection(url, token, timeout, transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._connection.close()

    async def ready(self) -> bool:
        """Whether the service has its models loaded and warm. Raises ServiceError where none answers."""
        call = Call("GET", "/health/ready")
        try:
            answer = await self._connection.send(call)
        except httpx.TransportError as error:
            raise unreachable(call, error) from error
        if answer.status_code != 503 and not answer.is_success:
            raise refusal(call, answer)
        return answer.is_success

    async def reconstruct(
        self,
        array: Any,
        *,
        model: str | None = None,
        method: str | None = None,
        window: str | None = None,
        cutoff: float | None = None,
        geometry: Geometry | None = None,
    ) -> Reconstruction:
        """Images of sinograms.

        Args:
            array: (A, D), or (n, A, D) for a stack: line integrals, as a numpy array or a torch tensor.
            model: that reconstructs; `best` by default, the classic FBP where there is none.
            method: "learned", or "fbp" for the classic FBP in the model's geometry.
            window: of the classic FBP.
            cutoff: of that window, as a fraction of Nyquist's frequency.
            geometry: the array's own scan, a `ParallelBeam` or `FanBeam`, for the classic FBP, which is then the
                method.

        Raises:
            GeometryError, DataError: no such array, or none of this scan.
            ServiceError: the service says no, or does not answer.
        """
        values = answers.as_sinograms(array)
        if geometry is not None:
            answers.check_geometry(geometry, values)
            method = method or "fbp"
        options = {"model": model, "method": method, "window": window, "cutoff": cutoff}
        params = {"output": "npy"} | {name: str(value) for name, value in options.items() if value is not None}
        headers = {"Content-Type": "application/octet-stream", "X-Shape": ",".join(map(str, values.shape))}
        body = values.tobytes()
        if geometry is not None:
            headers["Content-Type"], body = _form(geometry.model_dump_json(), body)
        call = Call("POST", "/reconstruct", params, headers, body)
        return answers.reconstruction(call, await self._connection.exchange(call), values.ndim)

    async def models(self) -> list[Model]:
        """The models that serve."""
        return (await self._get(answers.Models, Call("GET", "/models"))).models

    async def model(self, name: str) -> Model:
        """One of them."""
        return await self._get(Model, Call("GET", f"/models/{_part(name)}"))

    async def activate(self, name: str, source: str) -> Model:
        """Has the model of a run, checkpoint or sweep folder, or of the URI of one, serve under a name."""
        return await self._get(Model, _post(f"/models/{_part(name)}/activate", {"source": source}))

    async def submit(
        self, /, kind: str, config: Mapping[str, Any] | BaseModel, *, idempotency_key: str | None = None, **more: Any
    ) -> Job:
        """Submits a job.

        Args:
            kind: train, sweep, evaluate or reconstruct.
            config: its settings, of which those that are not given are the recipe's; or such a tree as `TrainConfig`,
                of which those that were set are sent.
            idempotency_key: two submissions with the same key are one job; a key of its own by default.
            more: what the kind needs besides: `space` for a sweep.

        Raises:
            ConfigError: a configuration that JSON cannot hold.
            ServiceError: the service says no, or does not answer.
        """
        if isinstance(config, BaseModel):
            config = config.model_dump(mode="json", exclude_unset=True)
        try:
            call = _post("/jobs", {"kind": kind, **more, "config": dict(config)})
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"the configuration of a job should be a dictionary that JSON can hold, or a pydantic model; got "
                f"{config!r:.100}: {error}"
            ) from None
        headers = {**call.headers, "Idempotency-Key": idempotency_key or uuid4().hex}
        return await self._get(Job, call._replace(headers=headers))

    async def jobs(self, status: str | None = None, limit: int = 100) -> list[Job]:
        """The jobs, all or those of a status, the newest in front; without their progress."""
        call = Call("GET", "/jobs", {"limit": str(limit)} | ({"status": status} if status else {}))
        return (await self._get(answers.Jobs, call)).jobs

    async def job(self, id: str) -> Job:
        """One of them, with its progress."""
        return await self._get(Job, Call("GET", _job(id)))

    def logs(self, id: str, follow: bool = False) -> AsyncGenerator[str, None]:
        """The lines that a job has printed; with `follow` also those to come, until it ends."""
        return log_lines(self._connection, _job(id), lambda: self.job(id), follow)

    async def stop(self, id: str) -> Job:
        """Has a job stop."""
        return await self._get(Job, Call("POST", f"{_job(id)}/stop"))

    async def activate_job(self, id: str, name: str = "best") -> Model:
        """Has the result of a job serve under a name."""
        return await self._get(Model, _post(f"{_job(id)}/activate", {"name": name}))

    async def wait(self, id: str, timeout: float | None = None, progress: bool = True) -> Job:
        """The job once it has succeeded or was stopped.

        Args:
            id: of the job.
            timeout: the most seconds to wait; the job goes on.
            progress: show it, as a bar on a terminal and as lines elsewhere.

        Raises:
            RunError: it failed, or was lost; the message has the reason.
            TimeoutError: it has not ended in time.
            ServiceError: the service says no, or is gone for long.
        """
        changes = watch(self._connection, _job(id), lambda: self.job(id), timeout)
        with JobDisplay() if progress else nullcontext() as display:
            async with aclosing(changes):
                async for job in changes:
                    if display is not None:
                        display.show(job)
        return job

    async def _get(self, kind: type[answers.AnyDocument], call: Call) -> answers.AnyDocument:
        return answers.document(kind, call, await self._connection.exchange(call))


def _blocking(method: Callable[Concatenate[AsyncClient, P], Awaitable[T]]) -> Callable[Concatenate[Client, P], T]:
    """A method of `AsyncClient` as one of `Client`."""

    @functools.wraps(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return finish(method(self._client, *args, **kwargs))

    return call


class Client:
    """A client of the service; a context manager. Any thread may use it.

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
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._client = _BlockingClient(BlockingConnection(url, token, timeout, transport))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def logs(self, id: str, follow: bool = False) -> Iterator[str]:
        """The lines that a job has printed; with `follow` also those to come, until it ends."""
        return iterate(self._client.logs(id, follow))

    close = _blocking(AsyncClient.close)
    ready = _blocking(AsyncClient.ready)
    reconstruct = _blocking(AsyncClient.reconstruct)
    models = _blocking(AsyncClient.models)
    model = _blocking(AsyncClient.model)
    activate = _blocking(AsyncClient.activate)
    submit = _blocking(AsyncClient.submit)
    jobs = _blocking(AsyncClient.jobs)
    job = _blocking(AsyncClient.job)
    stop = _blocking(AsyncClient.stop)
    activate_job = _blocking(AsyncClient.activate_job)
    wait = _blocking(AsyncClient.wait)


class _BlockingClient(AsyncClient):
    """The work of a `Client`, over a connection that waits for no event loop."""

    def __init__(self, connection: BlockingConnection) -> None:
        self._connection = connection


def _post(path: str, body: Mapping[str, Any]) -> Call:
    """A request with a JSON body; raises TypeError or ValueError where JSON cannot hold it."""
    content = json.dumps(body, allow_nan=False).encode()
    return Call("POST", path, headers={"Content-Type": "application/json"}, content=content)


def _form(geometry: str, sinograms: bytes) -> tuple[str, bytes]:
    """The type and the body of a multipart form, as httpx makes them."""
    fields, files = {"geometry": geometry}, {"sinogram": ("sinograms", sinograms)}
    request = httpx.Request("POST", URL, data=fields, files=files)
    return request.headers["Content-Type"], request.read()


def _job(id: str) -> str:
    return f"/jobs/{_part(id)}"


def _part(name: str) -> str:
    """A name as a part of a path."""
    if not name.strip("."):
        raise ConfigError(f"a name or an id is expected; got {name!r}")
    return quote(name, safe="")
