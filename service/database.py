"""The service's memory across restarts: activated models and jobs, in a small SQLite file."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fbp_ray.errors import ConfigError
from service.problems import cannot_remember

_TABLES = """
CREATE TABLE IF NOT EXISTS models (
    name TEXT PRIMARY KEY, source TEXT NOT NULL, version TEXT NOT NULL, activated REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, config TEXT NOT NULL, created REAL NOT NULL, status TEXT NOT NULL,
    reason TEXT NOT NULL, submission TEXT NOT NULL, head TEXT NOT NULL, started REAL, ended REAL,
    key TEXT UNIQUE, digest TEXT NOT NULL, place TEXT NOT NULL, stopping INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, submission, created);
CREATE INDEX IF NOT EXISTS jobs_by_age ON jobs (created);
"""
_ONE_A_FOLDER = """
CREATE UNIQUE INDEX IF NOT EXISTS jobs_by_place ON jobs (place) WHERE status IN ('pending', 'running')
"""
_LATER_IN_A_FOLDER = """
UPDATE jobs SET status = 'failed', reason = 'another job has its folder' WHERE status IN ('pending', 'running')
AND EXISTS (SELECT 1 FROM jobs AS other WHERE other.place = jobs.place AND other.rowid < jobs.rowid
            AND other.status IN ('pending', 'running'))
"""


class Database:
    """The SQLite file in the service's state folder. Any thread, and several processes, may use it.

    Args:
        folder: the state folder; made when missing.

    Raises:
        ConfigError: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._leading: int | None = None
        self._writing, self._reading = threading.Lock(), threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = self._connect()
            self._writer.execute("PRAGMA journal_mode=WAL")
            self._writer.executescript(_TABLES)
            try:
                self._writer.execute(_ONE_A_FOLDER)
            except sqlite3.IntegrityError:  # of a version that let two jobs have one
                self._writer.execute(_LATER_IN_A_FOLDER)
                self._writer.execute(_ONE_A_FOLDER)
            self._reader = self._connect()  # of its own, so that nobody who reads waits for one who writes
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"the state folder {folder} cannot be used: {error}; choose another --state") from None

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.folder / "service.sqlite", check_same_thread=False, isolation_level=None)
        database.row_factory = sqlite3.Row
        database.execute("PRAGMA busy_timeout=5000")
        return database

    def write(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Executes a statement that changes something; returns how many rows it changed.

        Raises:
            sqlite3.IntegrityError: the rows do not go together.
            Problem: 507 or 503, the folder cannot be written.
        """
        try:
            with self._writing:
                return self._writer.execute(statement, values).rowcount
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise cannot_remember(self.folder, error) from None

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The rows that a SELECT finds; raises Problem 503 where the folder cannot be read."""
        try:
            with self._reading:
                return [dict(row) for row in self._reader.execute(statement, values).fetchall()]
        except sqlite3.Error as error:
            raise cannot_remember(self.folder, error) from None

    def version(self) -> int:
        """Another number after each change, by whichever process; it takes microseconds."""
        return int(self.read("PRAGMA data_version")[0]["data_version"])

    def lead(self) -> bool:
        """Whether this process looks after the jobs: of several services with one state folder, a single one does."""
        with self._writing:
            if self._leading is None:
                try:
                    file = os.open(self.folder / "leader.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                except OSError:  # no room for it, or a folder that cannot be written
                    return False
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os.close(file)
                    return False
                self._leading = file
            return True

    def close(self) -> None:
        """Closes the file and lets another process lead."""
        with self._writing, self._reading:
            self._reader.close()
            self._writer.close()
            if self._leading is not None:
                os.close(self._leading)
                self._leading = None
