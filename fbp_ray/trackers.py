"""Trackers: where a run's curves and pictures go while it trains. A tracker has two methods, `log` and `close`.

TensorBoard writes event files into the run folder. MLflow logs to the server that MLFLOW_TRACKING_URI names, or to a
database in the run folder; Weights & Biases logs to its own service. Each package is imported only when it is used.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

import numpy as np
import yaml
from numpy.typing import NDArray

from fbp_ray.config import TrackConfig
from fbp_ray.errors import ConfigError, RunError
from fbp_ray.settings import flatten, this_python
from fbp_ray.storage import write_atomically

if TYPE_CHECKING:
    from fbp_ray.baseline import Baseline, Figure

Pixels = NDArray[np.uint8]
"""A picture (H, W, 3): red, green and blue."""

FIGURES: tuple[Figure, ...] = ("psnr", "ssim")
UNCHANGED = (
    "lr",
    "network_lr",
    "samples_per_second",
    "reading",
    "seconds",
)  # columns of the history that are curves by their name
MLFLOW_VALUE_LENGTH = 6000  # characters of a parameter; MLflow refuses longer ones
MLFLOW_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # otherwise a server that does not answer holds up an epoch for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # otherwise it reports each table that it creates
}


class Tracker(Protocol):
    """Keeps the figures and the pictures of each epoch."""

    def log(self, epoch: int, scalars: dict[str, float], images: dict[str, Pixels]) -> None:
        """Keeps an epoch.

        Args:
            epoch: from 1.
            scalars: figures by name, as `fbp_ray.trackers.scalars` names them.
            images: pictures by name, as `fbp_ray.pictures.panels` names them.
        """

    def close(self) -> None:
        """Finishes what is under way. Nothing can be logged afterwards."""


def check_trackers(config: TrackConfig) -> None:
    """Raises ConfigError when a tracker's package is not installed, with the command that installs it."""
    for name in config.to:
        if name not in sys.modules and find_spec(name) is None:
            package = "tensorboard" if name == "tensorboard" else f"'fbp-ray[{name}]'"
            raise ConfigError(
                f"--track.to {name} needs a package that is not installed; {this_python()} -m pip install {package}, "
                "or leave it out (--track.to none is no tracker at all)"
            )


def open_tracker(
    config: TrackConfig,
    folder: Path,
    name: str,
    settings: dict[str, Any],
    first_epoch: int,
    warn: Callable[[str], None],
) -> TrackerGroup:
    """Opens the trackers of `config` as one, if any. A tracker that fails later is left out; the training goes on.

    Args:
        config: which trackers.
        folder: a local folder for their files. A resumed run gives the same folder again.
        name: the run's name.
        settings: the run's resolved configuration, nested, shown beside the curves.
        first_epoch: the first epoch that will be logged, from 1. What an earlier session logged from there on is
            dropped by TensorBoard; MLflow and Weights & Biases keep it and do not log those epochs again.
        warn: called once with a message for each tracker that fails.

    Raises:
        ConfigError: a tracker's package is not installed.
        RunError: a tracker of a new run cannot be opened. For a resumed run, `warn` is called instead.
    """
    check_trackers(config)
    opened: dict[str, Tracker] = {}
    for tracker in config.to:
        try:
            if tracker == "tensorboard":
                opened[tracker] = TensorBoardTracker(folder, settings, first_epoch)
            elif tracker == "mlflow":
                opened[tracker] = MlflowTracker(folder, name, settings)
            else:
                opened[tracker] = WandbTracker(folder, name, settings)
        except Exception as error:
            text = f"{tracker} cannot be opened: {type(error).__name__}: {error}"
            if first_epoch == 1:
                raise RunError(f"{text}; put it right, or leave it out of --track.to") from error
            warn(f"{text}; going on without it")
    return TrackerGroup(opened, warn)


def scalars(row: dict[str, Any], baseline: Baseline) -> dict[str, float]:
    """The curves of an epoch: train/loss, train/l1 .. validation/ssim, classic/psnr_hann, gain/psnr, lr ..

    Args:
        row: the epoch's row of the history: `train_*`, `validation_*`, and columns that keep their names.
        baseline: the classic FBP on the same validation part. A gain is the learned figure minus the classic one.
    """
    named = {name: float(row[name]) for name in UNCHANGED if name in row}
    for name, value in row.items():
        part, _, figure = name.partition("_")
        if part in ("train", "validation"):
            named[f"{part}/{figure}"] = float(value)
    for figure in FIGURES:
        if f"validation_{figure}" in row:
            named[f"classic/{figure}_hann"] = baseline.of(figure)
            named[f"gain/{figure}"] = baseline.gain(figure, float(row[f"validation_{figure}"]))
    if baseline.hann_risk is not None:
        named["classic/risk_hann"] = baseline.hann_risk
    return named


class TrackerGroup:
    """Several trackers, by name, as one. `warn` is called for a tracker that fails, which is then left out."""

    def __init__(self, trackers: dict[str, Tracker], warn: Callable[[str], None]) -> None:
        self.trackers = dict(trackers)
        self.warn = warn

    def log(self, epoch: int, scalars: dict[str, float], images: dict[str, Pixels]) -> None:
        self._for_each(lambda tracker: tracker.log(epoch, scalars, images))

    def close(self) -> None:
        self._for_each(lambda tracker: tracker.close())
        self.trackers.clear()

    def _for_each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                call(tracker)
            except Exception as error:  # no failure of a tracker is worth the loss of hours of training
                del self.trackers[name]
                self.warn(f"{name} failed: {type(error).__name__}: {error}; the training goes on without it")


class TensorBoardTracker:
    """Writes event files into a folder, and the settings as text, once. Arguments as for `open_tracker`."""

    def __init__(self, folder: Path, settings: dict[str, Any], first_epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        new = not any(folder.glob("events.*"))
        self.writer = SummaryWriter(folder, purge_step=first_epoch)
        if new:
            lines = yaml.safe_dump(settings, sort_keys=False).splitlines()
            self.writer.add_text("settings", "\n".join(f"    {line}" for line in lines), 0)
        self.writer.flush()

    def log(self, epoch: int, scalars: dict[str, float], images: dict[str, Pixels]) -> None:
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, epoch)
        for name, pixels in images.items():
            self.writer.add_image(name, pixels, epoch, dataformats="HWC")
        self.writer.flush()  # a crash may come before the next epoch

    def close(self) -> None:
        self.writer.close()


class TrackerState:
    """A small file that says which run a tracker logs to and which epoch it has, so that none is logged twice."""

    def __init__(self, file: Path) -> None:
        self.file = file
        content = json.loads(file.read_text()) if file.is_file() else {}
        self.run: str | None = content.get("id")
        self.epoch: int = content.get("epoch", 0)

    def save(self, run: str | None, epoch: int) -> None:
        """Records that the run has everything up to `epoch`; 0 for a new run."""
        self.run, self.epoch = run, epoch
        write_atomically(self.file, json.dumps({"id": run, "epoch": epoch}))


class MlflowTracker:
    """Logs to one MLflow run. The folder keeps its state, and the database where no server is named."""

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        for variable, value in MLFLOW_ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        server = os.environ.get("MLFLOW_TRACKING_URI")
        folder.mkdir(parents=True, exist_ok=True)
        self.client = MlflowClient(server or f"sqlite:///{folder.absolute() / 'mlflow.db'}")
        self.state = TrackerState(folder / "mlflow.json")
        if self.state.run is not None:
            try:
                self.client.update_run(self.state.run, status="RUNNING")
                return
            except MlflowException:
                pass  # this server does not know the run, so it gets a run of its own
        self._begin(name, settings, None if server else (folder.absolute() / "mlflow").as_uri())

    def _begin(self, name: str, settings: dict[str, Any], pictures: str | None) -> None:
        from mlflow.entities import Param

        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "fbp-ray")
        known = self.client.get_experiment_by_name(experiment)
        place = known.experiment_id if known else self.client.create_experiment(experiment, pictures)
        run = self.client.create_run(place, run_name=name).info.run_id
        params = [Param(key, str(value)[:MLFLOW_VALUE_LENGTH]) for key, value in flatten(settings).items()]
        self.client.log_batch(run, params=params)
        self.state.save(run, 0)

    def log(self, epoch: int, scalars: dict[str, float], images: dict[str, Pixels]) -> None:
        from mlflow.entities import Metric

        if epoch <= self.state.epoch:
            return
        run, now = self.state.run, int(time.time() * 1000)
        self.client.log_batch(run, metrics=[Metric(key, value, now, epoch) for key, value in scalars.items()])
        for key, pixels in images.items():
            self.client.log_image(run, pixels, key=key, step=epoch)
        self.state.save(run, epoch)

    def close(self) -> None:
        self.client.set_terminated(self.state.run)


class WandbTracker:
    """Logs to one Weights & Biases run. The folder keeps its state, and what is not sent yet."""

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self.state = TrackerState(folder / "wandb.json")
        run = self.state.run or uuid4().hex[:12]
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "fbp-ray"),
            name=name,
            id=run,
            resume="allow",
            dir=folder,
            config=settings,
            settings=wandb.Settings(silent=True, console="off"),  # the terminal shows the table of the training
        )
        self.to_image = wandb.Image
        self.state.save(run, self.state.epoch)

    def log(self, epoch: int, scalars: dict[str, float], images: dict[str, Pixels]) -> None:
        if epoch <= self.state.epoch:
            return
        pictures = {name: self.to_image(pixels) for name, pixels in images.items()}
        self.run.log({**scalars, **pictures}, step=epoch, commit=True)  # now: a crash may come before the next epoch
        self.state.save(self.state.run, epoch)

    def close(self) -> None:
        self.run.finish()
