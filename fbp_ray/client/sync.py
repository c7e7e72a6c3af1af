"""The client for programs without an event loop."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
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
        self._http = httpx.Client(**carried_by(url, token, timeout), transport=transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def ready(self) -> bool:
        """Whether the service has its models loaded and warm. Raises ServiceError where none answers."""
        return self._run(protocol.ready())

    def reconstruct(
        self,
        array: Any,
        *,
        model: str | None = None,
        method: str | None = None,
        window: str | None = None,
        cutoff: float | None = None,
    ) -> Reconstruction:
        """Images of sinograms.

        Args:
            array: (A, D), or (n, A, D) for a stack: line integrals, as a numpy array or a torch tensor.
            model: that reconstructs; `best` by default, the classic FBP where there is none.
            method: "learned", or "fbp" for the classic FBP in the model's geometry.
            window: of the classic FBP.
            cutoff: of that window, as a fraction of Nyquist's frequency.

        Raises:
            GeometryError, DataError: no such array.
            ServiceError: the service says no, or does not answer.
        """
        return self._run(protocol.reconstruct(array, model, method, window, cutoff))

    def models(self) -> list[Model]:
        """The models that serve."""
        return self._run(protocol.models())

    def model(self, name: str) -> Model:
        """One of them."""
        return self._run(protocol.model(name))

    def activate(self, name: str, source: str) -> Model:
        """Has the model of a run, checkpoint or sweep folder, or of the URI of one, serve under a name."""
        return self._run(protocol.activate(name, source))

    def submit(
        self, kind: str, config: Mapping[str, Any] | BaseModel, *, idempotency_key: str | None = None, **more: Any
    ) -> Job:
        """Submits a job.

        Args:
            kind: train, sweep or evaluate.
            config: its settings, of which those that are not given are the recipe's; or such a tree as `TrainConfig`,
                of which those that were set are sent.
            idempotency_key: two submissions with the same key are one job; a key of its own by default.
            more: what the kind needs besides: `space` for a sweep.

        Raises:
            ConfigError: a configuration that JSON cannot hold.
            ServiceError: the service says no, or does not answer.
        """
        return self._run(protocol.submit(kind, config, idempotency_key, more))

    def jobs(self, status: str | None = None, limit: int = 100) -> list[Job]:
        """The jobs, all or those of a status, the newest in front; without their progress."""
        return self._run(protocol.jobs(status, limit))

    def job(self, id: str) -> Job:
        """One of them, with its progress."""
        return self._run(protocol.job(id))

    def logs(self, id: str, follow: bool = False) -> Iterator[str]:
        """The lines that a job has printed; with `follow` also those to come, until it ends."""
        return self._told(following.logs(id, follow))

    def stop(self, id: str) -> Job:
        """Has a job stop."""
        return self._run(protocol.stop(id))

    def activate_job(self, id: str, name: str = "best") -> Model:
        """Has the result of a job serve under a name."""
        return self._run(protocol.activate_job(id, name))

    def wait(self, id: str, timeout: float | None = None, progress: bool = True) -> Job:
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
        steps = following.wait(id, timeout)
        if not progress:
            return self._run(steps)
        with JobDisplay() as display:
            for job in self._told(steps):
                display.show(job)
        found: Job = job
        return found

    def _run(self, steps: Steps[T]) -> T:
        """What steps come to."""
        result: Any = None
        for item in self._told(steps):
            result = item
        found: T = result
        return found

    def _told(self, steps: Steps[Any]) -> Iterator[Any]:
        """Carries steps out; gives what they tell, and at the end what they return."""
        answer: Any = None
        failed: httpx.TransportError | None = None
        stream: httpx.Response | None = None
        lines: Iterator[str] = iter(())
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
                        answer = self._http.send(request_of(self._http, step.call))
                    elif isinstance(step, Open):
                        if stream is not None:
                            stream.close()
                        stream = answer = self._http.send(request_of(self._http, step.call, step.silence), stream=True)
                        lines = stream.iter_lines()
                        if not stream.is_success:
                            stream.read()
                    elif isinstance(step, Line):
                        answer = next(lines, None)
                    elif isinstance(step, Pause):
                        time.sleep(step.seconds)
                    else:
                        yield step.item
                except httpx.TransportError as error:
                    failed = error
        finally:
            steps.close()
            if stream is not None:
                stream.close()
