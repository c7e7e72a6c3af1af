"""A run folder: everything that a training run leaves, so that the folder explains itself.

STORAGE/NAME/
  config.yaml     the resolved configuration
  versions.json   of Python and the packages that matter
  baseline.json   the classic FBP on the validation part
  history.csv     a row an epoch: learning rate, every loss part, PSNR, SSIM, samples/s, seconds
  status.json     running, completed or failed, and why
  best/  last/    checkpoints (fbp_ray.checkpoint); last/ also holds what resuming needs
  .ray/           Ray Train's own notes, of no use afterwards
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, Literal

import yaml

from fbp_ray.checkpoint import MANIFEST, versions
from fbp_ray.config import TrainConfig
from fbp_ray.errors import RunError
from fbp_ray.storage import write_atomically

State = Literal["running", "completed", "failed"]


class RunFolder:
    """The folder of one run.

    Args:
        path: STORAGE/NAME.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "best"
        self.last = path / "last"

    def begin(self, config: TrainConfig) -> None:
        """Makes the folder for a new run, or takes up an unfinished one that has the same configuration.

        Raises:
            RunError: the run is complete, or was begun with another configuration, or the folder cannot be written.
        """
        file = self.path / "config.yaml"
        tree = _comparable(config)
        if file.is_file():
            earlier = yaml.safe_load(file.read_text())
            if self.status().get("state") == "completed":
                raise RunError(f"the run {self.path} is complete; choose another --run.name, nothing was changed")
            different = _differences(_comparable(TrainConfig.model_validate(earlier)), tree)
            if different:
                raise RunError(
                    f"the run {self.path} was begun with other settings ({'; '.join(different)}); "
                    "choose another --run.name, or give the same settings to go on with it"
                )
        elif self.path.exists() and any(self.path.iterdir()):
            raise RunError(f"{self.path} exists and is no run folder; choose another --run.name or --run.storage")
        try:
            write_atomically(file, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
            self.write_json("versions.json", versions())
            self.set_status("running")
        except OSError as error:
            raise RunError(
                f"the run folder {self.path} cannot be written: {error}; choose another --run.storage"
            ) from None

    def resumable(self) -> bool:
        """Whether an epoch has been finished before."""
        return (self.last / MANIFEST).is_file()

    def status(self) -> dict[str, Any]:
        """The content of status.json, or nothing."""
        return self.read_json("status.json") or {}

    def set_status(self, state: State, reason: str = "") -> None:
        """Says how the run stands."""
        self.write_json("status.json", {"state": state, "reason": reason})

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """history.csv, a row an epoch."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path / "history.csv", text.getvalue())

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the folder, or None."""
        file = self.path / name
        return dict(json.loads(file.read_text())) if file.is_file() else None

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """A JSON file of the folder."""
        write_atomically(self.path / name, json.dumps(content, indent=2))


def _comparable(config: TrainConfig) -> dict[str, Any]:
    """The settings that two sessions of one run must share: all but where and how wide it runs."""
    return config.model_dump(mode="json", exclude={"run": True, "scaling": True})


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key} was {before}, is now {after}")
    return found
