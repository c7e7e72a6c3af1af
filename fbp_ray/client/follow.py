"""A job and its log while they grow, across lost connections; and how the progress of a job is shown."""

from __future__ import annotations

import json
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Any, NamedTuple

import httpx
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fbp_ray.client.answers import Job
from fbp_ray.client.connection import Call, Connection, Stream, refusal, unreachable
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

_GONE = (None, 502, 503, 504)
_ROWS = {"epoch": "epoch", "trial": "trial", "evaluation": "method", "slab": "slab"}
"""Events with a row, and what tells it from others."""
_FIGURES = (
    (("train_loss",), "loss {:.4g}"),
    (("validation_loss",), "validation {:.4g}"),
    (("validation_psnr", "psnr"), "PSNR {:.2f} dB"),
    (("validation_ssim", "ssim"), "SSIM {:.4f}"),
)
Look = Callable[[], Awaitable[Job]]
"""Asks for the job as it is now."""


async def watch(connection: Connection, path: str, look: Look, timeout: float | None) -> AsyncGenerator[Job, None]:
    """The job whenever it changes, until it has ended.

    Raises:
        RunError: it failed, or was lost.
        TimeoutError: it has not ended in time.
        ServiceError: the service says no, or is gone for long.
    """
    until = math.inf if timeout is None else time.monotonic() + timeout
    job = await look()
    yield job
    last, streaming = "", True
    while not job.has_ended:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError(
                f"the job {job.id} is {job.status} after {timeout:g} s; it goes on. Wait for it again, or "
                f"stop({job.id!r})"
            )
        pause = AGAIN if streaming else POLL
        if streaming:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
            try:
                async with connection.stream(Call("GET", f"{path}/events", headers=headers), min(SILENCE, left)) as it:
                    streaming = _has_events(it) or it.answer.status_code in _GONE
                    async with aclosing(read_events(it, until)) as events:
                        async for event in events:
                            last = event.id or last
                            if event.kind == "end":
                                pause = 0.0
                                break
                            job = changed(job, event)
                            yield job
            except httpx.TransportError:
                pass
        if pause:
            await connection.pause(max(0.0, min(pause, until - time.monotonic())))
        job = await _look_again(connection, look)
        yield job
    if job.status in ("failed", "lost"):
        said = {"failed": "failed", "lost": "was lost"}[job.status]
        raise RunError(
            f"the {job.kind} job {job.id} {said}: {job.reason or 'no reason given'}; logs({job.id!r}) has its output"
        )


async def log_lines(connection: Connection, path: str, look: Look, follow: bool) -> AsyncGenerator[str, None]:
    """The lines that a job has printed; with `follow` also those to come, until it ends.

    Raises:
        ServiceError: the service says no, or is gone for long.
    """
    if not follow:
        for line in (await connection.exchange(Call("GET", f"{path}/logs"))).text.splitlines():
            yield line
        return
    call = Call("GET", f"{path}/logs", {"follow": "1"})
    given, since = 0, time.monotonic()
    while True:
        try:
            async with connection.stream(call, LOG_SILENCE) as it:
                if not it.answer.is_success:
                    raise refusal(call, it.answer)
                number = 0
                async for line in it.lines:
                    since = time.monotonic()
                    number += 1
                    if number > given:  # after a connection was lost the log comes from its beginning
                        given = number
                        yield line
            if (await _look_again(connection, look)).has_ended:  # else it was the service that ended
                return
        except httpx.ReadTimeout:
            since = time.monotonic()
        except httpx.TransportError as error:
            if time.monotonic() - since > AWAY:
                raise unreachable(call, error) from error
        except ServiceError as error:
            if error.status not in _GONE or time.monotonic() - since > AWAY:
                raise
        await connection.pause(AGAIN)


async def _look_again(connection: Connection, look: Look) -> Job:
    """The job as it is now, of a service that may be away for a while."""
    since = time.monotonic()
    while True:
        try:
            return await look()
        except ServiceError as error:
            if error.status not in _GONE or time.monotonic() - since > AWAY:
                raise
        await connection.pause(AGAIN)


class Event(NamedTuple):
    """An event of a stream of server-sent events."""

    kind: str
    data: str
    id: str


def _has_events(stream: Stream) -> bool:
    kind: str = stream.answer.headers.get("content-type", "")
    return stream.answer.is_success and kind.startswith("text/event-stream")


async def read_events(stream: Stream, until: float) -> AsyncGenerator[Event, None]:
    """The events of a stream until a time; an empty line completes one, and lines keep coming where none happens."""
    kind, data, id = "", list[str](), ""
    if not _has_events(stream):
        return
    async for line in stream.lines:
        if time.monotonic() >= until:
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            id = value
        elif not line:
            if data:
                yield Event(kind or "message", "\n".join(data), id)
            kind, data = "", []


def changed(job: Job, event: Event) -> Job:
    """The job after an event; the same where the event says nothing that is known here."""
    try:
        data = json.loads(event.data)
    except ValueError:
        return job
    if not isinstance(data, dict):
        return job
    news: dict[str, Any] = {}
    if event.kind == "status":
        news = {name: data[name] for name in ("status", "reason", "started", "ended") if name in data}
        if isinstance(data.get("progress"), dict):  # its rows are events of their own
            news["progress"] = data["progress"] | {"rows": job.progress.rows}
    elif event.kind in _ROWS:
        key = _ROWS[event.kind]
        rows = [*(row for row in job.progress.rows if row.get(key) != data.get(key)), data]
        done = job.progress.done if event.kind == "evaluation" else len(rows)
        news = {"progress": job.progress.model_dump() | {"rows": rows, "done": done}}
    return Job.model_validate(job.model_dump() | news)


class JobDisplay:
    """Shows a job: a bar by epoch on a terminal, a line an epoch elsewhere. A context manager.

    Args:
        console: where to; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("", total=None, figures="")
        self._shown: set[str] = set()

    def __enter__(self) -> JobDisplay:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, job: Job) -> None:
        """Shows what is new."""
        progress = job.progress
        why = f": {job.reason}" if job.reason else ""
        if self._bar is not None:
            description = escape(f"{job.kind} {job.id} {job.status}{why}")
            latest = escape(_figures(progress.rows[-1])) if progress.rows else ""
            self._bar.update(
                self._task, description=description, completed=progress.done, total=progress.total, figures=latest
            )
            return
        total = "" if progress.total is None else f"/{progress.total}"
        for number, row in enumerate(progress.rows, start=1):
            what = row.get("trial") or row.get("method") or number
            if "epoch" in row:
                what = f"epoch {row['epoch']:g}{total}"
            self._print(f"{job.kind} {job.id}: {what}  {_figures(row)}", row)
        self._print(f"{job.kind} {job.id} {job.status}{why}", [job.status, job.reason])

    def _print(self, line: str, content: Any) -> None:
        """A line, unless one with the same content was printed before."""
        mark = json.dumps(content, sort_keys=True, default=str)
        if mark not in self._shown:
            self._shown.add(mark)
            self._console.print(line.rstrip(), markup=False, highlight=False, soft_wrap=True)


def _figures(row: dict[str, Any]) -> str:
    """The figures of an epoch, or of a trial, in a line."""
    found = []
    for names, form in _FIGURES:
        value = next((row[name] for name in names if isinstance(row.get(name), int | float)), None)
        if value is not None:
            found.append(form.format(value))
    return "  ".join(found)
