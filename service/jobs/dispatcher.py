"""The thread that submits waiting jobs, polls running ones, and notices when their cluster is gone."""

from __future__ import annotations

import dataclasses
import logging
import sqlite3
import threading
import time
from contextlib import suppress

from service.jobs.cluster import Cluster, JobStatus, RayJobs, Refused, Unreachable
from service.jobs.documents import how_to_resume, read_progress
from service.jobs.program import VARIABLE, command, pack
from service.jobs.store import Job, JobLogs, JobStore
from service.places import Places
from service.problems import Problem
from service.settings import JobsConfig

IDLE_SECONDS = 2.0  # from one look to the next without jobs: another process may have taken some
LEAD_SECONDS = 2.0  # from one try to look after the jobs to the next, while another process does
LOG_SHARE = 20  # a log is fetched so rarely that it takes one part in so many of the time
_log = logging.getLogger("service.jobs")


class Dispatcher:
    """Looks after the jobs in a thread of its own.

    Args:
        store: the record.
        cluster: where jobs go.
        logs: where what they print is kept.
        settings: how many jobs run at a time, and after how long a silent cluster has lost its jobs.
        interval: seconds from one look to the next.
        places: that the service may use.
    """

    def __init__(
        self,
        store: JobStore,
        cluster: Cluster,
        logs: JobLogs,
        settings: JobsConfig,
        interval: float,
        places: Places,
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._logs = logs
        self._settings = settings
        self._interval = interval
        self._places = places
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._silent_since: dict[str, float] = {}  # by cluster
        self._next_log: dict[str, float] = {}  # when the log of a job is fetched again
        self._next_search = 0.0  # when lost jobs are looked for again
        self.problem = ""
        """Why the jobs that wait are not submitted, if it is not that others run."""

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def wake(self) -> None:
        """Has it look at once, because something has changed."""
        self._wake.set()

    def close(self) -> None:
        """Ends the thread; jobs go on."""
        self._closing.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.clear()
            if not self._store.lead():  # another process looks after the jobs of the state folder
                self._closing.wait(LEAD_SECONDS)
                continue
            idle, before = False, self.problem
            try:
                self._look_at_all()
                idle = not (self._store.queue() or self._lost_jobs())
            except Problem as error:  # the record cannot be written: all goes on where it stands when it can be
                self.problem = error.detail
            except Exception:
                _log.exception("looking at the jobs failed")
            if self.problem and self.problem != before:
                _log.warning("jobs have to wait: %s", self.problem)
            self._wake.wait(IDLE_SECONDS if idle else self._interval)

    def _look_at_all(self) -> None:
        """Looks once at what runs, and submits what may run now."""
        for job in self._store.submitted():
            self._update(job)
        if time.monotonic() >= self._next_search:
            for job in self._lost_jobs():
                self._search(job)
        running = len(self._store.submitted())
        self.problem = ""
        for job in self._store.waiting(max(0, self._settings.at_once - running)):
            if self._closing.is_set() or not self._start(job):
                return

    def _start(self, job: Job) -> bool:
        """Has a job that waits run; returns whether the next one may be tried."""
        try:
            self._store.change(job, reason="its turn has come")  # no head is started whose jobs cannot be recorded
            jobs = self._cluster.open(self._closing)
        except Unreachable as error:
            self.problem = str(error)
            return False
        except Refused as error:
            self._store.change(job, status="failed", reason=str(error))
            return True
        # Recorded before it is done: a service that is killed between the two finds out what became of it.
        submission = f"fbp-{job.id}"
        if self._store.change(job, submission=submission, head=jobs.head, reason="it is being submitted"):
            self._submit(dataclasses.replace(job, submission=submission, head=jobs.head), jobs)
        return True  # also where it was stopped meanwhile

    def _submit(self, job: Job, jobs: RayJobs) -> None:
        variables = {VARIABLE: pack(job.request), "PYTHONUNBUFFERED": "1"}
        try:
            jobs.submit(job.submission, command(self._cluster.python, job.kind), variables)
            _log.info("job submitted", extra={"job": job.id, "kind": job.kind})
        except Refused as error:
            self._store.change(job, status="failed", reason=str(error))
        except Unreachable as error:
            self.problem = str(error)

    def _update(self, job: Job) -> None:
        """Brings the record of a job up to date with its cluster."""
        try:
            jobs = self._cluster.client(job.head)
            if jobs is None:
                self._lose(job, "the Ray head that it ran on is gone")
                return
            if job.stopping:
                jobs.stop(job.submission)
            found = jobs.look(job.submission)
            if found is not None and found.status != "pending":
                self._keep_log(job, jobs, ended=found.status != "running")
        except Unreachable as error:
            since = self._silent_since.setdefault(job.head, time.monotonic())
            if time.monotonic() - since >= self._settings.lost_seconds:
                # The cluster may come back with the job, unless it is the service's own.
                self._lose(job, f"for {self._settings.lost_seconds:g} s, {error}", for_good=self._cluster.local)
            return
        self._silent_since.pop(job.head, None)
        if found is not None:
            self._record(job, found)
        elif job.started is not None:
            self._lose(job, "its cluster does not know it any more: it was started anew, or the job was removed there")
        elif job.stopping:
            self._store.change(job, status="stopped", reason="it was stopped before it ran")
        else:
            self._submit(job, jobs)  # it never got there

    def _record(self, job: Job, found: JobStatus) -> None:
        """Records what the cluster says of a job."""
        status, reason = found
        if status == "failed":
            reason = self._logs.error(job.id) or reason or "its program failed; see its log"
        elif status == "stopped":
            reason = "it was stopped on request" if job.stopping else f"it was stopped on the cluster: {reason}"
        elif status in ("running", "succeeded"):
            reason = ""
        if job.stopping and status in ("pending", "running"):
            reason = "it is being stopped"
        began = {"started": time.time()} if job.started is None and status != "pending" else {}
        if (status, reason) != (job.status, job.reason) or began:
            self._store.change(job, status=status, reason=reason, **began)
        if status not in ("pending", "running"):
            self._next_log.pop(job.id, None)
            _log.info("job ended", extra={"job": job.id, "status": status, "reason": reason})

    def _lose(self, job: Job, why: str, for_good: bool = True) -> None:
        """Records that the cluster of a job is gone, or has been silent for too long."""
        self._cluster.abandon()
        if job.stopping:
            self._store.change(job, status="stopped", reason=f"it was being stopped when it was lost: {why}")
        elif job.started is None:
            self._store.change(job, status="pending", submission="", head="", reason="")  # nothing is lost
        else:
            progress = read_progress(job.kind, job.place, job.config, self._places.open)
            reason = f"{why}; {how_to_resume(job.kind, progress)}"
            self._store.change(job, status="lost", reason=reason, head="" if for_good else job.head)
            _log.warning("job lost", extra={"job": job.id, "reason": reason})

    def _lost_jobs(self) -> list[Job]:
        """Those whose cluster was silent and may answer again."""
        return [] if self._cluster.local else self._store.silent()

    def _search(self, job: Job) -> None:
        """Looks for a lost job at a cluster that may answer again."""
        try:
            jobs = self._cluster.client(job.head)
            found = jobs.look(job.submission) if jobs is not None else None
        except Unreachable:
            self._next_search = time.monotonic() + self._settings.lost_seconds
            return
        if jobs is None or found is None:
            self._store.change(job, head="")
            return
        self._silent_since.pop(job.head, None)
        try:
            self._store.change(job, status="running", reason="", ended=None)
            _log.info("job found again", extra={"job": job.id})
        except sqlite3.IntegrityError:  # it was submitted again meanwhile, and two would write to one folder
            with suppress(Unreachable):  # then it is looked for again
                jobs.stop(job.submission)
                self._store.change(job, head="", reason="it was stopped: another job has its folder now")

    def _keep_log(self, job: Job, jobs: RayJobs, ended: bool) -> None:
        began = time.monotonic()
        if began < self._next_log.get(job.id, 0.0) and not ended:
            return
        try:
            self._logs.keep(job.id, jobs.log(job.submission))
        except (Refused, OSError) as error:
            _log.warning("no log", extra={"job": job.id, "reason": str(error)})
        took = time.monotonic() - began
        self._next_log[job.id] = time.monotonic() + LOG_SHARE * took
