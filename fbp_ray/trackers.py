"""Trackers: where a run's curves and pictures go while it trains. Each is two calls, `log` and `close`.

config       which trackers, how many pictures, how often
base         the two calls, the tracker that keeps nothing, and several trackers as one that never ends a training
tensorboard  event files in the run folder
mlflow       an MLflow server, or a database in the run folder
wandb        Weights & Biases
notes        the run's identity at a tracker and the epochs that it has: what a resumed run goes on with
scalars      the names of the curves
panels       the pictures, all on fixed ranges
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, get_args
from uuid import uuid4

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from fbp_ray.baseline import Baseline, Figure
from fbp_ray.errors import ConfigError, RunError
from fbp_ray.settings import Frozen, flatten
from fbp_ray.storage import write_atomically

TrackerName = Literal["tensorboard", "mlflow", "wandb"]


def _names(value: Any) -> Any:
    """`none`, `a,b` or a list of names as a tuple, each name once."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        return value
    return () if list(names) == ["none"] else tuple(dict.fromkeys(names))


class TrackConfig(Frozen):
    """Where a run's curves and pictures go while it trains."""

    to: Annotated[tuple[TrackerName, ...], BeforeValidator(_names)] = Field(
        default=("tensorboard",), description="trackers, separated by commas; none for none"
    )
    images: Annotated[int, Field(ge=0)] = Field(default=2, description="validation samples shown as pictures")
    every: Annotated[int, Field(ge=1)] = Field(default=1, description="epochs from one set of pictures to the next")


def check_trackers(config: TrackConfig) -> None:
    """Raises ConfigError when a tracker's package is not installed, with the command that installs it."""
    for name in config.to:
        if name not in sys.modules and find_spec(name) is None:
            package = "tensorboard" if name == "tensorboard" else f"'fbp-ray[{name}]'"
            raise ConfigError(
                f"--track.to {name} needs a package that is not installed; pip install {package}, or leave it out "
                "(--track.to none is no tracker at all)"
            )


Pixels = NDArray[np.uint8]
"""(H, W, 3), red, green and blue."""


class Tracker(Protocol):
    """Takes the figures and the pictures of each epoch."""

    def log(self, epoch: int, scalars: dict[str, float], images: dict[str, Pixels]) -> None:
        """Keeps an epoch.

        Args:
            epoch: from 1.
            scalars: figures by name (`fbp_ray.trackers`).
            images: pictures by name (`fbp_ray.panels`).
        """

    def close(self) -> None:
        """Finishes what is under way; nothing can be logged afterwards."""


class NullTracker:
    """Keeps nothing."""

    def log(self, epoch: int, scalars: dict[str, float], images: dict[str, Pixels]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class Several:
    """Several trackers as one. One that fails is named in a warning, once, and left out from then on.

    Args:
        trackers: by name.
        warn: is called with the warning.
    """

    def __init__(self, trackers: dict[str, Tracker], warn: Callable[[str], None]) -> None:
        self.trackers = dict(trackers)
        self.warn = warn

    def log(self, epoch: int, scalars: dict[str, float], images: dict[str, Pixels]) -> None:
        """Keeps an epoch in each."""
        self._each(lambda tracker: tracker.log(epoch, scalars, images))

    def close(self) -> None:
        """Closes each."""
        self._each(lambda tracker: tracker.close())
        self.trackers.clear()

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                call(tracker)
            except Exception as error:  # whatever it is, hours of training are worth more than a curve
                del self.trackers[name]
                self.warn(f"{name} failed: {type(error).__name__}: {error}; the training goes on without it")


def open_tracker(
    config: TrackConfig,
    folder: Path,
    name: str,
    settings: dict[str, Any],
    first_epoch: int,
    warn: Callable[[str], None],
) -> Tracker:
    """Opens the trackers of `config` as one. Later failures of a tracker end that tracker, not the training.

    Args:
        config: which ones.
        folder: a local folder for what they keep; a resumed run gives the same one.
        name: the run's.
        settings: the run's resolved configuration, nested, shown beside the curves.
        first_epoch: the first epoch that will be logged, from 1: what an earlier session logged from there on is
            dropped (TensorBoard), or stays and is not logged again (MLflow, Weights & Biases).
        warn: is called once with each tracker that fails.

    Raises:
        ConfigError: a tracker's package is not installed.
        RunError: a new run's tracker cannot be opened. When a run is resumed, `warn` is called instead.
    """
    check_trackers(config)
    opened: dict[str, Tracker] = {}
    for tracker in config.to:
        try:
            opened[tracker] = _open(tracker, folder, name, settings, first_epoch)
        except Exception as error:
            text = f"{tracker} cannot be opened: {type(error).__name__}: {error}"
            if first_epoch == 1:
                raise RunError(f"{text}; put it right, or leave it out of --track.to") from error
            warn(f"{text}; going on without it")
    return Several(opened, warn) if opened else NullTracker()


def _open(tracker: TrackerName, folder: Path, name: str, settings: dict[str, Any], first_epoch: int) -> Tracker:
    # Imported when asked for: each takes a second or more, and two of them are extras.
    if tracker == "tensorboard":
        from fbp_ray.trackers import TensorBoardTracker

        return TensorBoardTracker(folder, settings, first_epoch)
    if tracker == "mlflow":
        from fbp_ray.trackers import MlflowTracker

        return MlflowTracker(folder, name, settings)
    from fbp_ray.trackers import WandbTracker

    return WandbTracker(folder, name, settings)


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


class TensorBoardTracker:
    """Writes event files.

    Args:
        folder: they go here.
        settings: shown as text, once.
        first_epoch: what an earlier session logged from here on is not shown any more.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], first_epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second, and not every run wants it

        new = not any(folder.glob("events.*"))
        self.writer = SummaryWriter(folder, purge_step=first_epoch)
        if new:
            lines = yaml.safe_dump(settings, sort_keys=False).splitlines()
            self.writer.add_text("settings", "\n".join(f"    {line}" for line in lines), 0)
        self.writer.flush()

    def log(self, epoch: int, scalars: dict[str, float], images: dict[str, Pixels]) -> None:
        """Keeps an epoch, on disk when this returns."""
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, epoch)
        for name, pixels in images.items():
            self.writer.add_image(name, pixels, epoch, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self.writer.close()


LONGEST_VALUE = 6000  # of a parameter; MLflow refuses longer ones
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # a server that does not answer would hold up an epoch for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # it would tell of each table that it makes
}


class MlflowTracker:
    """Logs to one MLflow run.

    Args:
        folder: keeps the run's identity, and the database where no server is named.
        name: the run's.
        settings: its parameters, nested.
    """

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        for variable, value in ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        server = os.environ.get("MLFLOW_TRACKING_URI")
        folder.mkdir(parents=True, exist_ok=True)
        self.client = MlflowClient(server or f"sqlite:///{folder.absolute() / 'mlflow.db'}")
        self.notes = Notes(folder / "mlflow.json")
        if self.notes.id is not None:
            try:
                self.client.update_run(self.notes.id, status="RUNNING")
            except MlflowException:  # that server does not know it, so it gets a run of its own
                self.notes.id = None
        if self.notes.id is None:
            self._begin(name, settings, None if server else (folder.absolute() / "mlflow").as_uri())

    def _begin(self, name: str, settings: dict[str, Any], pictures: str | None) -> None:
        from mlflow.entities import Param

        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "fbp-ray")
        known = self.client.get_experiment_by_name(experiment)
        place = known.experiment_id if known else self.client.create_experiment(experiment, pictures)
        run: str = self.client.create_run(place, run_name=name).info.run_id
        params = [Param(key, str(value)[:LONGEST_VALUE]) for key, value in flatten(settings).items()]
        self.client.log_batch(run, params=params)
        self.notes.begin(run)

    def log(self, epoch: int, scalars: dict[str, float], images: dict[str, Pixels]) -> None:
        """Keeps an epoch that the run does not have yet."""
        from mlflow.entities import Metric

        if epoch <= self.notes.epoch:
            return
        now = int(time.time() * 1000)
        self.client.log_batch(self.notes.id, metrics=[Metric(key, value, now, epoch) for key, value in scalars.items()])
        for key, pixels in images.items():
            self.client.log_image(self.notes.id, pixels, key=key, step=epoch)
        self.notes.logged(epoch)

    def close(self) -> None:
        """Says that the run has ended."""
        self.client.set_terminated(self.notes.id)


class WandbTracker:
    """Logs to one Weights & Biases run.

    Args:
        folder: keeps the run's identity, and what is not sent yet.
        name: the run's.
        settings: its configuration, nested.
    """

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self.notes = Notes(folder / "wandb.json")
        identity = self.notes.id or uuid4().hex[:12]
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "fbp-ray"),
            name=name,
            id=identity,
            resume="allow",
            dir=folder,
            config=settings,
            settings=wandb.Settings(silent=True, console="off"),  # the terminal belongs to the table
        )
        self.picture = wandb.Image
        if self.notes.id is None:
            self.notes.begin(identity)

    def log(self, epoch: int, scalars: dict[str, float], images: dict[str, Pixels]) -> None:
        """Keeps an epoch that the run does not have yet."""
        if epoch <= self.notes.epoch:
            return
        pictures = {name: self.picture(pixels) for name, pixels in images.items()}
        self.run.log({**scalars, **pictures}, step=epoch, commit=True)  # now, not with the next: a crash may come
        self.notes.logged(epoch)

    def close(self) -> None:
        """Sends what is left."""
        self.run.finish()


AS_THEY_ARE = ("lr", "samples_per_second", "reading", "seconds")


def scalars(row: dict[str, Any], baseline: Baseline) -> dict[str, float]:
    """train/loss, train/l1 .., validation/loss .. validation/ssim, classic/psnr_hann, gain/psnr, lr ..

    Args:
        row: an epoch of the history: `train_*`, `validation_*`, and figures that keep their names.
        baseline: the classic FBP on the same validation part; a gain is the learned figure minus the classic one.
    """
    named = {name: float(row[name]) for name in AS_THEY_ARE if name in row}
    for name, value in row.items():
        part, _, figure = name.partition("_")
        if part in ("train", "validation"):
            named[f"{part}/{figure}"] = float(value)
    for figure in get_args(Figure):
        named[f"classic/{figure}_hann"] = baseline.of(figure)
        named[f"gain/{figure}"] = baseline.gain(figure, float(row[f"validation_{figure}"]))
    return named
