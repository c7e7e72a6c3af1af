"""Starts the `TorchTrainer` and forwards the workers' events to the driver."""

from __future__ import annotations

import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import ray
import ray.train
from ray.exceptions import RayError
from ray.train import TrainingFailedError
from ray.train.torch import TorchTrainer
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fbp_ray.config import TrainConfig
from fbp_ray.run import RunFolder
from fbp_ray.train.cluster import Resources, allocate, cluster, nodes
from fbp_ray.train.events import Doing, Event, Warned, WorkersLost
from fbp_ray.train.ray_worker import Failures, NetworkConfig, explain_failure, work
from fbp_ray.train.room import PATIENCE, fit_and_let_go, wait_for_room

END_SECONDS = 30.0  # the last events may take to be shown
RESIZE_SECONDS = 10.0  # Ray looks this often for machines that came back

Show = Callable[[Event], None]


def launch(config: TrainConfig, run: RunFolder, show: Show) -> None:
    """Trains `config` on Ray workers, on a cluster of this machine's processors if none is named.

    Ray replaces workers that are lost, and they go on from the run folder's own checkpoint. Every epoch's row is
    reported to Ray, for its callbacks; Ray's `Result` is empty, as it keeps only metrics that come with a checkpoint.

    Args:
        config: the run, with `data.dir` set.
        run: its folder, begun.
        show: is called with each event of the training, from another thread.

    Raises:
        FbpRayError: what a worker raised; RunError for anything else that ends the run.
        KeyboardInterrupt: Ctrl-C; the workers are gone.
    """
    with (
        cluster(config.ray.address, own_code=config.own_code) as alone,
        tempfile.TemporaryDirectory(prefix="fbp-ray-", ignore_cleanup_errors=True) as storage,
    ):
        resources = allocate(config.scaling, nodes())
        workers = config.scaling.min_workers or resources.workers
        wanted = {"CPU": workers * resources.cpus, "GPU": workers * resources.use_gpu}
        wait_for_room(wanted, lambda text: show(Warned(text)))
        count = f"{resources.workers} worker{'s'[: resources.workers != 1]}"
        show(Doing(f"starting {count} of {resources.cpus} CPU each, and opening the data"))
        with showing(resources, show, alone) as queue:
            trainer = TorchTrainer(
                work,
                train_loop_config={
                    "config": config.model_dump(mode="json"),
                    "run": str(run.folder.absolute()),
                    "session": run.session,
                    "events": queue,
                    "threads": resources.cpus,
                },
                torch_config=NetworkConfig("nccl" if resources.use_gpu else "gloo", interface=config.scaling.interface),
                scaling_config=_scaling(config, resources),
                run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # its stub is that of the V1 class
                    name=uuid.uuid4().hex[:12],
                    storage_path=storage,
                    failure_config=ray.train.FailureConfig(max_failures=config.run.max_failures),
                    callbacks=[Failures(queue, config.run.max_failures)],  # type: ignore[list-item]
                    logging_config=ray.train.LoggingConfig(log_level="ERROR"),
                ),
            )
            try:
                fit_and_let_go(trainer.fit)
            except TrainingFailedError as error:
                raise explain_failure(error, config.run.max_failures) from None


def _scaling(config: TrainConfig, resources: Resources) -> ray.train.ScalingConfig:
    least = config.scaling.min_workers
    return ray.train.ScalingConfig(  # type: ignore[call-arg]  # its stub is that of the V1 class
        num_workers=resources.workers if least is None else (least, resources.workers),  # type: ignore[arg-type]
        use_gpu=resources.use_gpu,
        resources_per_worker={"CPU": resources.cpus, "GPU": int(resources.use_gpu)},
        elastic_resize_monitor_interval_s=RESIZE_SECONDS,
    )


@contextmanager
def showing(resources: Resources, show: Show, alone: bool = False) -> Iterator[Queue]:
    """Gives an event queue on this machine; a thread shows its events until the block ends and none is left.

    `alone` means that nobody else uses the cluster, so that there is room for the workers.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    thread = threading.Thread(target=_show_all, args=(queue, resources, show, alone), daemon=True, name="events")
    thread.start()
    try:
        yield queue
    finally:
        with suppress(RayError):  # the queue may be gone: that costs the display, not the training
            queue.put(None)
            thread.join(END_SECONDS)
            queue.shutdown(force=True)


def _show_all(queue: Queue, resources: Resources, show: Show, alone: bool) -> None:
    """Shows events until None comes; says so when nothing is heard of the workers for PATIENCE seconds."""
    begun = False
    while True:
        try:
            event = queue.get(timeout=PATIENCE)
        except Empty:
            if not begun:
                show(Doing("the workers are still starting") if alone else Warned(_still_waiting(resources)))
            continue
        except RayError:
            return
        if event is None:
            return
        begun = not isinstance(event, WorkersLost)
        show(event)


def _still_waiting(resources: Resources) -> str:
    free = ray.available_resources()  # type: ignore[no-untyped-call]
    kinds = ("CPU", "GPU") if resources.use_gpu else ("CPU",)
    there = ", ".join(f"{free.get(kind, 0):g} {kind}" for kind in kinds)
    return (
        f"no sign yet of {resources.workers} workers of {resources.cpus} CPU"
        f"{' and 1 GPU' if resources.use_gpu else ''} each; not taken, by them or by others: {there}"
    )
