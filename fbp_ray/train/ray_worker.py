"""What runs in Ray's processes: each worker's part of the training, and the controller's view of what went wrong."""

from __future__ import annotations

import os
import re
import socket
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import psutil
import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from ray.exceptions import RayActorError, RayTaskError
from ray.train import ControllerError, TrainingFailedError, UserCallback
from ray.train.torch import TorchConfig
from ray.util.queue import Queue

from fbp_ray.errors import DataError, FbpRayError, GeometryError, RunError
from fbp_ray.run import ResolvedConfig, RunFolder
from fbp_ray.storage import probe
from fbp_ray.train.cluster import check_interface
from fbp_ray.train.events import EpochEnd, Event, WorkersLost
from fbp_ray.train.loop import train
from fbp_ray.train.process import Process

TRACEBACK = "traceback.txt"
FLUSH_SECONDS = 30.0


class Sender:
    """Puts events into the driver's queue, in order, without waiting; events are dropped if the queue is gone."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self._thread = ThreadPoolExecutor(1, "events")
        self._last: Future[None] | None = None

    def send(self, event: Event) -> None:
        """Sends an event from another thread."""
        self._last = self._thread.submit(self.queue.put, event)

    def flush(self) -> None:
        """Waits until all events have arrived, or cannot."""
        if self._last is not None:
            self._last.exception(FLUSH_SECONDS)


def work(payload: dict[str, Any]) -> None:
    """Trains in this worker.

    Args:
        payload: the configuration, the run folder and its session, the queue for events and the number of threads.
    """
    context = ray.train.get_context()
    process = Process(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    if process.device.type == "cpu":
        torch.set_num_threads(payload["threads"])
    sender = Sender(payload["events"])

    def report(event: Event) -> None:
        if process.rank == 0:
            sender.send(event)
        if isinstance(event, EpochEnd):
            ray.train.report(event.row)  # without a checkpoint: those of the run folder are the run's own

    config = ResolvedConfig.model_validate(payload["config"])
    run = RunFolder(payload["run"], payload["session"])
    check_storage(run)
    try:
        train(config, run, process, report)
        sender.flush()
    except (DataError, GeometryError) as error:
        raise type(error)(f"on the machine {machine()}: {error}") from None
    except FbpRayError:
        raise
    except Exception as error:
        if is_connection_lost(error):
            raise
        raise _unexpected(error, process, run) from None


def _unexpected(error: Exception, process: Process, run: RunFolder) -> RunError:
    """One line for an error that nobody foresaw; its traceback is kept in the run folder."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    run.folder.write(TRACEBACK, "".join(traceback.format_exception(error)))
    return RunError(
        f"training worker {process.rank} on {machine()} failed: {type(error).__name__}: {error} ({last.filename}, line "
        f"{last.lineno}); its traceback is in {run}/{TRACEBACK}"
    )


def check_storage(run: RunFolder) -> None:
    """Raises RunError, which names the machine, where this worker cannot read and write the run's folder."""
    hint = "every machine must see it: use a shared folder or an object store for --run.storage"
    try:
        if not run.status():
            raise RunError(f"the machine {machine()} does not have the run folder {run}; {hint}")
        probe(run.folder)
    except OSError as error:
        raise RunError(f"the machine {machine()} cannot use the run folder {run}: {error}; {hint}") from None
    run.check_owner()


def machine() -> str:
    """This machine's address and name."""
    return f"{ray.util.get_node_ip_address()} ({socket.gethostname()})"  # type: ignore[no-untyped-call]


@dataclass
class NetworkConfig(TorchConfig):
    """Torch's process group, over the network interface that was given, or that has this machine's Ray address.

    Without it gloo takes the interface that the host's name resolves to, which is often the loopback.
    """

    interface: str | None = None

    @property
    def backend_cls(self) -> type:
        """Torch's backend, which sets up the process group after each worker has chosen its interface."""
        base = super().backend_cls

        class Backend(base):  # type: ignore[misc, valid-type]
            def on_start(self, worker_group: Any, backend_config: NetworkConfig) -> None:
                """Sets up the process group. Where that fails, Ray would forget the workers and leave them running."""
                try:
                    worker_group.execute(choose_interface, backend_config.interface)
                    super().on_start(worker_group, backend_config)
                except Exception:
                    worker_group.shutdown()
                    raise

        return Backend


def choose_interface(given: str | None) -> None:
    """Tells gloo and NCCL the interface to use, unless the environment does.

    Raises:
        RunError: this machine has no interface of the name that was given.
    """
    addresses = {name: {entry.address for entry in entries} for name, entries in psutil.net_if_addrs().items()}
    if given is not None:
        check_interface(given, machine())
    own = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    found = given or next((name for name, there in addresses.items() if own in there), None)
    if found is not None:
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            if given is not None or variable not in os.environ:
                os.environ[variable] = found


class Failures(UserCallback):
    """Lives in Ray's controller: tells which workers were lost, and ends a run whose error would recur on a retry.

    Args:
        queue: takes the events to the driver.
        max_failures: how many losses the run recovers from.
    """

    def __init__(self, queue: Queue, max_failures: int) -> None:
        self.queue = queue
        self.max_failures = max_failures
        self.count = 0

    @cached_property
    def sender(self) -> Sender:
        """Made late, in the controller: threads cannot be pickled."""
        return Sender(self.queue)

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raises an error that a worker raised on purpose, so that Ray does not try again; tells of a loss."""
        own = _own_error(worker_exceptions)
        if own is not None:
            raise own
        self.count += 1
        self.sender.send(WorkersLost(_what_was_lost(worker_exceptions), self.count, self.max_failures))


def explain_failure(error: TrainingFailedError, max_failures: int) -> FbpRayError:
    """The error to show for Ray's own one: what a worker raised on purpose, or a line that says what to do."""
    if isinstance(error, ControllerError):
        own = _unwrap(error.controller_failure)
        return own or RunError(f"the training could not go on: {error.controller_failure}")
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    own = _own_error(failures)
    if own is not None:
        return own
    if not failures:
        return RunError(f"the training could not go on: {error}")
    text = _what_was_lost(failures)
    if max_failures:
        text += f", and that more often than --run.max_failures {max_failures}"
    return RunError(
        f"{text}. The epochs that were finished are kept: put the cause right and give the same command to go on"
    )


def _own_error(failures: dict[int, Exception]) -> FbpRayError | None:
    """The first error of this package among those of the workers."""
    return next((own for rank in sorted(failures) if (own := _unwrap(failures[rank])) is not None), None)


def _unwrap(error: BaseException | None) -> FbpRayError | None:
    """The error of this package inside those that Ray and Python have put around it."""
    while error is not None:
        if isinstance(error, RayTaskError):  # it may be of the class of its cause as well
            error = error.cause
        elif isinstance(error, FbpRayError):
            return error
        else:
            error = getattr(error, "cause", None) or error.__cause__
    return None


def _what_was_lost(failures: dict[int, Exception]) -> str:
    """One line: which worker was lost, rather than which others noticed."""
    lost = [str(rank) for rank in sorted(failures) if _is_lost(failures[rank])]
    if lost:
        return f"training worker {' and '.join(lost)} was lost: killed, out of memory, or its machine went away"
    rank = min(failures)
    text = str(failures[rank])
    found = re.search(r"(Connection [a-z ]+)\[?([0-9a-f.:]+)?\]?", text)
    noticed = " ".join(part.strip() for part in found.groups() if part) if found else text.splitlines()[0][:200]
    return f"training worker {rank} lost another one ({noticed}): killed, or its machine went away"


def is_connection_lost(error: BaseException) -> bool:
    """True where torch's collective operations failed, which is how a worker notices that another is gone."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and re.search(r"gloo|nccl", str(error), re.IGNORECASE) is not None
    )


def _is_lost(error: BaseException | None) -> bool:
    """True where the process of a worker is gone."""
    while error is not None and not isinstance(error, RayActorError):
        error = error.__cause__
    return error is not None
