"""Jobs and logs while they grow, across lost connections, as sequences of steps."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx

from fbp_ray.client import protocol
from fbp_ray.client.documents import Job
from fbp_ray.client.steps import Call, Line, Open, Pause, Steps, Tell
from fbp_ray.errors import RunError, ServiceError

AGAIN = 1.0
"""Seconds before a stream that ended too early is opened again."""

POLL = 2.0
"""Seconds from one look at a job to the next, where its events cannot be had."""

AWAY = 60.0
"""Seconds that the service may be gone, to be started again for example, while somebody follows a job."""

SILENCE = 60.0
"""Seconds without a byte after which a stream of events is opened again."""

LOG_SILENCE = 600.0
"""The same for a log: a job may have nothing to print for long."""

_AWAY = (None, 502, 503, 504)
_ROWS = {"epoch": "epoch", "trial": "trial", "evaluation": "method"}  # events with a row, and what tells it from others
Clock = Callable[[], float]


class Event(NamedTuple):
    """An event of a stream of server-sent events."""

    kind: str
    data: str
    id: str


class Events:
    """Makes events of lines."""

    def __init__(self) -> None:
        self._kind, self._data, self._id = "", list[str](), ""

    def feed(self, line: str) -> Event | None:
        """Takes a line; an empty one completes an event."""
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                self._kind = value
            elif name == "data":
                self._data.append(value)
            elif name == "id":
                self._id = value
            return None
        event = Event(self._kind or "message", "\n".join(self._data), self._id) if self._data else None
        self._kind, self._data = "", []
        return event


def wait(id: str, timeout: float | None, clock: Clock = time.monotonic) -> Steps[Job]:
    """The job once it has ended; tells of it whenever it changes.

    Raises:
        RunError: it failed, or was lost.
        TimeoutError: it has not ended in time.
        ServiceError: the service says no, or is gone for long.
    """
    until = math.inf if timeout is None else clock() + timeout
    job = yield from protocol.job(id)
    yield Tell(job)
    last, streaming = "", True
    while not job.has_ended:
        left = until - clock()
        if left <= 0:
            raise TimeoutError(
                f"the job {id} is {job.status} after {timeout:g} s; it goes on. Wait for it again, or stop({id!r})"
            )
        pause = AGAIN
        if streaming:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
            try:
                answer: httpx.Response = yield Open(
                    Call("GET", protocol.job_path(id) + "/events", headers=headers), min(SILENCE, left)
                )
                streaming = answer.status_code in _AWAY or _has_events(answer)
                events = Events()
                while _has_events(answer) and clock() < until and (line := (yield Line())) is not None:
                    event = events.feed(line)
                    if event is None:
                        continue
                    last = event.id or last
                    if event.kind == "end":
                        pause = 0.0
                        break
                    job = changed(job, event)
                    yield Tell(job)
            except httpx.TransportError:
                pass
        else:
            pause = POLL
        if pause:
            yield Pause(max(0.0, min(pause, until - clock())))
        job = yield from _look(id, clock)
        yield Tell(job)
    if job.status in ("failed", "lost"):
        said = {"failed": "failed", "lost": "was lost"}[job.status]
        raise RunError(
            f"the {job.kind} job {id} {said}: {job.reason or 'no reason given'}; logs({id!r}) has its output"
        )
    return job


def logs(id: str, follow: bool, clock: Clock = time.monotonic) -> Steps[None]:
    """Tells the lines that a job has printed; with `follow` also those to come, until it ends.

    Raises:
        ServiceError: the service says no, or is gone for long.
    """
    path = protocol.job_path(id) + "/logs"
    if not follow:
        answer = yield from protocol.exchange(Call("GET", path))
        for line in answer.text.splitlines():
            yield Tell(line)
        return
    call = Call("GET", path, {"follow": "1"})
    told, since = 0, clock()
    while True:
        try:
            answer = yield Open(call, LOG_SILENCE)
            if not answer.is_success:
                raise protocol.refusal(call, answer)
            number = 0
            while (read := (yield Line())) is not None:
                since = clock()
                number += 1
                if number > told:  # after a connection was lost the log comes from its begin
                    told = number
                    yield Tell(read)
            if (yield from _look(id, clock)).has_ended:  # else it was the service that ended
                return
        except httpx.ReadTimeout:
            since = clock()
        except httpx.TransportError as error:
            if clock() - since > AWAY:
                raise protocol.unreachable(call, error) from error
        except ServiceError as error:
            if error.status not in _AWAY or clock() - since > AWAY:
                raise
        yield Pause(AGAIN)


def changed(job: Job, event: Event) -> Job:
    """The job after an event; the same where the event says nothing that is known here."""
    try:
        data = json.loads(event.data)
    except ValueError:
        return job
    if not isinstance(data, dict):
        return job
    told: dict[str, Any] = {}
    if event.kind == "status":
        told = {name: data[name] for name in ("status", "reason", "started", "ended") if name in data}
        if isinstance(data.get("progress"), dict):  # its rows are events of their own
            told["progress"] = data["progress"] | {"rows": job.progress.rows}
    elif event.kind in _ROWS:
        key = _ROWS[event.kind]
        rows = [*(row for row in job.progress.rows if row.get(key) != data.get(key)), data]
        done = job.progress.done if event.kind == "evaluation" else len(rows)
        told = {"progress": job.progress.model_dump() | {"rows": rows, "done": done}}
    return Job.model_validate(job.model_dump() | told)


def _has_events(answer: httpx.Response) -> bool:
    return answer.is_success and answer.headers.get("content-type", "").startswith("text/event-stream")


def _look(id: str, clock: Clock) -> Steps[Job]:
    """The job as it is now, of a service that may be away for a while."""
    since = clock()
    while True:
        try:
            return (yield from protocol.job(id))
        except ServiceError as error:
            if error.status not in _AWAY or clock() - since > AWAY:
                raise
        yield Pause(AGAIN)
