"""What jobs have printed, kept in the state folder: it is still there when the cluster is gone."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NamedTuple

from fbp_ray.storage import write_atomically

MOST = 4_000_000  # bytes that are kept of a log, the last ones
_TAIL = 20_000  # of which are looked at for an error


class Part(NamedTuple):
    """A part of a log."""

    content: bytes
    position: int
    """Where it ends: what comes later begins there."""


class Logs:
    """The logs, a file a job. Every thread may use them.

    Args:
        folder: of the files.
        most: bytes that are kept of each.
    """

    def __init__(self, folder: Path, most: int = MOST) -> None:
        self._folder = folder
        self._most = most
        self._lock = threading.Lock()
        self._written: dict[str, int] = {}
        self._dropped: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, id: str, text: str) -> None:
        """Keeps a log, given from its begin; only what is new is written."""
        content = text.encode("utf-8", "replace")
        with self._lock:
            before = self._written.get(id)
            if before == len(content):
                return
            dropped = self._dropped.get(id, 0)
            if before is not None and before < len(content) <= dropped + self._most:
                with self._path(id).open("ab") as file:
                    file.write(content[before:])
            else:
                dropped = self._cut(content)
                write_atomically(self._path(id), content[dropped:])
            self._written[id], self._dropped[id] = len(content), dropped

    def read(self, id: str, position: int = 0) -> Part:
        """What is kept of a log from a position on."""
        with self._lock:
            first = self._dropped.get(id, 0)
            try:
                with self._path(id).open("rb") as file:
                    file.seek(max(0, position - first))
                    content = file.read()
                    return Part(content, first + file.tell())
            except FileNotFoundError:
                return Part(b"", position)

    def error(self, id: str) -> str:
        """The error that the job's program ended with, as it printed it; empty where it printed none."""
        lines = self.read(id).content[-_TAIL:].decode("utf-8", "replace").splitlines()
        found = [number for number, line in enumerate(lines) if line.startswith("error: ")]
        if not found:
            return ""
        return "\n".join(lines[found[-1] :]).removeprefix("error: ").strip()

    def _cut(self, content: bytes) -> int:
        """How many bytes in front to leave out: half of what may be kept is left to grow, from a whole line on."""
        if len(content) <= self._most:
            return 0
        least = len(content) - self._most // 2
        return content.find(b"\n", least) + 1 or least

    def _path(self, id: str) -> Path:
        return self._folder / f"{id}.log"
