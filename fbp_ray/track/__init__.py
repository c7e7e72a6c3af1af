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

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fbp_ray.errors import RunError
from fbp_ray.track.base import NullTracker, Pixels, Several, Tracker
from fbp_ray.track.config import TrackConfig, TrackerName, check_trackers
from fbp_ray.track.panels import panels
from fbp_ray.track.scalars import scalars

__all__ = ["NullTracker", "Pixels", "TrackConfig", "Tracker", "check_trackers", "open_tracker", "panels", "scalars"]


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
        from fbp_ray.track.tensorboard import TensorBoardTracker

        return TensorBoardTracker(folder, settings, first_epoch)
    if tracker == "mlflow":
        from fbp_ray.track.mlflow import MlflowTracker

        return MlflowTracker(folder, name, settings)
    from fbp_ray.track.wandb import WandbTracker

    return WandbTracker(folder, name, settings)
