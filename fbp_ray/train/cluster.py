"""The Ray cluster: joining the one that is named, or starting one of this machine alone; and what it has."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from fbp_ray.errors import ConfigError, RunError
from fbp_ray.train.environment import ALONE, ENVIRONMENT
from fbp_ray.train.resources import Node

CONNECT_SECONDS = 5.0


@contextmanager
def cluster(address: str | None = None, num_cpus: int | None = None) -> Iterator[bool]:
    """Joins the cluster at `address`, or the one that RAY_ADDRESS names, or starts a local one and stops it at the end.

    Args:
        address: HOST:PORT, or "auto" for the cluster that runs on this machine.
        num_cpus: of a local cluster; all processors by default.

    Yields:
        Whether the cluster is of this process alone and ends with it.

    Raises:
        ConfigError: an address of another form.
        RunError: nothing answers there, or the cluster does not take this process.
    """
    if ray.is_initialized():
        yield False
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    alone = address == "local"
    for name, value in (ENVIRONMENT | (ALONE if alone else {})).items():
        os.environ.setdefault(name, value)
    _check_address(address)
    try:
        ray.init(
            address=address,
            num_cpus=num_cpus,
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False if alone else None,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RunError(_why_not(address, str(error))) from None
    # Ray would print pages of a lost machine's log here; the run tells of it in a line.
    ray._private.worker._worker_logs_enabled = False
    if alone:
        _stop_log_monitor()
    try:
        yield alone
    finally:
        ray.shutdown()


def _stop_log_monitor() -> None:
    """Ends the process that reads all logs ten times a second to bring them to a driver that does not want them."""
    node = getattr(ray._private.worker, "_global_node", None)
    if node is not None:
        node.kill_log_monitor(check_alive=False)


def _check_address(address: str) -> None:
    """Finds out in seconds that nobody listens: Ray itself would try for more than a minute."""
    if address in ("local", "auto"):
        return
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


def _why_not(address: str, error: str) -> str:
    if "Version mismatch" in error:
        lines = [line.strip() for line in error.splitlines() if line.strip()]
        return (
            f"the cluster at {address} runs other versions than this process: {' '.join(lines)} Use the same "
            "environment (constraints.txt) on every machine"
        )
    way = "" if address == "local" else "; a cluster with tokens needs RAY_AUTH_MODE=token here too"
    return f"Ray could not be started or joined at {address}: {error}{way}"


def nodes() -> list[Node]:
    """The machines of the cluster that this process has joined, as they are now."""
    return [
        Node(node["NodeManagerAddress"], int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0)))
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]
