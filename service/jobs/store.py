"""The service's own record of its jobs, and of what they print: both outlive the service and the cluster."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import Gauge

from fbp_ray.storage import write_atomically
from service.database import Database
from service.jobs.documents import STATUSES, Kind, Status, showable

LOG_BYTES = 4_000_000  # that are kept of a log, the last ones
ERROR_BYTES = 20_000  # at the end of a log, where an error is looked for
GOES_ON = "status IN ('pending', 'running')"
WAITS = "status = 'pending' AND submission = ''"
SUMMARY = "id, kind, status, reason, created, started, ended, place, submission"


@dataclass(frozen=True)
class Job:
    """A job, as it is recorded."""

    id: str
    kind: Kind
    request: dict[str, Any]  # what was asked for, with what the service has added
    place: str  # the folder of the results
    digest: str  # a hash of the request as it came: does another one with the same key ask for the same?
    key: str | None = None  # the idempotency key
    created: float = field(default_factory=time.time)
    status: Status = "pending"
    reason: str = ""
    submission: str = ""  # what the cluster knows it by; empty while it waits for its turn
    head: str = ""  # which cluster that is
    started: float | None = None  # when it was first seen to run
    ended: float | None = None
    stopping: bool = False  # whether it has been asked to stop

    @property
    def config(self) -> dict[str, Any]:
        """The settings that were asked for."""
        return dict(self.request["config"])

    @property
    def has_ended(self) -> bool:
        """Whether it will not change any more, unless a cluster that was silent answers again."""
        return self.status not in ("pending", "running")


class JobStore:
    """Jobs in the database. Every thread may use it.

    Args:
        database: of the service.
        gauge: jobs by status, kept current.
    """

    def __init__(self, database: Database, gauge: Gauge) -> None:
        self.lead = database.lead
        self._database = database
        self._gauge = gauge
        self._count()

    def add(self, job: Job, most: int) -> bool:
        """Records a new job, unless `most` wait already; returns whether it did.

        Raises:
            sqlite3.IntegrityError: its key is known, or another job that has not ended has its folder.
        """
        values = asdict(job)
        values["config"] = json.dumps(values.pop("request"))
        marks, waiting = ", ".join("?" * len(values)), f"(SELECT COUNT(*) FROM jobs WHERE {WAITS})"
        added = self._database.write(  # one statement, so that several processes agree
            f"INSERT INTO jobs ({', '.join(values)}) SELECT {marks} WHERE {waiting} < ?", [*values.values(), most]
        )
        self._count()
        return added == 1

    def get(self, id: str) -> Job | None:
        """The job, None where there is none of this id."""
        return self._first("id = ?", id)

    def by_key(self, key: str) -> Job | None:
        """The job that was asked for under an idempotency key."""
        return self._first("key = ?", key)

    def by_place(self, place: str) -> Job | None:
        """The job that writes to a folder, or to one around it or in it, and has not ended."""
        inside = "substr({0} || '/', 1, length({1}) + 1) = {1} || '/'"
        return self._first(f"{GOES_ON} AND ({inside.format('place', '?1')} OR {inside.format('?1', 'place')})", place)

    def newest(self, limit: int, status: Status | None) -> list[dict[str, Any]]:
        """The columns of `SUMMARY` of jobs, of one status or all, the newest in front."""
        where, values = ("status = ?", (status,)) if status else ("1", ())
        return self._database.read(
            f"SELECT {SUMMARY} FROM jobs WHERE {where} ORDER BY created DESC, rowid DESC LIMIT ?", (*values, limit)
        )

    def queue(self) -> list[tuple[str, str]]:
        """The ids and statuses of all that have not ended: what the cluster has, then what waits, in their order."""
        rows = self._database.read(
            f"SELECT id, status FROM jobs WHERE {GOES_ON} ORDER BY submission = '', created, rowid"
        )
        return [(row["id"], row["status"]) for row in rows]

    def count_waiting(self) -> int:
        """How many wait for their turn."""
        return int(self._database.read(f"SELECT COUNT(*) AS count FROM jobs WHERE {WAITS}")[0]["count"])

    def waiting(self, most: int) -> list[Job]:
        """The first of those that wait for their turn."""
        return self._select(WAITS, (), f"created, rowid LIMIT {int(most)}")

    def submitted(self) -> list[Job]:
        """Those that the cluster has and that have not ended."""
        return self._select(f"{GOES_ON} AND submission != ''")

    def silent(self) -> list[Job]:
        """Those that were lost because their cluster was silent: it may answer again."""
        return self._select("status = 'lost' AND head != ''")

    def change(self, job: Job, **values: Any) -> bool:
        """Changes some columns, if the job's status and submission are still those of `job`; whether they were.

        Raises:
            sqlite3.IntegrityError: it would go on, but another job has its folder now.
        """
        values = showable(values)
        if values.get("status", job.status) not in ("pending", "running"):
            values.setdefault("ended", time.time())
        columns = ", ".join(f"{name} = ?" for name in values)
        changed = self._database.write(
            f"UPDATE jobs SET {columns} WHERE id = ? AND status = ? AND submission = ?",
            (*values.values(), job.id, job.status, job.submission),
        )
        self._count()
        return changed == 1

    def _first(self, where: str, value: str) -> Job | None:
        return next(iter(self._select(where, (value,))), None)

    def _select(self, where: str, values: tuple[Any, ...] = (), order: str = "created, rowid") -> list[Job]:
        rows = self._database.read(f"SELECT * FROM jobs WHERE {where} ORDER BY {order}", values)
        return [
            Job(request=showable(json.loads(row.pop("config"))), stopping=bool(row.pop("stopping")), **row)
            for row in rows
        ]

    def _count(self) -> None:
        rows = self._database.read("SELECT status, COUNT(*) AS count FROM jobs GROUP BY status")
        counts = {row["status"]: row["count"] for row in rows}
        for status in STATUSES:
            self._gauge.labels(status).set(counts.get(status, 0))


class LogPart(NamedTuple):
    """A part of a log."""

    content: bytes
    end: int  # the position where the next part begins


class JobLogs:
    """What jobs have printed, a file a job. Every thread may use it.

    Args:
        folder: of the files.
        max_bytes: that are kept of each log.
    """

    def __init__(self, folder: Path, max_bytes: int = LOG_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._seen: dict[str, int] = {}  # bytes of each log so far
        self._dropped: dict[str, int] = {}  # bytes of its begin that are not kept

    def keep(self, id: str, text: str) -> None:
        """Keeps a log, given from its begin; only what is new is written."""
        content = text.encode("utf-8", "replace")
        size, limit = len(content), self._max_bytes
        with self._lock:
            before, dropped = self._seen.get(id), self._dropped.get(id, 0)
            if before == size:
                return
            if before is not None and before < size <= dropped + limit:
                with self._path(id).open("ab") as file:
                    file.write(content[before:])
            else:
                dropped = 0
                if size > limit:  # half of what may be kept is left to grow; what is kept begins with a whole line
                    dropped = content.find(b"\n", size - limit // 2) + 1 or size - limit // 2
                write_atomically(self._path(id), content[dropped:])
            self._seen[id], self._dropped[id] = size, dropped

    def read(self, id: str, position: int = 0) -> LogPart:
        """What is kept of a log from a position on."""
        with self._lock:
            dropped = self._dropped.get(id, 0)
            try:
                with self._path(id).open("rb") as file:
                    file.seek(max(0, position - dropped))
                    return LogPart(file.read(), dropped + file.tell())
            except FileNotFoundError:
                return LogPart(b"", position)

    def error(self, id: str) -> str:
        """The error that the job's program ended with, as it printed it; empty where it printed none."""
        lines = self.read(id).content[-ERROR_BYTES:].decode("utf-8", "replace").splitlines()
        _, found, error = "\n".join(["", *lines]).rpartition("\nerror: ")
        return error.strip() if found else ""

    def _path(self, id: str) -> Path:
        return self._folder / f"{id}.log"
