"""The `TorchTrainer`: workers on the cluster, their events to the driver, and an error that names what went wrong."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable
from typing import Any

import ray
import ray.train
from ray.train.v2.api.exceptions import TrainingFailedError

from fbp_ray.config import TrainConfig
from fbp_ray.run import RunFolder
from fbp_ray.train.cluster import cluster, nodes
from fbp_ray.train.events import Events
from fbp_ray.train.failures import Failures, cause
from fbp_ray.train.resources import Resources, allocate
from fbp_ray.train.trainer import LeanTrainer
from fbp_ray.train.worker import Interfaces, work

PATIENCE = 30.0  # seconds without a sign of the workers, after which it is said what they wait for
RESIZE_SECONDS = 10.0  # a machine that came back is taken up after so long

Show = Callable[[dict[str, Any]], None]


def launch(config: TrainConfig, run: RunFolder, show: Show) -> None:
    """Trains `config` on Ray workers, on a cluster of this machine's processors if none is named.

    Ray restarts workers that are lost. They go on from the run's own checkpoint, so Ray keeps none, and its `report`,
    which would hold the loop back, is not called.

    Args:
        config: the run, with `data.dir` set.
        run: its folder, begun.
        show: is called with each event of the first worker.

    Raises:
        FbpRayError: what a worker raised; RunError for anything else that ends the run.
    """
    with cluster(config.ray.address) as alone, tempfile.TemporaryDirectory(prefix="fbp-ray-") as notes:
        share = allocate(config.scaling, nodes())
        events = Events()
        trainer = LeanTrainer(
            work,
            train_loop_config={
                "config": config.model_dump(mode="json"),
                "run": str(run.folder.absolute()),
                "session": run.session,
                "events": events,
                "threads": share.cpus,
            },
            torch_config=Interfaces("nccl" if share.use_gpu else "gloo", interface=config.scaling.interface),
            scaling_config=_scaling(config, share),
            run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # its stub is that of the V1 class
                name=uuid.uuid4().hex[:12],
                storage_path=notes,
                failure_config=ray.train.FailureConfig(max_failures=config.run.max_failures),
                callbacks=[Failures(events, config.run.max_failures)],  # type: ignore[list-item]
                logging_config=ray.LoggingConfig(log_level="ERROR"),
            ),
            alone=alone,
        )
        waiting = _Waiting(share, show)
        with events.shown(waiting.seen, waiting.look):
            try:
                trainer.fit()
            except TrainingFailedError as error:
                raise cause(error, config.run.max_failures) from None


def _scaling(config: TrainConfig, share: Resources) -> ray.train.ScalingConfig:
    least = config.scaling.min_workers
    return ray.train.ScalingConfig(  # type: ignore[call-arg]  # its stub is that of the V1 class
        num_workers=share.workers if least is None else (least, share.workers),  # type: ignore[arg-type]
        use_gpu=share.use_gpu,
        resources_per_worker={"CPU": share.cpus, "GPU": int(share.use_gpu)},
        elastic_resize_monitor_interval_s=RESIZE_SECONDS,
    )


class _Waiting:
    """Says what the workers wait for, when for long there is no sign of them.

    Args:
        share: what the training takes of the cluster.
        show: is called with each event, and with what is missing.
    """

    def __init__(self, share: Resources, show: Show) -> None:
        self.share = share
        self.show = show
        self.since: float | None = time.monotonic()

    def seen(self, event: dict[str, Any]) -> None:
        """Passes on an event."""
        self.since = None if event["event"] in ("start", "step", "epoch") else time.monotonic()
        self.show(event)

    def look(self) -> None:
        """Nothing has come."""
        if self.since is not None and time.monotonic() - self.since > PATIENCE:
            self.since = time.monotonic()
            self.show({"event": "warning", "text": self.what_is_missing()})

    def what_is_missing(self) -> str:
        """In a line."""
        free = ray.available_resources()  # type: ignore[no-untyped-call]
        kinds = ("CPU", "GPU") if self.share.use_gpu else ("CPU",)
        there = ", ".join(f"{free.get(kind, 0):g} {kind}" for kind in kinds)
        return (
            f"still waiting for {self.share.workers} workers of {self.share.cpus} CPU"
            f"{' and 1 GPU' if self.share.use_gpu else ''} each; free now: {there}"
        )
