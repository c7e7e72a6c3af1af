"""Jobs: what the routes ask for, answered from the record, the folders and the cluster."""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fbp_ray.errors import CheckpointError
from fbp_ray.storage import Folder, absolute
from service.database import Database
from service.jobs.checks import check
from service.jobs.cluster import Cluster, Unreachable
from service.jobs.dispatcher import Dispatcher
from service.jobs.documents import JobDocument, JobSummary, Kind, Progress, Status, read_progress
from service.jobs.head import open_cluster
from service.jobs.program import JobRequest, new_job
from service.jobs.store import Job, JobLogs, JobStore, LogPart
from service.observability import Metrics
from service.places import Places
from service.problems import Problem
from service.settings import Settings

INTERVAL = 1.0
NAMED_BY: dict[Kind, str] = {"train": "--run.name", "sweep": "--sweep.name"}
PROGRESS_SHARE = 10  # a folder is read so rarely that it takes one part in so many of the time


class Jobs:
    """Training, sweep, evaluation and reconstruction jobs. Every method may take its time and be called by any thread.

    Args:
        settings, database, metrics: those of the service.
        activate: has the model at a place serve under a name; returns the model's document.
        cluster: where jobs go; the one of the settings by default.
        interval: seconds from one look at the jobs to the next.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        metrics: Metrics,
        activate: Callable[[str, str], Any],
        cluster: Cluster | None = None,
        interval: float = INTERVAL,
    ) -> None:
        self._storage = absolute(settings.jobs.storage)
        self._places = Places.of(settings)
        self._queue = settings.jobs.queue
        self._own = settings.models.own
        self._activate = activate
        self._cluster = cluster or open_cluster(settings)
        self._store = JobStore(database, metrics.jobs)
        self._logs = JobLogs(settings.state.absolute() / "jobs")
        self._dispatcher = Dispatcher(self._store, self._cluster, self._logs, settings.jobs, interval, self._places)
        self._progress: dict[str, tuple[float, Progress]] = {}  # of a job, and until when it is not read again

    def start(self) -> None:
        """Takes up the jobs of the record: those that run are found again, those that wait go on waiting."""
        self._dispatcher.start()

    def close(self) -> None:
        """Leaves the jobs that run to their cluster, and stops a head of its own where none does."""
        self._dispatcher.close()
        if self._store.lead():
            self._cluster.close(bool(self._store.submitted()))

    def submit(self, body: JobRequest, key: str | None) -> tuple[JobDocument, bool]:
        """Takes a job, and says whether it is that of an earlier request with the same key and body.

        Args:
            body: what to do.
            key: the idempotency key: with the same one and the same body, the same job.

        Raises:
            Problem: 409, 413 or 422, what does not hold; 503, the cluster does not answer or too many jobs wait; 507,
                the job cannot be recorded.
            FbpRayError: what does not hold.
        """
        job = new_job(body, self._storage, key, self._places)
        if (known := self._earlier(job)) is not None:
            return self._document(known), True
        if self._store.count_waiting() >= self._queue:
            raise self._full()
        try:
            nodes = self._cluster.nodes()
        except Unreachable as error:
            raise Problem(503, f"{error}; nothing was submitted, try again later", {"Retry-After": "10"}) from None
        check(job, nodes, self._cluster.local, self._places, self._own)
        try:
            if not self._store.add(job, self._queue):
                raise self._full()
        except sqlite3.IntegrityError:  # another request was first, of this process or another
            if (known := self._earlier(job)) is not None:
                return self._document(known), True
            raise Problem(409, f"another job had {job.place} just now; send the request again") from None
        self._dispatcher.wake()
        return self._document(job), False

    def _earlier(self, job: Job) -> Job | None:
        """The job of an earlier request with the same key and body.

        Raises:
            Problem: 409, the key was used for another request, or another job has the folder.
        """
        known = self._store.by_key(job.key) if job.key is not None else None
        if known is None:
            other = self._store.by_place(job.place)
            if other is None:
                return None
            if other.key is None or other.key != job.key:
                raise Problem(
                    409,
                    f"job {other.id} ({other.status}) has {job.place}; wait for it, stop it (POST "
                    f"/jobs/{other.id}/stop), or choose another {NAMED_BY.get(job.kind, '--out')}",
                )
            known = other  # recorded since the key was looked for
        if known.digest != job.digest:
            raise Problem(
                409,
                f"the Idempotency-Key {job.key} was used for another request, that of job {known.id}; take a new key "
                "for a new job",
            )
        return known

    def _full(self) -> Problem:
        return Problem(
            503,
            f"{self._queue} jobs wait already, as many as may (--jobs.queue); try again when some have run, or stop "
            "some",
            {"Retry-After": "60"},
        )

    def newest(self, most: int, status: Status | None) -> list[JobSummary]:
        """Jobs, the newest in front."""
        queue = self._store.queue()
        places = {id: place for place, (id, _) in enumerate(queue)}
        return [
            JobSummary.model_validate(row | {"reason": self._reason(row, queue[: places.get(row["id"], 0)])})
            for row in self._store.newest(most, status)
        ]

    def get(self, id: str) -> JobDocument:
        """A job, with its progress; raises Problem 404."""
        return self._document(self._find(id))

    def folder(self, id: str) -> Folder:
        """The folder of a job's results; raises Problem 404."""
        return self._places.open(self._find(id).place)

    def log(self, id: str, position: int = 0) -> tuple[LogPart, bool]:
        """What a job has printed from a position on, and whether that is all; raises Problem 404."""
        ended = self._find(id).has_ended  # asked first: nothing is printed after the end
        return self._logs.read(id, position), ended

    def stop(self, id: str) -> JobDocument:
        """Ends a job, or asks for its end; raises Problem 404, and 409 where it has ended."""
        for _ in range(10):  # until nobody changes it at the same time
            job = self._find(id)
            if job.has_ended:
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
        if job.kind in ("evaluate", "reconstruct"):
            what = "an evaluation" if job.kind == "evaluate" else "a reconstruction"
            raise Problem(
                409,
                f"job {id} is {what} and makes no model; activate the job that trained the model, or its folder",
            )
        try:
            find_checkpoint(self._places.open(job.place))
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

    def _document(self, job: Job) -> JobDocument:
        row = asdict(job)
        ahead = itertools.takewhile(lambda other: other[0] != job.id, self._store.queue())
        return JobDocument.model_validate(
            row | {"reason": self._reason(row, list(ahead)), "progress": self._read_progress(job)}
        )

    def _read_progress(self, job: Job) -> Progress:
        """How far a job is, read anew now and then."""
        began = time.monotonic()
        until, known = self._progress.get(job.id, (0.0, None))
        if known is not None and began < until and not job.has_ended:
            return known
        progress = read_progress(job.kind, job.place, job.config, self._places.open)
        if job.has_ended:
            self._progress.pop(job.id, None)
        else:
            now = time.monotonic()
            self._progress[job.id] = now + PROGRESS_SHARE * (now - began), progress
        return progress

    def _reason(self, job: dict[str, Any], ahead: list[tuple[str, str]]) -> str:
        """Why a job has its status; if it waits, for what: `ahead` are the jobs before it."""
        if job["status"] != "pending" or job["submission"]:
            return str(job["reason"])
        if self._dispatcher.problem:
            return self._dispatcher.problem
        if not ahead:
            return "the Ray head of this machine is being started" if self._cluster.local else "it is next"
        id, status = ahead[0]
        more = f" and {len(ahead) - 1} more" if len(ahead) > 1 else ""
        return f"it waits for job {id} ({status}){more}; --jobs.at_once has more run at a time"
