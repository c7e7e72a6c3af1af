"""Jobs: what the routes ask for, answered from the record, the folders and the cluster."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from fbp_ray.errors import CheckpointError
from fbp_ray.storage import absolute
from service.database import Database
from service.jobs.checks import check, prepare
from service.jobs.cluster import Cluster, GivenCluster
from service.jobs.dispatcher import Dispatcher
from service.jobs.documents import JobDocument, JobRequest, JobSummary, Progress, Status
from service.jobs.head import LocalHead
from service.jobs.logs import Logs, Part
from service.jobs.progress import read_progress
from service.jobs.ray_jobs import Unreachable
from service.jobs.store import Job, Store
from service.observability import Metrics
from service.problems import Problem
from service.settings import Settings

INTERVAL = 1.0
PROGRESS_SHARE = 10  # a folder is read so rarely that it takes one part in so many of the time


class Submitted(NamedTuple):
    """The answer to a request for a job."""

    job: JobDocument
    replayed: bool
    """Whether it is the job of an earlier request with the same idempotency key."""


class Jobs:
    """Training, sweep and evaluation jobs. Every method may take its time and be called by any thread.

    Args:
        settings: of the service.
        record: of the service.
        metrics: of the service.
        activate: has the model at a place serve under a name; returns the model's document.
        cluster: where jobs go; the one of the settings by default.
        interval: seconds from one look at the jobs to the next.
    """

    def __init__(
        self,
        settings: Settings,
        record: Database,
        metrics: Metrics,
        activate: Callable[[str, str], Any],
        cluster: Cluster | None = None,
        interval: float = INTERVAL,
    ) -> None:
        self._storage = absolute(settings.jobs.storage)
        self._activate = activate
        self._cluster = cluster or open_cluster(settings)
        self._lead = record.lead
        self._store = Store(record, metrics.jobs)
        self._logs = Logs(settings.state.absolute() / "jobs")
        self._dispatcher = Dispatcher(
            self._store,
            self._cluster,
            self._logs,
            settings.jobs.at_once,
            settings.jobs.lost_seconds,
            interval,
            self._what_is_left,
            record.lead,
        )
        self._submitting = threading.Lock()
        self._known: dict[str, tuple[float, Progress]] = {}  # progress, and until when it is taken to be that

    def start(self) -> None:
        """Takes up the jobs of the record: those that run are found again, those that wait go on waiting."""
        self._dispatcher.start()

    def close(self) -> None:
        """Leaves the jobs that run to their cluster, and stops a head of its own where none does."""
        self._dispatcher.close()
        if self._lead():
            self._cluster.close(bool(self._store.submitted()))

    def submit(self, body: JobRequest, key: str | None) -> Submitted:
        """Takes a job.

        Args:
            body: what to do.
            key: the idempotency key: with the same one and the same body, the same job.

        Raises:
            Problem: 409, 413 or 422, what does not hold; 503, the cluster does not answer.
            FbpRayError: what does not hold.
        """
        asked = json.dumps(body.model_dump(mode="json", exclude_unset=True) | {"kind": body.kind}, sort_keys=True)
        digest = hashlib.sha256(asked.encode()).hexdigest()
        with self._submitting:
            known = self._store.by_key(key) if key is not None else None
            if known is not None:
                if known.digest != digest:
                    raise Problem(
                        409,
                        f"the Idempotency-Key {key} was used for another request, that of job {known.id}; take a new "
                        "key for a new job",
                    )
                return Submitted(self._document(known), replayed=True)
            prepared = prepare(body, self._storage)
            other = self._store.at_work_on(prepared.place)
            if other is not None:
                raise Problem(
                    409,
                    f"job {other.id} ({other.status}) has {prepared.place}; wait for it, stop it (POST "
                    f"/jobs/{other.id}/stop), or choose another name",
                )
            try:
                nodes = self._cluster.nodes()
            except Unreachable as error:
                raise Problem(503, f"{error}; nothing was submitted, try again later", {"Retry-After": "10"}) from None
            check(body, prepared, nodes, self._cluster.local)
            job = Job(
                prepared.id,
                body.kind,
                prepared.request,
                time.time(),
                status="pending",
                reason="",
                submission="",
                head="",
                started=None,
                ended=None,
                key=key,
                digest=digest,
                place=prepared.place,
                stopping=False,
            )
            self._store.add(job)
        self._dispatcher.wake()
        return Submitted(self._document(job), replayed=False)

    def newest(self, most: int, status: Status | None) -> list[JobSummary]:
        """Jobs, the newest in front."""
        return [self._summary(job) for job in self._store.newest(most, status)]

    def get(self, id: str) -> JobDocument:
        """A job, with its progress; raises Problem 404."""
        return self._document(self._find(id))

    def log(self, id: str, position: int = 0) -> tuple[Part, bool]:
        """What a job has printed from a position on, and whether that is all; raises Problem 404."""
        ended = self._find(id).ended_already
        return self._logs.read(id, position), ended

    def stop(self, id: str) -> JobDocument:
        """Ends a job, or asks for its end; raises Problem 404, and 409 where it has ended."""
        for _ in range(10):  # until nobody changes it at the same time
            job = self._find(id)
            if job.ended_already:
                raise Problem(409, f"job {id} has ended already, it is {job.status}; there is nothing to stop")
            if not job.submission:
                done = self._store.change(job, status="stopped", reason="it was stopped before it ran")
            else:
                done = self._store.change(job, stopping=1, reason="it is being stopped")
            if done:
                break
        self._dispatcher.wake()
        return self.get(id)

    def activate(self, id: str, name: str) -> Any:
        """Has the best model of a job serve; returns its document.

        Raises:
            Problem: 404; 409, the job has no model.
            FbpRayError: the model cannot serve.
        """
        from fbp_ray.checkpoint import find_checkpoint

        job = self._find(id)
        if job.kind == "evaluate":
            raise Problem(
                409,
                f"job {id} is an evaluation and makes no model; activate the job that trained the model, or its folder",
            )
        try:
            find_checkpoint(job.place)
        except CheckpointError as error:
            raise Problem(
                409, f"job {id} ({job.status}) has no model yet: {error}; the first comes with its first epoch"
            ) from None
        return self._activate(name, job.place)

    def _find(self, id: str) -> Job:
        job = self._store.get(id)
        if job is None:
            raise Problem(404, f"there is no job {id[:100]!r}; GET /jobs lists those that there are")
        return job

    def _summary(self, job: Job) -> JobSummary:
        return JobSummary(
            id=job.id,
            kind=job.kind,
            status=job.status,
            reason=self._reason(job),
            created=_time(job.created),
            started=job.started and _time(job.started),
            ended=job.ended and _time(job.ended),
            place=job.place,
        )

    def _document(self, job: Job) -> JobDocument:
        summary = self._summary(job)
        return JobDocument(**summary.model_dump(), request=job.request, progress=self.progress(job))

    def progress(self, job: Job) -> Progress:
        """How far a job is; read anew now and then."""
        began = time.monotonic()
        until, known = self._known.get(job.id, (0.0, None))
        if known is not None and began < until and not job.ended_already:
            return known
        found = read_progress(job)
        if not job.ended_already:
            took = time.monotonic() - began
            self._known[job.id] = time.monotonic() + PROGRESS_SHARE * took, found
        else:
            self._known.pop(job.id, None)
        return found

    def _reason(self, job: Job) -> str:
        """Why it stands as it does; of one that waits, for what."""
        if job.status != "pending" or job.submission:
            return job.reason
        if self._dispatcher.trouble:
            return self._dispatcher.trouble
        ahead = self._store.submitted() + [other for other in self._store.waiting() if other.created < job.created]
        if not ahead:
            return "the Ray head of this machine is being started" if self._cluster.local else "it is next"
        listed = ", ".join(f"{other.id} ({other.status})" for other in ahead[:5])
        more = f" and {len(ahead) - 5} more" if len(ahead) > 5 else ""
        return f"it waits for job {listed}{more}; --jobs.at_once has more run at a time"

    def _what_is_left(self, job: Job) -> str:
        """Of a job that was lost: what is kept, and the way on."""
        progress = read_progress(job)
        if job.kind == "evaluate":
            return "submit it again (POST its `request` to /jobs, with another `out`)"
        last = f"from {progress.unit} {progress.done + 1}" if progress.done else "from its begin"
        return f"submit it again (POST its `request` to /jobs) to go on {last}"


def open_cluster(settings: Settings) -> Cluster:
    """The cluster that the settings or RAY_ADDRESS name, else the head of this machine."""
    address = settings.jobs.dashboard or os.environ.get("RAY_ADDRESS")
    if address and address != "local":
        return GivenCluster(address, settings.jobs.python or "python")
    return LocalHead(settings.state.absolute(), settings.jobs.python)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
