"""A run folder: everything that a training run leaves, so that the folder explains itself.

STORAGE/NAME/
  config.yaml     the resolved configuration
  versions.json   of Python and the packages that matter
  baseline.json   the classic FBP on the validation part
  history.csv     a row an epoch: learning rate, every loss part, PSNR, SSIM, samples/s, seconds
  status.json     running, completed, stopped (before its end, by a sweep or Ctrl-C) or failed, why, which process has
                  it, when it last was complete
  best/  last/    checkpoints (fbp_ray.checkpoint); last/ also holds what resuming needs, and the epoch before
  tensorboard/    curves and pictures (fbp_ray.trackers)
  newest.png      the newest picture of a reconstruction, where a tracker has pictures
  traceback.txt   how an error that nobody foresaw came about
"""

from __future__ import annotations

import csv
import io
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import uuid4

import psutil
import yaml

from fbp_ray.config import DataConfig, RunConfig, TrainConfig
from fbp_ray.errors import RunError
from fbp_ray.settings import as_json, as_text, expand_home, flatten, what_is_wrong
from fbp_ray.storage import Folder, LocalFolder, Place, is_begun, is_unfinished, open_folder
from fbp_ray.versions import versions

NEWEST = "newest.png"
State = Literal["running", "completed", "stopped", "failed"]


class ResolvedData(DataConfig):
    """A data folder that is known."""

    dir: Path


class ResolvedRun(RunConfig):
    """A run that has a name."""

    name: str


class ResolvedConfig(TrainConfig):
    """The configuration of a run with nothing left open."""

    data: ResolvedData
    run: ResolvedRun


Config = TypeVar("Config", bound=TrainConfig)


class RunFolder:
    """The folder of one run.

    Args:
        place: STORAGE/NAME, a path or a URI.
        session: of the process that has begun the run; a worker of that process gives it.
    """

    def __init__(self, place: Place, session: str = "") -> None:
        self.folder = open_folder(place)
        self.best = self.folder / "best"
        self.last = self.folder / "last"
        self.session = session

    def __str__(self) -> str:
        return str(self.folder)

    def begin(self, config: Config) -> Config:
        """Makes the folder of a new run, resumes an unfinished one of the same settings, or extends a complete one.

        Returns:
            The configuration to train with. That of an extended run has the epochs of both.

        Raises:
            RunError: the run is complete, has other settings, or another process has it; or the folder cannot be
                written.
        """
        try:
            config = self.check_resumable(config)
            self.clear()
            self.session = uuid4().hex
            self.folder.write("config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
            self.write_json("versions.json", versions())
            self.set_status("running")
        except OSError as error:
            raise RunError(f"the run folder {self} cannot be written: {error}; choose another --run.storage") from None
        return config

    def check_resumable(self, config: Config) -> Config:
        """Checks what `begin` checks and changes nothing; returns and raises the same, and OSError."""
        more = config.run.extend
        if not self.folder.has("config.yaml"):
            if is_begun(self.folder):
                weights = "best" in self.folder.folders()  # as a conversion leaves them
                start = f"; to start from its weights: --init.checkpoint {self}" if weights else ""
                raise RunError(
                    f"{self} exists and is no run that was trained; choose another --run.name or --run.storage{start}"
                )
            if more is not None:
                raise RunError(f"there is no run {self} to extend; leave out --run.extend to begin it")
            return config
        try:
            earlier = TrainConfig.model_validate(yaml.safe_load(as_text(self.folder.read("config.yaml"))))
        except (ValueError, yaml.YAMLError) as error:
            why = what_is_wrong(error, TrainConfig)
            raise RunError(f"{self}/config.yaml is not of this version ({why}); choose another --run.name") from None
        status = self.status()
        if status.get("state") == "completed" and more is None:
            raise RunError(
                f"the run {self} is complete; choose another --run.name, or --run.extend N to train it for N epochs "
                "more; nothing was changed"
            )
        pid = status.get("pid")
        if status.get("state") == "running" and pid != os.getpid() and is_alive(status):
            raise RunError(
                f"the process {pid} on this machine is training {self}; wait for it or stop it. If that process is "
                f"something else, remove {self}/status.json"
            )
        if more is not None:
            epochs = earlier.train.epochs
            if status.get("state") == "completed":  # it may have ended early
                epochs = (epochs_of(self.read_history()) or epochs) + more
            elif earlier.run.extend != more:
                raise RunError(f"the run {self} is not complete; go on with it without --run.extend {more} first")
            config, earlier = _with_epochs(config, epochs), _with_epochs(earlier, epochs)
        different = _differences(_comparable(earlier), _comparable(config))
        if different:
            hint = f"; it is being extended: --run.extend {earlier.run.extend}" if earlier.run.extend else ""
            raise RunError(
                f"the run {self} was begun with other settings ({'; '.join(different)}); "
                f"choose another --run.name, or give the same settings to go on with it{hint}"
            )
        return config

    def clear(self) -> None:
        """Removes what a process left that was killed while it wrote."""
        for folder in (self.folder, self.best, self.last):
            if isinstance(folder, LocalFolder):
                for name in filter(is_unfinished, folder.names()):
                    folder.remove(name)

    def check_owner(self) -> None:
        """Raises RunError where another process has resumed the run since."""
        status = self.status()
        if not status:
            raise RunError(f"{self}/status.json is gone, or the whole run with it; this process stops")
        if status.get("session") != self.session:
            raise RunError(
                f"the run {self} was taken up by another process ({status.get('pid')} on {status.get('host')}); this "
                "one stops and has changed nothing since"
            )

    def status(self) -> dict[str, Any]:
        """The content of status.json, or nothing."""
        return self.read_json("status.json") or {}

    def set_status(self, state: State, reason: str = "") -> None:
        """Says how the run stands. When it was complete stays known while it is extended, and if that fails."""
        completed = time.time() if state == "completed" else self.status().get("completed")
        status = {"state": state, "reason": reason, **this_process(), "session": self.session, "completed": completed}
        self.write_json("status.json", status)

    def read_history(self) -> list[dict[str, float]]:
        """The rows of history.csv; none where there is no such file. Raises RunError where it is damaged."""
        if not self.folder.has("history.csv"):
            return []
        try:
            lines = csv.DictReader(io.StringIO(as_text(self.folder.read("history.csv"))))
            return [{name: float(value) for name, value in row.items() if value} for row in lines]
        except (TypeError, ValueError, csv.Error) as error:
            raise RunError(f"{self}/history.csv is damaged: {what_is_wrong(error)}") from None

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """history.csv, a row an epoch."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[-1]), lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)
        self.folder.write("history.csv", text.getvalue())

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the folder, or None; raises RunError where it is damaged."""
        if not self.folder.has(name):
            return None
        try:
            return dict(json.loads(self.folder.read(name)))
        except (TypeError, ValueError) as error:
            raise RunError(f"{self}/{name} is damaged: {what_is_wrong(error)}; remove it, it is written anew") from None

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """A JSON file of the folder."""
        self.folder.write(name, as_json(content))


def own_settings(values: dict[str, Any], open_place: Callable[[str], Folder] = open_folder) -> dict[str, Any] | None:
    """For settings with `run.extend`, those that the run of that name was trained with; None for others.

    Where and on how much it is to be trained is left to the settings that are given. `open_place` opens the storage.
    """
    about = values.get("run")
    if not isinstance(about, dict) or about.get("extend") is None or not about.get("name"):
        return None
    storage = expand_home(str(about.get("storage", RunConfig().storage)))
    run = RunFolder(open_place(storage) / str(about["name"]))
    try:
        known = yaml.safe_load(run.folder.read("config.yaml"))
        TrainConfig.model_validate(known)
    except (OSError, ValueError, yaml.YAMLError):  # what is wrong there is found where the run is begun
        return None
    return {name: part for name, part in known.items() if name not in ("run", "ray")}


def epochs_of(history: list[dict[str, float]]) -> int:
    """How many epochs have been trained. Epoch 0 is a window that was solved, before any training."""
    return int(history[-1]["epoch"]) if history else 0


def this_process() -> dict[str, Any]:
    """A record of this process, by which `is_alive` finds it."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def is_alive(record: dict[str, Any]) -> bool:
    """True where the process of a record is one of this machine and still runs.

    A record without a host counts as one of this machine; a process that was killed and that its parent has not waited
    for counts as gone.
    """
    here = socket.gethostname()
    if record.get("host", here) != here:
        return False
    try:
        process = psutil.Process(int(record["pid"]))
        return process.create_time() == record["started"] and process.status() != psutil.STATUS_ZOMBIE
    except (KeyError, psutil.Error):
        return False


def _with_epochs(config: Config, epochs: int) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"epochs": epochs})})


def _comparable(config: TrainConfig) -> dict[str, Any]:
    """The settings that two sessions of one run must share: all but where, how wide and how watched it runs."""
    tree = config.model_dump(mode="json", exclude={"run", "scaling", "ray", "track"})
    tree["data"]["cache"] = config.data.cache == "half"  # the others change nothing but speed
    return tree


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    before, after = flatten(old), flatten(new)
    return [
        f"{key} was {before.get(key)}, is now {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
