"""Answers without an end: a log as it grows, and the events of a job. Between two looks no thread is held."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool

from service.jobs.documents import ENDED, JobDocument
from service.jobs.logs import Part
from service.jobs.manager import Jobs

LOOK_SECONDS = 0.5
KEEP_SECONDS = 15.0  # then a comment is sent, so that nobody in between closes the line
THE_END = "end"  # the id of the last event


async def follow_log(jobs: Jobs, id: str, first: tuple[Part, bool], closing: threading.Event) -> AsyncIterator[bytes]:
    """What a job prints, until it has ended or the service does; `first` is the log as it was when that was asked."""
    part, ended = first
    while True:
        if part.content:
            yield part.content
        if ended or closing.is_set():
            return
        await asyncio.sleep(LOOK_SECONDS)
        part, ended = await run_in_threadpool(jobs.log, id, part.position)


async def events_of(jobs: Jobs, id: str, seen: int, closing: threading.Event) -> AsyncIterator[bytes]:
    """The events of a job, as text/event-stream has them.

    `status` is the job's document, at first and when its status or reason is another; `epoch` (of a sweep `trial`, of
    an evaluation `evaluation`) a row of its progress; `end` the document, when it has ended. The id of an event is the
    number of rows until then.

    Args:
        jobs: all jobs.
        id: of the job.
        seen: rows that the caller has already.
        closing: the service is told to end.
    """
    stands: tuple[str, str] | None = None
    spoken = time.monotonic()
    while True:
        job = await run_in_threadpool(jobs.get, id)
        parts = []
        if (job.status, job.reason) != stands:
            stands = job.status, job.reason
            parts.append(_event("status", str(seen), _without_rows(job)))
        for row in job.progress.rows[seen:]:
            seen += 1
            parts.append(_event(job.progress.unit, str(seen), json.dumps(row)))
        if job.status in ENDED:
            yield b"".join([*parts, _event("end", THE_END, _without_rows(job))])
            return
        if not parts and time.monotonic() - spoken > KEEP_SECONDS:
            parts.append(b": still there\n\n")
        if parts:
            spoken = time.monotonic()
            yield b"".join(parts)
        if closing.is_set():
            return
        await asyncio.sleep(LOOK_SECONDS)


def _event(name: str, id: str, data: str) -> bytes:
    return f"event: {name}\nid: {id}\ndata: {data}\n\n".encode()


def _without_rows(job: JobDocument) -> str:
    """The document; its rows are events of their own."""
    return job.model_copy(update={"progress": job.progress.model_copy(update={"rows": []})}).model_dump_json()
