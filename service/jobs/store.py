"""The service's own record of jobs: still there after a restart of the service, or of the cluster."""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

from prometheus_client import Gauge

from service.database import Database
from service.jobs.documents import STATUSES, Kind, Status


class Job(NamedTuple):
    """A job, as it is recorded."""

    id: str
    kind: Kind
    request: dict[str, Any]
    """What was asked for, with what the service has added."""

    created: float
    status: Status
    reason: str
    submission: str
    """What the cluster knows it by; empty while it waits for its turn."""

    head: str
    """Which cluster that is."""

    started: float | None
    """When it was first seen to run."""

    ended: float | None
    key: str | None
    digest: str
    place: str
    stopping: bool
    """Whether it has been asked to stop."""

    @property
    def ended_already(self) -> bool:
        """Whether nothing will come any more, unless a cluster that was silent answers again."""
        return self.status not in ("pending", "running")


class Store:
    """Jobs in the record. Every thread may use it.

    Args:
        record: of the service.
        gauge: jobs by status, kept current.
    """

    def __init__(self, record: Database, gauge: Gauge) -> None:
        self._record = record
        self._gauge = gauge
        self._count()

    def add(self, job: Job) -> None:
        """Records a new job; raises sqlite3.IntegrityError where its id or its key is known already."""
        values = job._asdict() | {"config": json.dumps(job.request), "stopping": int(job.stopping)}
        del values["request"]
        marks = ", ".join("?" * len(values))
        self._record.write(f"INSERT INTO jobs ({', '.join(values)}) VALUES ({marks})", list(values.values()))
        self._count()

    def get(self, id: str) -> Job | None:
        """The job, None where there is none of this id."""
        return next(iter(self._select("id = ?", (id,))), None)

    def by_key(self, key: str) -> Job | None:
        """The job that was asked for under an idempotency key."""
        return next(iter(self._select("key = ?", (key,))), None)

    def newest(self, most: int, status: Status | None) -> list[Job]:
        """Jobs, of one status or all, the newest in front."""
        where, values = ("status = ?", (status,)) if status else ("1", ())
        return self._select(where, values, f"created DESC, rowid DESC LIMIT {int(most)}")

    def waiting(self) -> list[Job]:
        """Those that wait for their turn, the first in front."""
        return self._select("status = 'pending' AND submission = ''")

    def submitted(self) -> list[Job]:
        """Those that the cluster has and that have not ended."""
        return self._select("status IN ('pending', 'running') AND submission != ''")

    def silent(self) -> list[Job]:
        """Those that were lost because their cluster was silent: it may answer again."""
        return self._select("status = 'lost' AND head != ''")

    def at_work_on(self, place: str) -> Job | None:
        """The job that has not ended and writes to a folder."""
        return next(iter(self._select("status IN ('pending', 'running') AND place = ?", (place,))), None)

    def change(self, job: Job, **values: Any) -> bool:
        """Changes some columns, if the job's status and submission are still those of `job`; whether they were."""
        if values.get("status", job.status) not in ("pending", "running"):
            values.setdefault("ended", time.time())
        columns = ", ".join(f"{name} = ?" for name in values)
        changed = self._record.write(
            f"UPDATE jobs SET {columns} WHERE id = ? AND status = ? AND submission = ?",
            (*values.values(), job.id, job.status, job.submission),
        )
        self._count()
        return changed == 1

    def _select(self, where: str, values: tuple[Any, ...] = (), order: str = "created, rowid") -> list[Job]:
        rows = self._record.read(f"SELECT * FROM jobs WHERE {where} ORDER BY {order}", values)
        return [_job(row) for row in rows]

    def _count(self) -> None:
        rows = self._record.read("SELECT status, COUNT(*) AS count FROM jobs GROUP BY status")
        counts = {row["status"]: row["count"] for row in rows}
        for status in STATUSES:
            self._gauge.labels(status).set(counts.get(status, 0))


def _job(row: dict[str, Any]) -> Job:
    values = row | {"request": json.loads(row["config"]), "stopping": bool(row["stopping"])}
    del values["config"]
    return Job(**values)
