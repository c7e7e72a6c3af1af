"""What each Ray worker does: finds out whether it has what it needs, then trains."""

from __future__ import annotations

import os
import socket
import traceback
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psutil
import ray
import ray.train
import ray.train.torch
import torch
from ray.train.torch import TorchConfig

from fbp_ray.config import TrainConfig
from fbp_ray.errors import DataError, FbpRayError, GeometryError, RunError
from fbp_ray.run import RunFolder
from fbp_ray.train.events import Events
from fbp_ray.train.failures import is_connection_lost
from fbp_ray.train.loop import train
from fbp_ray.train.process import Process

TRACEBACK = "traceback.txt"


def work(payload: dict[str, Any]) -> None:
    """Trains. `payload` holds the configuration, the run folder and its session, the event queue and the threads."""
    context = ray.train.get_context()
    process = Process(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    if process.device.type == "cpu":
        torch.set_num_threads(payload["threads"])
    events: Events = payload["events"]

    def report(event: dict[str, Any]) -> None:
        if process.rank == 0:
            events.put(event)

    config = TrainConfig.model_validate(payload["config"])
    run = RunFolder(payload["run"], payload["session"])
    check_storage(run)
    try:
        train(config, run, process, report)
        events.flush()
    except (DataError, GeometryError) as error:
        raise type(error)(f"on the machine {machine()}: {error}") from None
    except FbpRayError:
        raise
    except Exception as error:
        if is_connection_lost(error):
            raise
        raise _unexpected(error, process, run) from None


def _unexpected(error: Exception, process: Process, run: RunFolder) -> RunError:
    """An error that nobody foresaw, in one line; how it came about is kept in the run folder."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    run.folder.write(TRACEBACK, "".join(traceback.format_exception(error)))
    return RunError(
        f"training worker {process.rank} on {machine()} failed: {type(error).__name__}: {error} ({last.filename}, line "
        f"{last.lineno}); its traceback is in {run}/{TRACEBACK}"
    )


def check_storage(run: RunFolder) -> None:
    """Raises RunError, which names the machine, where this worker cannot read and write the run's folder."""
    way = "every machine must see it: use a shared folder or an object store for --run.storage"
    try:
        if not run.status():
            raise RunError(f"the machine {machine()} does not have the run folder {run}; {way}")
        probe = f"probe-{uuid4().hex}"
        run.folder.write(probe, b"")
        run.folder.remove(probe)
    except OSError as error:
        raise RunError(f"the machine {machine()} cannot use the run folder {run}: {error}; {way}") from None
    run.check_owner()


def machine() -> str:
    """This machine's address and name."""
    return f"{_own_address()} ({socket.gethostname()})"


def _own_address() -> str:
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


@dataclass
class Interfaces(TorchConfig):
    """Torch's process group, over the network interface that was given, or that has this machine's Ray address.

    Without it gloo takes the interface that the host's name resolves to, which is often the loopback.
    """

    interface: str | None = None

    @property
    def backend_cls(self) -> type:
        """Torch's own, after each worker has chosen its interface."""
        base = super().backend_cls

        class Backend(base):  # type: ignore[misc, valid-type]
            def on_start(self, worker_group: Any, backend_config: Interfaces) -> None:
                """Sets up the process group."""
                worker_group.execute(choose_interface, backend_config.interface)
                super().on_start(worker_group, backend_config)

        return Backend


def choose_interface(given: str | None) -> None:
    """Tells gloo and NCCL the interface to use, unless the environment does.

    Raises:
        RunError: this machine has no interface of the name that was given.
    """
    addresses = {name: {entry.address for entry in entries} for name, entries in psutil.net_if_addrs().items()}
    if given is not None and given not in addresses:
        raise RunError(
            f"the machine {machine()} has no network interface {given!r} (--scaling.interface), only "
            f"{', '.join(sorted(addresses))}"
        )
    own = _own_address()
    found = given or next((name for name, there in addresses.items() if own in there), None)
    if found is not None:
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            if given is not None or variable not in os.environ:
                os.environ[variable] = found
