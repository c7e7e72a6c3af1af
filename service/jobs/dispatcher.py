"""The thread that submits the jobs that wait, looks at those that run, and notices when their cluster is gone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from service.jobs.cluster import Cluster, HeadError
from service.jobs.commands import VARIABLE, command, pack
from service.jobs.logs import Logs
from service.jobs.ray_jobs import JobClient, JobStatus, Refused, Unreachable
from service.jobs.store import Job, Store

IDLE_SECONDS = 2.0  # from one look to the next without jobs: another process may have taken some
LEAD_SECONDS = 2.0  # from one try to look after the jobs to the next, while another process does
LOG_SHARE = 20  # a log is fetched so rarely that it takes one part in so many of the time
_log = logging.getLogger("service.jobs")


class Dispatcher:
    """The thread. `wake` has it look at once.

    Args:
        store: the record.
        cluster: where jobs go.
        logs: where what they print is kept.
        at_once: jobs at a time.
        lost_seconds: a cluster that is silent for so long has lost its jobs.
        interval: seconds from one look to the next.
        progress: tells how many epochs, or trials, of a job are finished, in words.
        lead: whether this process looks after the jobs; others of the same state folder wait for their turn.
    """

    def __init__(
        self,
        store: Store,
        cluster: Cluster,
        logs: Logs,
        at_once: int,
        lost_seconds: float,
        interval: float,
        progress: Callable[[Job], str],
        lead: Callable[[], bool],
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._logs = logs
        self._at_once = at_once
        self._lost_seconds = lost_seconds
        self._interval = interval
        self._progress = progress
        self._lead = lead
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._silent: dict[str, float] = {}  # since when, by cluster
        self._log_after: dict[str, float] = {}
        self._find_after = 0.0
        self.trouble = ""
        """Why the jobs that wait are not submitted, if it is not that others run."""

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def wake(self) -> None:
        """Something has changed."""
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
            if not self._lead():
                self._closing.wait(LEAD_SECONDS)
                continue
            try:
                self.tick()
            except Exception:
                _log.exception("looking at the jobs failed")
            idle = not (self._store.submitted() or self._store.waiting() or self._lost_ones())
            self._wake.wait(IDLE_SECONDS if idle else self._interval)

    def tick(self) -> None:
        """Looks once at what runs, and submits what may run now."""
        for job in self._store.submitted():
            self._look(job)
        if time.monotonic() >= self._find_after:
            for job in self._lost_ones():
                self._find(job)
        running = len(self._store.submitted())
        self.trouble = ""
        for job in self._store.waiting()[: max(0, self._at_once - running)]:
            if self._closing.is_set() or not self._submit(job):
                return

    def _submit(self, job: Job) -> bool:
        """Submits a job; whether the next one may be tried."""
        try:
            head, client = self._cluster.open(self._closing)
        except Unreachable as error:
            self.trouble = str(error)
            return False
        except HeadError as error:
            self._store.change(job, status="failed", reason=str(error))
            return True
        # Recorded before it is done: a service that is killed between the two finds out what became of it.
        if not self._store.change(job, submission=f"fbp-{job.id}", head=head, reason="it is being submitted"):
            return True  # stopped meanwhile
        self._give(job._replace(submission=f"fbp-{job.id}", head=head), client)
        return True

    def _give(self, job: Job, client: JobClient) -> None:
        variables = {VARIABLE: pack(job.request), "PYTHONUNBUFFERED": "1"}
        try:
            client.submit(job.submission, command(self._cluster.python, job.kind), variables)
            _log.info("job submitted", extra={"job": job.id, "kind": job.kind})
        except Refused as error:
            self._store.change(job, status="failed", reason=str(error))
        except Unreachable as error:
            self.trouble = str(error)

    def _look(self, job: Job) -> None:
        """Brings the record of a job up to date with its cluster."""
        try:
            client = self._cluster.client(job.head)
            if client is None:
                self._gone(job, "the Ray head that it ran on is gone")
                return
            if job.stopping:
                client.stop(job.submission)
            standing = client.look(job.submission)
            ended = standing is not None and standing.status not in ("pending", "running")
            if standing is not None and standing.status != "pending":
                self._keep_log(job, client, ended)
        except Unreachable as error:
            since = self._silent.setdefault(job.head, time.monotonic())
            if time.monotonic() - since >= self._lost_seconds:
                self._gone(job, f"for {self._lost_seconds:g} s, {error}", forgotten=False)
            return
        self._silent.pop(job.head, None)
        if standing is None:
            self._unknown(job, client)
        else:
            self._stands(job, standing)

    def _stands(self, job: Job, standing: JobStatus) -> None:
        status, reason = standing
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
            self._log_after.pop(job.id, None)
            _log.info("job ended", extra={"job": job.id, "status": status, "reason": reason})

    def _unknown(self, job: Job, client: JobClient) -> None:
        """The cluster answers and does not know the job."""
        if job.started is not None:
            self._gone(job, "its cluster does not know it any more: it was started anew, or the job was removed there")
        elif job.stopping:
            self._store.change(job, status="stopped", reason="it was stopped before it ran")
        else:
            self._give(job, client)  # it never got there

    def _gone(self, job: Job, why: str, forgotten: bool = True) -> None:
        """The cluster of a job is gone, or silent for too long."""
        if self._cluster.local:
            self._cluster.abandon()
        if job.stopping:
            self._store.change(job, status="stopped", reason=f"it was being stopped when it was lost: {why}")
        elif job.started is None:
            self._store.change(job, status="pending", submission="", head="", reason="")  # nothing is lost
        else:
            reason = f"{why}; {self._progress(job)}"
            # A cluster that is only silent may come back with the job.
            again = {"head": ""} if forgotten or self._cluster.local else {}
            self._store.change(job, status="lost", reason=reason, **again)
            _log.warning("job lost", extra={"job": job.id, "reason": reason})

    def _lost_ones(self) -> list[Job]:
        """Those whose cluster was silent and may answer again."""
        return [] if self._cluster.local else self._store.silent()

    def _find(self, job: Job) -> None:
        """Looks for a lost job at a cluster that may answer again."""
        try:
            client = self._cluster.client(job.head)
            standing = client.look(job.submission) if client is not None else None
        except Unreachable:
            self._find_after = time.monotonic() + self._lost_seconds
            return
        if standing is None:
            self._store.change(job, head="")
        else:
            self._silent.pop(job.head, None)
            self._store.change(job, status="running", reason="", ended=None)
            _log.info("job found again", extra={"job": job.id})

    def _keep_log(self, job: Job, client: JobClient, ended: bool) -> None:
        began = time.monotonic()
        if began < self._log_after.get(job.id, 0.0) and not ended:
            return
        try:
            self._logs.keep(job.id, client.log(job.submission))
        except Refused as error:
            _log.warning("no log", extra={"job": job.id, "reason": str(error)})
        took = time.monotonic() - began
        self._log_after[job.id] = time.monotonic() + LOG_SHARE * took
