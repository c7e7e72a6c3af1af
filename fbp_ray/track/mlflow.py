"""MLflow: the server that MLFLOW_TRACKING_URI names, or a database in the run folder.

The experiment is MLFLOW_EXPERIMENT_NAME, or fbp-ray.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from fbp_ray.cli import flatten
from fbp_ray.track.base import Pixels
from fbp_ray.track.notes import Notes

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
