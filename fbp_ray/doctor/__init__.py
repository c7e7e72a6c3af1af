"""The doctor: `python -m fbp_ray.doctor` says what is wrong with a machine or a cluster, and what to do about it.

This module asks every machine for a report (`machine`) and has the machines connect to each other; what they report is
compared (`checks`).
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from uuid import uuid4

from pydantic import Field
from rich.console import Console

from fbp_ray.cli import parse
from fbp_ray.config import RayConfig
from fbp_ray.doctor import checks
from fbp_ray.doctor.checks import Finding, say
from fbp_ray.doctor.machine import Machine, Request, examine_machine, leave_mark, why
from fbp_ray.errors import FbpRayError
from fbp_ray.settings import Frozen
from fbp_ray.storage import absolute, open_folder

T = TypeVar("T")

COLOURS = {"ok": "green", "warning": "yellow", "fault": "red"}
SECONDS = 240.0
"""In which a machine has to report. A slow one compiles for a minute."""

STOPPED = (1, 4)
"""Ray's reasons for the end of a node that was stopped, or taken away because it was idle."""


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
    with Console(stderr=True).status("looking"):
        found = examine(config)
    show(found, config.as_json)
    if any(finding.state == "fault" for finding in found):
        sys.exit(1)


def examine(config: DoctorConfig) -> list[Finding]:
    """What is found on the cluster that the settings or RAY_ADDRESS name, else on this machine."""
    address = config.ray.address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        return list(examine_machines(config, [Machine(f"this machine ({socket.gethostname()})")]))
    from fbp_ray.train.cluster import cluster  # here, not above: Ray takes seconds to import

    driver = Machine(f"this process ({socket.gethostname()})")
    try:
        with cluster(address):
            nodes, lost = ray_nodes()
            return [*lost, *examine_machines(config, [driver, *nodes])]
    except FbpRayError as error:
        check = "versions" if "other versions" in str(error) else "cluster"
        return [say(check, driver, "fault", str(error)), *examine_machines(config, [driver])]


def examine_machines(config: DoctorConfig, machines: Sequence[Machine]) -> Iterator[Finding]:
    """What is found on this machine, which comes first, and on the nodes of the cluster, of which each trains."""
    first = machines[0]
    trainers = machines[1:] or machines
    storage = absolute(config.run.storage)
    data = None if config.data.dir is None else str(config.data.dir.absolute())
    mark: str | None = f"doctor-{uuid4().hex}"
    places, failed = collect({first: start(first, leave_mark, storage, mark)}, 60)
    for reason in failed.values():
        mark = None
        yield say("storage", first, "fault", f"{storage} cannot be used: {reason}")
    place = places.get(first, storage)
    asked = {}
    for machine in machines:
        trains = machine in trainers
        request = Request(place, mark, data, trains, trains and not config.quick, machine.cpus)
        asked[machine] = start(machine, examine_machine, request)
    reports, silent = collect(asked, SECONDS)
    if mark:
        collect({first: start(first, open_folder(place).remove, mark)}, 60)
    yield from (say("cluster", m, "fault", f"the machine does not answer: {reason}") for m, reason in silent.items())
    training = {machine: report for machine, report in reports.items() if machine in trainers}
    if not training:
        return
    if trainers is not machines:
        yield say("cluster", training, "ok", f"{len(training)} of the cluster's {len(trainers)} machines answer")
    yield from checks.check_versions(reports)
    yield from checks.check_hardware(training)
    yield from checks.check_disks(training)
    several = len({machine.address for machine in training}) > 1
    addresses = {}
    for machine, report in training.items():
        finding, address = checks.check_interface(machine, report, config.scaling.interface, several)
        yield finding
        if address:
            addresses[machine] = (finding.found, address)
    if several and len(addresses) > 1:
        refused = connect(addresses)
        yield from (say("network", machine, "fault", reason) for machine, reason in refused.items())
        if not refused:
            used = ", ".join(sorted({interface.split()[0] for interface, _ in addresses.values()}))
            yield say("network", addresses, "ok", f"they reach each other over {used}")
    yield from checks.check_problems(reports)
    if mark and not any("storage" in report.problems for report in reports.values()):
        text = f"{storage} can be read and written" + ", and all see what one writes" * (len(reports) > 1)
        yield say("storage", reports, "ok", text)
    yield from checks.check_data(reports)
    yield from checks.check_kernel(training)
    yield from checks.check_speed(training)


def ray_nodes() -> tuple[list[Machine], list[Finding]]:
    """The nodes of the cluster that this process has joined, the head first, and a warning for each lost one."""
    import ray  # here, not above: it takes seconds to import

    alive, lost = [], []
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    for node in sorted(nodes, key=lambda node: "node:__internal_head__" not in node["Resources"]):
        address, has = node["NodeManagerAddress"], node["Resources"]
        name = f"{address} ({node['NodeManagerHostname']})"
        machine = Machine(name, node["NodeID"], address, int(has.get("CPU", 0)), int(has.get("GPU", 0)))
        if node["Alive"]:
            alive.append(machine)
        elif node.get("DeathReason") not in STOPPED:
            reason = node.get("DeathReasonMessage") or "Ray does not say why"
            lost.append(say("cluster", machine, "warning", f"the cluster has lost the machine: {reason}"))
    names = [machine.name for machine in alive]
    return alive, [finding for finding in lost if finding.machine not in names]


def start(machine: Machine, function: Callable[..., T], *arguments: Any) -> Future[T]:
    """Has a machine call a function of this package: a node in a Ray task, this machine in a thread.

    The thread does not keep the process from ending, as a file system may hang for ever.
    """
    future: Future[T] = Future()
    if machine.node is not None:
        import ray

        future = ray.remote(function).options(max_retries=0, **_on(machine)).remote(*arguments).future()
        return future

    def call() -> None:
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)

    Thread(target=call, daemon=True).start()
    return future


def _on(machine: Machine) -> dict[str, Any]:
    """The options of a Ray task or actor that is to run on a node, also where all processors are taken."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(str(machine.node), soft=False)}


def collect(futures: Mapping[Machine, Future[T]], seconds: float) -> tuple[dict[Machine, T], dict[Machine, str]]:
    """What machines answer in so many seconds, and why others do not."""
    wait(futures.values(), timeout=seconds)
    answers, failed = {}, {}
    for machine, future in futures.items():
        if not future.done():
            failed[machine] = f"no answer within {seconds:g} s"
        elif (error := future.exception()) is not None:
            failed[machine] = why(error)
        else:
            answers[machine] = future.result()
    return answers, failed


class Peer:
    """An actor that takes connections at an address of its machine, and opens some from there."""

    def __init__(self, address: str) -> None:
        self.address = address

    def listen(self) -> int:
        """Takes connections from now on; returns the port."""
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        self.server = socket.create_server((self.address, 0), family=family, backlog=1024)  # which nobody has to accept
        return int(self.server.getsockname()[1])

    def reach(self, others: Mapping[str, tuple[str, int]]) -> str:
        """Connects to the addresses and ports of others, by name; says which is the first that it does not reach."""
        for name, place in others.items():
            try:
                socket.create_connection(place, timeout=5, source_address=(self.address, 0)).close()
            except OSError as error:
                return f"opens no connection to {name}: {error}"
        return ""


def connect(ends: Mapping[Machine, tuple[str, str]]) -> dict[Machine, str]:
    """Has nodes listen and connect to each other; returns what went wrong on those that do not reach all others.

    Args:
        ends: of each node, its interface for people, and the address to use.
    """
    import ray

    peers: dict[Machine, Any] = {
        m: ray.remote(Peer).options(**_on(m)).remote(address) for m, (_, address) in ends.items()
    }
    ports, deaf = collect({machine: peer.listen.remote().future() for machine, peer in peers.items()}, 60)
    places = {f"{machine.name}, {ends[machine][0]}": (ends[machine][1], port) for machine, port in ports.items()}
    reaching = {machine: peers[machine].reach.remote(places).future() for machine in ports}
    refused, failed = collect(reaching, 60)
    refused = {machine: f"{ends[machine][0]} {reason}" for machine, reason in refused.items() if reason}
    return deaf | failed | refused


def show(findings: Sequence[Finding], as_json: bool) -> None:
    """Prints findings, faults last with their remedies, and how many there are; or all of them as JSON."""
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
        return
    console = Console()
    count = dict.fromkeys(COLOURS, 0)
    width = max((len(finding.machine) for finding in findings), default=0)
    for finding in sorted(findings, key=lambda finding: list(COLOURS).index(finding.state)):
        count[finding.state] += 1
        text = f"{finding.state:<8}{finding.check:<12}{finding.machine:<{width}}  {' '.join(finding.found.split())}"
        console.print(text, style=COLOURS[finding.state], markup=False, highlight=False, soft_wrap=True)
        if finding.remedy:
            console.print(f"        remedy: {finding.remedy}", markup=False, highlight=False, soft_wrap=True)
    print(", ".join(f"{count[s] or 'no'} {s}{'s' * (count[s] != 1)}" for s in ("fault", "warning")))
