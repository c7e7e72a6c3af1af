"""The Ray cluster: joining one or starting one, its machines, and what a training takes of them.

Ray is imported where it is needed: it takes seconds, and those who only count processors need none of it.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import sysconfig
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import psutil

from fbp_ray.config import ScalingConfig
from fbp_ray.errors import ConfigError, RunError

CONNECT_SECONDS = 5.0
LONGEST_FOLDER = 39  # bytes: Linux allows 107 in the path of a socket, and Ray adds 68 to its folder

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it would call out, and wait where there is no network
    # How soon a lost worker is noticed, and how long an epoch may wait for its report to be taken; the default is 2 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",  # then it looks again at how many machines there are
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # a worker's prints would appear twice
    "THP_MEM_ALLOC_ENABLE": "1",  # a training thread's arrays in huge pages: it takes and gives back many
    "OMP_WAIT_POLICY": "PASSIVE",  # a worker's threads would spin while another program has their processor
}
ALONE = {  # for a cluster of this machine: nobody looks at its figures, which take a tenth of a processor
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_event_stats": "0",
    "RAY_worker_niceness": "0",  # at Ray's 15 any other program of the machine would come first
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


@contextmanager
def cluster(address: str | None = None, num_cpus: int | None = None, own_code: Collection[str] = ()) -> Iterator[bool]:
    """Joins the cluster at `address`, or the one that RAY_ADDRESS names, or starts a local one and stops it at the end.

    A process that has joined a cluster already stays in it. Gives whether the cluster is one that was started here.

    Args:
        address: HOST:PORT, or "auto" for the cluster that runs on this machine.
        num_cpus: processors of a local cluster; all by default.
        own_code: PACKAGE.MODULE:NAME of somebody's own, which all machines get to import.

    Raises:
        ConfigError: an address of another form, or a folder that is too long for Ray's files.
        RunError: nothing answers there, or the cluster does not take this process.
    """
    import ray

    from fbp_ray.threads import processors

    if ray.is_initialized():
        yield False
        return
    address = _address(address)
    alone = address == "local"
    for name, value in (ENVIRONMENT | (ALONE if alone else {})).items():
        os.environ.setdefault(name, value)
    if alone:
        check_folder()
    elif address != "auto":
        check_address(address)
    try:
        ray.init(
            address=address,
            num_cpus=(num_cpus or processors()) if alone else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False if alone else None,
            runtime_env={"py_modules": files} if (files := own_files(own_code)) else None,
        )
    except Exception as error:  # a bare one where a machine is too busy to start it in time
        raise RunError(_why_not(address, str(error))) from None
    try:
        yield alone
    finally:
        ray.shutdown()


def own_files(own_code: Collection[str]) -> list[str]:
    """The files or folders of the packages of `own_code` that lie somewhere else than where packages are installed."""
    found = []
    for package in dict.fromkeys(name.partition(":")[0].partition(".")[0] for name in own_code):
        spec = find_spec(package)
        places = [*(spec.submodule_search_locations or [spec.origin or ""])] if spec else []
        installed = [sysconfig.get_path(which) for which in ("purelib", "platlib", "stdlib")]
        found += [place for place in places if Path(place).exists() and not place.startswith(tuple(installed))]
    return found


def _address(given: str | None) -> str:
    return given or os.environ.get("RAY_ADDRESS") or "local"


def keep_to_loopback(address: str | None) -> None:
    """Has a cluster that is started here listen on loopback alone, where other machines do not reach it.

    For programs, before Ray is imported: it reads this only then, and the process joins no other cluster afterwards.
    """
    if _address(address) == "local" and "ray" not in sys.modules:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # on Linux too


def starting_ray(address: str | None) -> str:
    """What `cluster` does with an address, in words."""
    address = _address(address)
    return "starting Ray on this machine" if address == "local" else f"joining the Ray cluster at {address}"


def temporary() -> str:
    """Where Ray puts its folder when it is started here."""
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"


def check_folder() -> None:
    """Raises ConfigError where the folder for Ray's files is too long: Ray would fail on the paths of its sockets."""
    length = len(os.fsencode(temporary()))
    if length > LONGEST_FOLDER:
        raise ConfigError(
            f"Ray's files would go to {temporary()}, as RAY_TMPDIR or TMPDIR says, which has {length} characters; its "
            f"sockets leave {LONGEST_FOLDER}. Set RAY_TMPDIR to a short folder: export RAY_TMPDIR=/tmp"
        )


def this_machine(address: str | None) -> list[Node]:
    """The machine on which a cluster would be started, checked; none where `address` or RAY_ADDRESS names one.

    Raises:
        ConfigError: Ray cannot be started here.
    """
    if _address(address) != "local":
        return []
    import torch

    from fbp_ray.threads import processors

    check_folder()
    return [Node("this machine", processors(), torch.cuda.device_count())]


def check_interface(name: str, machine: str) -> None:
    """Raises RunError where this machine, called `machine`, has no network interface of a name."""
    known = psutil.net_if_addrs()
    if name not in known:
        raise RunError(
            f"the machine {machine} has no network interface {name!r} (--scaling.interface), only "
            f"{', '.join(sorted(known))}"
        )


def _why_not(address: str, error: str) -> str:
    if "Version mismatch" in error:
        lines = [line.strip() for line in error.splitlines() if line.strip()]
        return (
            f"the cluster at {address} runs other versions than this process: {' '.join(lines)} Use the same "
            "environment (constraints.txt) on every machine"
        )
    hint = "; a cluster with tokens needs RAY_AUTH_MODE=token here too"
    if address == "local":
        hint = "; where the machine is busy, try again later" if "timed out" in error else ""
    return f"Ray could not be started or joined at {address}: {error}{hint}"


def nodes() -> list[Node]:
    """The machines that are in the cluster now."""
    import ray

    return [
        Node(node["NodeManagerAddress"], int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0)))
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]


def check_address(address: str) -> None:
    """Finds out within seconds that nobody listens at an address: Ray itself would try for more than a minute.

    Raises:
        ConfigError: the address is not HOST:PORT.
        RunError: nobody listens there.
    """
    match = re.fullmatch(r"\[?([^\[\]/\s]+?)\]?:(\d{1,5})", address)
    if match is None:
        raise ConfigError(
            f"{address!r} is no address of a cluster; give HOST:PORT, as `ray start --head` prints it (the port is "
            "6379 by default), or auto"
        )
    try:
        socket.create_connection((match[1], int(match[2])), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise RunError(
            f"no Ray cluster answers at {address}: {error}. Check --ray.address or RAY_ADDRESS, and that `ray start "
            "--head` runs there and its port is open to this machine"
        ) from None


class Node(NamedTuple):
    """A machine of a cluster, with its processors and GPUs."""

    address: str
    processors: int
    gpus: int


class Resources(NamedTuple):
    """What the training takes of the cluster."""

    workers: int
    cpus: int
    """Processors of each worker."""

    use_gpu: bool


def allocate(scaling: ScalingConfig, nodes: Sequence[Node]) -> Resources:
    """What a training takes of the machines of a cluster.

    Raises:
        RunError: `scaling` asks for more than there is; with `min_workers`, not even so many workers find room.
    """
    processors = [node.processors for node in nodes]
    gpus = sum(node.gpus for node in nodes)
    use_gpu = gpus > 0
    workers = scaling.num_workers or (gpus if use_gpu else min(2, sum(processors)))
    needed = scaling.min_workers or workers
    cpus = scaling.cpus_per_worker or cpus_per_worker(processors, workers) or cpus_per_worker(processors, needed)
    room = sum(have // cpus for have in processors) if cpus else 0
    if room < needed or (use_gpu and needed > gpus):
        option = "--scaling.min_workers" if scaling.min_workers else "--scaling.num_workers"
        each = f", {cpus} processors each (--scaling.cpus_per_worker)" if scaling.cpus_per_worker else ""
        there = ", ".join(
            f"{node.address} with {node.processors} processors" + (f" and {node.gpus} GPUs" if use_gpu else "")
            for node in nodes
        )
        raise RunError(
            f"{needed} workers were asked for ({option}){each}, but the cluster has {there}; a worker takes at least "
            f"one processor{' and one GPU' if use_gpu else ''}. Ask for fewer, or add machines"
        )
    return Resources(workers, cpus, use_gpu)


def cpus_per_worker(processors: list[int], workers: int) -> int:
    """The most processors that each of `workers` can have, given those of each node; 0 when there are too few."""
    most = max(processors, default=0)
    return next((each for each in range(most, 0, -1) if sum(have // each for have in processors) >= workers), 0)
