"""Ray: how many workers, the `TorchTrainer`, and errors that name what went wrong."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.util.queue import Queue

from fbp_ray.config import TrainConfig
from fbp_ray.errors import FbpRayError, RunError
from fbp_ray.run import RunFolder
from fbp_ray.train.loop import Process, train

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it would call out, and wait where there is no network
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # workers wait in report() for this poll; the default is 2 s
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # a worker's prints would appear twice
    "OMP_WAIT_POLICY": "PASSIVE",  # a worker's threads would spin while another program has their processor
}
STEP_SECONDS = 0.5  # steps are shown no more often than this: an event takes a worker about a millisecond


def launch(config: TrainConfig, run: RunFolder, show: Callable[[dict[str, Any]], None]) -> None:
    """Trains `config` on Ray workers, a local cluster of this machine's processors if none is running.

    Args:
        config: the run, with `data.dir` set.
        run: its folder, begun.
        show: is called with each event of the first worker.

    Raises:
        FbpRayError: what a worker raised; RunError for anything else that ends the run.
    """
    with cluster():
        workers, cpus, use_gpu = _share_out(config)
        events = Queue(actor_options={"num_cpus": 0})
        trainer = ray.train.torch.TorchTrainer(
            _work,
            train_loop_config={
                "config": config.model_dump(mode="json"),
                "run": str(run.path.absolute()),
                "events": events,
                "threads": cpus,
            },
            torch_config=ray.train.torch.TorchConfig(backend="nccl" if use_gpu else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers, use_gpu=use_gpu, resources_per_worker={"CPU": cpus, "GPU": int(use_gpu)}
            ),
            run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # its stub is that of the V1 class
                # Ray keeps its own notes here. A name that it has seen complete it would silently not run again.
                name=uuid.uuid4().hex[:12],
                storage_path=str((run.path / ".ray").absolute()),
                logging_config=ray.LoggingConfig(log_level="ERROR"),
            ),
        )
        with _draining(events, show):
            try:
                trainer.fit()
            except TrainingFailedError as error:
                raise _cause(error) from None


def _work(payload: dict[str, Any]) -> None:
    """What each worker runs."""
    context = ray.train.get_context()
    process = Process(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    if process.device.type == "cpu":
        torch.set_num_threads(payload["threads"])
    events: Queue = payload["events"]

    shown = 0.0

    def report(event: dict[str, Any]) -> None:
        nonlocal shown
        often = event["event"] == "step" and time.monotonic() - shown < STEP_SECONDS
        if process.rank == 0 and not often:
            events.put(event)
            shown = time.monotonic()
        if event["event"] == "epoch":
            ray.train.report({name: value for name, value in event.items() if name != "event"})

    config = TrainConfig.model_validate(payload["config"])
    train(config, RunFolder(Path(payload["run"])), process, report)


def _share_out(config: TrainConfig) -> tuple[int, int, bool]:
    """(workers, processors for each, whether each has a GPU) for the cluster as it is."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    use_gpu = gpus > 0
    processors = [int(node.get("CPU", 0)) for node in nodes]
    workers = config.scaling.num_workers or (gpus if use_gpu else min(2, sum(processors)))
    cpus = cpus_per_worker(processors, workers)
    if cpus == 0 or (use_gpu and workers > gpus):
        raise RunError(
            f"{workers} workers were asked for (--scaling.num_workers), but there are {sum(processors)} processors"
            + (f" and {gpus} GPUs" if use_gpu else "")
            + "; a worker takes at least one processor"
            + (" and one GPU" if use_gpu else "")
        )
    return workers, cpus, use_gpu


def cpus_per_worker(processors: list[int], workers: int) -> int:
    """The most processors that each of `workers` can have, given those of each node; 0 when there are too few."""
    most = max(processors, default=0)
    return next((each for each in range(most, 0, -1) if sum(have // each for have in processors) >= workers), 0)


@contextmanager
def cluster(num_cpus: int | None = None) -> Iterator[None]:
    """Joins the cluster that RAY_ADDRESS names, or starts a local one and stops it in the end."""
    if ray.is_initialized():
        yield
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        ray.init(num_cpus=num_cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        address = os.environ.get("RAY_ADDRESS")
        way = f"check RAY_ADDRESS ({address}); a cluster with tokens needs RAY_AUTH_MODE=token too" if address else ""
        raise RunError(f"Ray could not be started or joined: {error}. {way}".rstrip()) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _draining(events: Queue, show: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Passes events to `show` from a thread, until the block ends and the queue is empty."""
    done = threading.Event()

    def drain() -> None:
        while True:
            ended = done.is_set()
            for event in events.get_nowait_batch(events.size()):
                show(event)
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


def _cause(error: TrainingFailedError) -> FbpRayError:
    """The worker's own error in front, rather than the framework's account of it."""
    failures = getattr(error, "worker_failures", {})
    for rank in sorted(failures):
        failure = failures[rank]
        while failure is not None:
            if isinstance(failure, FbpRayError):
                return failure
            failure = getattr(failure, "_base_exc", None) or failure.__cause__
    if failures:
        rank = min(failures)
        return RunError(f"training worker {rank} failed: {failures[rank]}")
    return RunError(f"the training could not go on: {error}")
