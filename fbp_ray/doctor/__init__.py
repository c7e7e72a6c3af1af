"""The doctor: `python -m fbp_ray.doctor` says what is wrong with a machine or a cluster, and what to do about it.

machines        asking the machine of this process, and those of a Ray cluster
machine_checks  versions, processors, GPUs, disks: what each machine has
kernel          the projector: what it computes, and how fast
cluster_checks  network, storage and data: what the machines must have in common
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from pydantic import Field
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fbp_ray.cli import parse
from fbp_ray.config import RayConfig
from fbp_ray.doctor.cluster_checks import check_data, check_network, check_storage
from fbp_ray.doctor.kernel import check_kernel, check_speed
from fbp_ray.doctor.machine_checks import SAME_ENVIRONMENT, check_hardware, check_versions, installed
from fbp_ray.doctor.machines import Finding, Machine, ask, names, ray_nodes
from fbp_ray.errors import FbpRayError
from fbp_ray.settings import Frozen
from fbp_ray.storage import absolute

COLOURS = {"ok": "green", "warning": "yellow", "fault": "red"}


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
    """Says what is wrong with this machine or with a cluster, and the remedy. Options mean what they mean to train."""

    data: DataPlace = DataPlace()
    run: RunPlace = RunPlace()
    scaling: Network = Network()
    ray: RayConfig = Field(
        default=RayConfig(), description="the cluster; without an address, and without RAY_ADDRESS, this machine alone"
    )
    quick: bool = Field(default=False, description="leave out the measurement of speed")
    as_json: bool = Field(default=False, alias="json", description="print all findings as JSON")


def main(argv: Sequence[str]) -> None:
    """Looks, prints what it finds, and exits with 1 if there is a fault."""
    config = parse(DoctorConfig, argv, "python -m fbp_ray.doctor")
    found = show(examine(config), config.as_json)
    if any(finding.state == "fault" for finding in found):
        sys.exit(1)


def examine(config: DoctorConfig) -> Iterator[Finding]:
    """What is found, as it is found: on the cluster that the settings or RAY_ADDRESS name, else on this machine."""
    address = config.ray.address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        this = Machine(f"this machine ({socket.gethostname()})")
        yield from examine_machines(config, [this], [this])
        return
    from fbp_ray.train.cluster import cluster  # here, not above: Ray takes seconds to import

    driver = Machine(f"this process ({socket.gethostname()})")
    with ExitStack() as stack:
        try:
            stack.enter_context(cluster(address))
        except FbpRayError as error:
            check, remedy = "cluster", "start the cluster (`ray start --head`), or give its address"
            if "other versions" in str(error):
                check, remedy = "versions", SAME_ENVIRONMENT
            yield Finding(check, driver.name, "fault", str(error), remedy)
            yield from examine_machines(config, [driver], [driver])
            return
        nodes, lost = ray_nodes()
        yield from lost
        yield from examine_machines(config, [driver, *nodes], nodes)


def examine_machines(
    config: DoctorConfig, machines: Sequence[Machine], trainers: Sequence[Machine]
) -> Iterator[Finding]:
    """What is found on machines. Those that do not answer at all are left out of the checks.

    Args:
        config: what to look for.
        machines: all that must have the same code and see the same files, the driver in front.
        trainers: those of them that train.
    """
    remedy = (
        "see that the machine runs and has memory, and that Ray there runs in an environment with fbp-ray of this "
        "version; then start Ray there again"
    )
    seconds = 120  # in which a process starts, and imports torch
    known, silent = ask("cluster", dict.fromkeys(machines, installed), seconds, remedy)
    yield from (finding._replace(found=f"the machine does not answer: {finding.found}") for finding in silent)
    machines = list(known)
    answering = [machine for machine in trainers if machine in known]
    if answering and trainers[0].cpus is not None:
        text = f"{len(answering)} of the cluster's {len(trainers)} machines answer"
        yield Finding("cluster", names(answering), "ok", text)
    if not known:
        return
    storage = absolute(config.run.storage)
    yield from check_versions(known)
    yield from check_hardware(answering, storage)
    yield from check_network(answering, config.scaling.interface)
    yield from check_storage(machines, storage)
    if config.data.dir is not None:
        yield from check_data(machines, config.data.dir)
    yield from check_kernel(answering)
    if not config.quick:
        yield from check_speed(answering)


def show(findings: Iterable[Finding], as_json: bool) -> list[Finding]:
    """Prints findings and their remedies: as JSON, as a table on a terminal, else as lines while they come."""
    console = Console()
    found = []
    if as_json:
        found = list(findings)
        print(json.dumps([finding._asdict() for finding in found], indent=2))
        return found
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("state", "check", "machine", "found"):
        table.add_column(heading, no_wrap=heading in ("state", "check"), overflow="fold")
    with console.status("looking") as status:
        for finding in findings:
            found.append(finding)
            text = " ".join(finding.found.split())
            if console.is_terminal:
                status.update(f"looking: {finding.check}")
                state = f"[{COLOURS[finding.state]}]{finding.state}[/]"
                table.add_row(state, finding.check, escape(finding.machine), escape(text))
            else:  # a log is to show how far it is
                print(f"{finding.state:<8}{finding.check:<12}{finding.machine}: {text}", flush=True)
    if console.is_terminal:
        console.print(table)
    for text in summary(found):
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    return found


def summary(findings: Sequence[Finding]) -> list[str]:
    """What is wrong, with the remedies, faults last; and how much of it there is."""
    lines, counts = [], []
    for state in ("warning", "fault"):
        wrong = [finding for finding in findings if finding.state == state]
        for finding in wrong:
            text = " ".join(finding.found.split())
            lines += ["", f"{state}: {finding.check}, {finding.machine}: {text}", f"  remedy: {finding.remedy}"]
        counts.append(f"{len(wrong) or 'no'} {state}{'s' * (len(wrong) != 1)}")
    return [*lines, "", ", ".join(reversed(counts))]
