"""The Ray cluster: joining the one that is named, or starting one of this machine alone; and its machines."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from fbp_ray.errors import RunError
from fbp_ray.train.environment import ALONE, ENVIRONMENT, check_address
from fbp_ray.train.resources import Node


@contextmanager
def cluster(address: str | None = None, num_cpus: int | None = None) -> Iterator[None]:
    """Joins the cluster at `address`, or the one that RAY_ADDRESS names, or starts a local one and stops it at the end.

    A process that has joined a cluster already stays in it.

    Args:
        address: HOST:PORT, or "auto" for the cluster that runs on this machine.
        num_cpus: processors of a local cluster; all by default.

    Raises:
        ConfigError: an address of another form.
        RunError: nothing answers there, or the cluster does not take this process.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    alone = address == "local"
    for name, value in (ENVIRONMENT | (ALONE if alone else {})).items():
        os.environ.setdefault(name, value)
    if address not in ("local", "auto"):
        check_address(address)
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
    try:
        yield
    finally:
        ray.shutdown()


def _why_not(address: str, error: str) -> str:
    if "Version mismatch" in error:
        lines = [line.strip() for line in error.splitlines() if line.strip()]
        return (
            f"the cluster at {address} runs other versions than this process: {' '.join(lines)} Use the same "
            "environment (constraints.txt) on every machine"
        )
    hint = "" if address == "local" else "; a cluster with tokens needs RAY_AUTH_MODE=token here too"
    return f"Ray could not be started or joined at {address}: {error}{hint}"


def nodes() -> list[Node]:
    """The machines that are in the cluster now."""
    return [
        Node(node["NodeManagerAddress"], int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0)))
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]
