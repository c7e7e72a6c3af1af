"""The `TorchTrainer`: workers on the cluster, their events to the driver, and an error that names what went wrong."""

from __future__ import annotations

import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fbp_ray.config import TrainConfig
from fbp_ray.run import RunFolder
from fbp_ray.train.cluster import Share, cluster, share_out
from fbp_ray.train.failures import Failures, cause
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
    with cluster(config.ray.address), tempfile.TemporaryDirectory(prefix="fbp-ray-") as notes:
        share = share_out(config.scaling)
        events = _queue()
        trainer = ray.train.torch.TorchTrainer(
            work,
            train_loop_config={
                "config": config.model_dump(mode="json"),
                "run": str(run.folder.absolute()),
                "session": run.session,
                "events": events,
                "threads": share.cpus,
            },
            torch_config=_torch_config(config, share),
            scaling_config=_scaling(config, share),
            run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # its stub is that of the V1 class
                name=uuid.uuid4().hex[:12],
                storage_path=notes,
                failure_config=ray.train.FailureConfig(max_failures=config.run.max_failures),
                callbacks=[Failures(events, config.run.max_failures)],  # type: ignore[list-item]
                logging_config=ray.LoggingConfig(log_level="ERROR"),
            ),
        )
        with _draining(events, show, share):
            try:
                trainer.fit()
            except TrainingFailedError as error:
                raise cause(error, config.run.max_failures) from None


def _queue() -> Queue:
    """A queue that lives on the driver's own machine: it must not be lost with another."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})


def _torch_config(config: TrainConfig, share: Share) -> Interfaces:
    made = Interfaces(backend="nccl" if share.use_gpu else "gloo")
    made.interface = config.scaling.interface
    return made


def _scaling(config: TrainConfig, share: Share) -> ray.train.ScalingConfig:
    least = config.scaling.min_workers
    return ray.train.ScalingConfig(  # type: ignore[call-arg]  # its stub is that of the V1 class
        num_workers=share.workers if least is None else (least, share.workers),  # type: ignore[arg-type]
        use_gpu=share.use_gpu,
        resources_per_worker={"CPU": share.cpus, "GPU": int(share.use_gpu)},
        elastic_resize_monitor_interval_s=RESIZE_SECONDS,
    )


@contextmanager
def _draining(events: Queue, show: Show, share: Share) -> Iterator[None]:
    """Passes events to `show` from a thread, until the block ends and the queue is empty."""
    done = threading.Event()

    def drain() -> None:
        heard = time.monotonic()
        while True:
            ended = done.is_set()
            for event in events.get_nowait_batch(events.size()):
                show(event)
                heard = float("inf") if event["event"] in ("start", "step", "epoch") else time.monotonic()
            if time.monotonic() - heard > PATIENCE:
                show({"event": "warning", "text": _what_is_missing(share)})
                heard = time.monotonic()
            if ended:
                return
            done.wait(0.2)

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=30)
        events.shutdown()


def _what_is_missing(share: Share) -> str:
    free = ray.available_resources()  # type: ignore[no-untyped-call]
    kinds = ("CPU", "GPU") if share.use_gpu else ("CPU",)
    there = ", ".join(f"{free.get(kind, 0):g} {kind}" for kind in kinds)
    return (
        f"still waiting for {share.workers} workers of {share.cpus} CPU{' and 1 GPU' if share.use_gpu else ''} each; "
        f"free now: {there}"
    )
