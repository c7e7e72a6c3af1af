"""All checks, in their order: what the later ones need comes first."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from pydantic import Field

from fbp_ray.config import RayConfig
from fbp_ray.doctor.data import check_data
from fbp_ray.doctor.finding import Finding, some
from fbp_ray.doctor.hardware import check_hardware
from fbp_ray.doctor.kernel import check_kernel
from fbp_ray.doctor.machines import Here, Machines, Together, Trouble
from fbp_ray.doctor.network import check_network
from fbp_ray.doctor.speed import check_speed
from fbp_ray.doctor.storage import check_storage
from fbp_ray.doctor.versions import SAME, check_versions
from fbp_ray.errors import FbpRayError
from fbp_ray.settings import Frozen
from fbp_ray.storage import absolute

HELLO_SECONDS = 120.0  # a process starts, and imports torch


class DataPlace(Frozen):
    """The data that training is to read."""

    dir: Path | None = Field(default=None, description="folder in the LoDoPaB-CT layout; without it none is opened")


class RunPlace(Frozen):
    """Where training is to put its runs."""

    storage: str = Field(
        default="runs", description="folder that holds the run folders, or the URI of one: s3://bucket/runs"
    )


class Network(Frozen):
    """What the machines talk over."""

    interface: str | None = Field(
        default=None, description="network interface between the machines; without it the one of Ray's address"
    )


class DoctorConfig(Frozen):
    """Says what is wrong with this machine or with a cluster, and the way out. Options mean what they mean to train."""

    data: DataPlace = DataPlace()
    run: RunPlace = RunPlace()
    scaling: Network = Network()
    ray: RayConfig = Field(
        default=RayConfig(), description="the cluster; without an address, and without RAY_ADDRESS, this machine alone"
    )
    quick: bool = Field(default=False, description="leave out the measurement of speed")
    as_json: bool = Field(default=False, alias="json", description="print all findings as JSON")


def examine(config: DoctorConfig) -> Iterator[Finding]:
    """What is found, as it is found: on the cluster that the settings or RAY_ADDRESS name, else on this machine."""
    address = config.ray.address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        alone = Here(f"this machine ({socket.gethostname()})")
        yield from examine_machines(config, alone, alone)
        return
    from fbp_ray.doctor.nodes import Nodes, lost_machines  # here, not above: Ray takes seconds to import
    from fbp_ray.train.cluster import cluster

    here = Here(f"this process ({socket.gethostname()})")
    with ExitStack() as stack:
        try:
            stack.enter_context(cluster(address))
        except FbpRayError as error:
            yield refused(here.names[0], error)
            yield from examine_machines(config, here, here)
            return
        nodes = Nodes()
        stack.callback(nodes.close)
        yield from lost_machines()
        yield from greet(nodes)
        yield from examine_machines(config, Together(here, nodes), nodes)


def examine_machines(config: DoctorConfig, everyone: Machines, nodes: Machines) -> Iterator[Finding]:
    """What is found on machines.

    Args:
        config: what to look for.
        everyone: all that must have the same code and see the same files, the driver in front.
        nodes: those that train.
    """
    yield from check_versions(everyone)
    storage = absolute(config.run.storage)
    yield from check_hardware(nodes, storage)
    yield from check_network(nodes, config.scaling.interface)
    yield from check_storage(everyone, storage)
    if config.data.dir is not None:
        yield from check_data(everyone, config.data.dir)
    yield from check_kernel(nodes)
    if not config.quick:
        yield from check_speed(nodes)


def greet(nodes: Machines) -> Iterator[Finding]:
    """Finds out which machines answer, and asks the others no more."""
    answers = nodes.everywhere(hello, HELLO_SECONDS)
    silent = {name: answer.text for name, answer in answers.items() if isinstance(answer, Trouble)}
    nodes.leave_out(list(silent))
    for name, why in silent.items():
        way_out = (
            "see that the machine runs and has memory, and that Ray there runs in an environment with fbp-ray of this "
            "version; then start Ray there again"
        )
        yield Finding("cluster", name, "fault", f"the machine does nothing for the doctor: {why}", way_out)
    if nodes.names:
        text = f"of the cluster's machines {len(nodes.names)} of {len(answers)} answer"
        yield Finding("cluster", some(nodes.names), "ok", text)


def hello() -> str:
    """The name of this machine."""
    return socket.gethostname()


def refused(machine: str, error: FbpRayError) -> Finding:
    """Why this process could not join a cluster."""
    text = str(error)
    if "other versions" in text:
        return Finding("versions", machine, "fault", text, SAME)
    return Finding("cluster", machine, "fault", text, "start the cluster (`ray start --head`), or give its address")
