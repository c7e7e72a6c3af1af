"""What the doctor asks: a report of every machine (`machine`), whose facts are compared (`checks`), and connections
between the machines.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from threading import Thread
from typing import Any, TypeVar
from uuid import uuid4

from fbp_ray.doctor import DoctorConfig, checks
from fbp_ray.doctor.checks import Finding, say
from fbp_ray.doctor.machine import Machine, Request, examine_machine, leave_mark, why
from fbp_ray.errors import FbpRayError
from fbp_ray.storage import absolute, open_folder

T = TypeVar("T")

SECONDS = 240.0
"""In which a machine has to report. A slow one compiles for a minute."""

STOPPED = (1, 4)
"""Ray's reasons for the end of a node that was stopped, or taken away because it was idle."""


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
