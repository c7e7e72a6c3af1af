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

_TABLES = """
CREATE TABLE IF NOT EXISTS models (
    name TEXT PRIMARY KEY, source TEXT NOT NULL, version TEXT NOT NULL, activated REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, config TEXT NOT NULL, created REAL NOT NULL, status TEXT NOT NULL,
    reason TEXT NOT NULL, submission TEXT NOT NULL, head TEXT NOT NULL, started REAL, ended REAL,
    key TEXT UNIQUE, digest TEXT NOT NULL, place TEXT NOT NULL, stopping INTEGER NOT NULL
);
"""


class Database:
    """The SQLite file in the service's state folder. Any thread may use it.

    Args:
        folder: the state folder; made when missing.

    Raises:
        ConfigError: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._leading: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(folder / "service.sqlite", check_same_thread=False, isolation_level=None)
            self._database.row_factory = sqlite3.Row
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA busy_timeout=5000")
            self._database.executescript(_TABLES)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"the state folder {folder} cannot be used: {error}; choose another --state") from None

    def write(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Executes a statement that changes something; returns how many rows it changed."""
        with self._lock:
            return self._database.execute(statement, values).rowcount

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The rows that a SELECT finds."""
        with self._lock:
            return [dict(row) for row in self._database.execute(statement, values).fetchall()]

    def lead(self) -> bool:
        """Whether this process looks after the jobs: of several services with one state folder, a single one does."""
        with self._lock:
            if self._leading is None:
                file = os.open(self.folder / "leader.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os.close(file)
                    return False
                self._leading = file
            return True

    def close(self) -> None:
        """Closes the file and lets another process lead."""
        with self._lock:
            self._database.close()
            if self._leading is not None:
                os.close(self._leading)
                self._leading = None
