"""What a resumed run must know of its tracker: under which identity it is there, and up to which epoch."""

from __future__ import annotations

import json
from pathlib import Path

from fbp_ray.storage import write_atomically


class Notes:
    """A small file beside the run, for trackers that cannot take back what was logged.

    Args:
        file: read when it exists.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        content = json.loads(file.read_text()) if file.is_file() else {}
        self.id: str | None = content.get("id")
        self.epoch: int = content.get("epoch", 0)

    def begin(self, identity: str) -> None:
        """Notes a new identity, which has no epochs yet."""
        self.id, self.epoch = identity, 0
        self._write()

    def logged(self, epoch: int) -> None:
        """Notes that the tracker has everything up to `epoch`."""
        self.epoch = epoch
        self._write()

    def _write(self) -> None:
        write_atomically(self.file, json.dumps({"id": self.id, "epoch": self.epoch}))
