"""The interface that the machines talk over, and whether they reach each other over it."""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import psutil

from fbp_ray.doctor.finding import Finding, some
from fbp_ray.doctor.machines import Machine, Machines, answered, troubles

SECONDS = 60.0
LISTEN_SECONDS = 120.0
CONNECT_SECONDS = 5.0
ALL_PAIRS = 8  # machines; of more than these, each tries the first one, and the first one all
OPTION = "--scaling.interface"
OPEN = (
    "let the machines open TCP connections to each other on all ports (firewall, security group, the network of the "
    f"containers), or name an interface on which they can: {OPTION} NAME"
)


class Interfaces(NamedTuple):
    """The network interfaces of a machine."""

    addresses: dict[str, list[str]]
    """Of each that is up, IPv4 in front."""

    environment: str | None
    """The one that GLOO_SOCKET_IFNAME names."""


class End(NamedTuple):
    """Where a machine is reached by the others."""

    interface: str
    address: str


def interfaces() -> Interfaces:
    """Those of this machine."""
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    addresses = {}
    for name, entries in psutil.net_if_addrs().items():
        if name in up:
            both = [[e.address for e in entries if e.family == kind] for kind in (socket.AF_INET, socket.AF_INET6)]
            addresses[name] = both[0] + [address for address in both[1] if "%" not in address]  # not the link's own
    return Interfaces(addresses, os.environ.get("GLOO_SOCKET_IFNAME", "").split(",")[0] or None)


def check_network(machines: Machines, wanted: str | None) -> Iterator[Finding]:
    """Finds the interface of every machine, and has the machines connect to each other."""
    answers = machines.everywhere(interfaces, SECONDS)
    yield from troubles("interface", answers, OPEN)
    found = answered(answers)
    several = len({machine.address for machine in machines.machines}) > 1
    ends: dict[str, End] = {}
    for machine in machines.machines:
        if machine.name in found:
            finding, end = judge(machine, found[machine.name], wanted, several)
            yield finding
            if end is not None:
                ends[machine.name] = end
    if several and len(ends) > 1:
        yield from check_connections(machines, ends)


def judge(machine: Machine, has: Interfaces, wanted: str | None, several: bool) -> tuple[Finding, End | None]:
    """The interface that a machine's workers will use, if it can be used.

    Args:
        machine: which.
        has: its interfaces.
        wanted: the one that was asked for.
        several: whether there are other machines to talk to.
    """
    finding = functools.partial(Finding, "interface", machine.name)
    there = ", ".join(f"{name} ({', '.join(found) or 'no address'})" for name, found in sorted(has.addresses.items()))
    given = wanted or has.environment
    origin = OPTION if wanted else "GLOO_SOCKET_IFNAME"
    name = given or next((name for name, found in has.addresses.items() if machine.address in found), None)
    other = (
        f"name one that every machine has and the others can reach ({OPTION}), or none to take that of Ray's address"
    )
    if name is None:
        if several:
            text = f"no interface has Ray's address {machine.address}, so torch takes any: there are {there}"
            return finding("warning", text, f"name the one between the machines: {OPTION}"), None
        return finding("ok", "none is needed: the machine is alone"), None
    if name not in has.addresses:
        return finding("fault", f"there is no interface {name!r} ({origin}) that is up, only {there}", other), None
    if not has.addresses[name]:
        return finding("fault", f"the interface {name} has no address; there are {there}", other), None
    end = End(name, has.addresses[name][0])
    if given is None and machine.address is not None:
        end = End(name, machine.address)
    if several and ipaddress.ip_address(end.address).is_loopback:
        text = f"{name} ({end.address}) is the loopback, which no other machine can reach; there are {there}"
        return finding("fault", text, other), None
    return finding("ok", f"{name} ({end.address})"), end


def check_connections(machines: Machines, ends: Mapping[str, End]) -> Iterator[Finding]:
    """Has machines listen, and the others connect from the interface that they are to use."""
    calls = {name: functools.partial(listen, end.address, LISTEN_SECONDS) for name, end in ends.items()}
    answers = machines.ask(calls, SECONDS)
    yield from troubles("network", answers, OPEN)
    ports = answered(answers)
    tries = {
        name: functools.partial(
            connect, ends[name].address, [(other, ends[other].address, ports[other]) for other in others]
        )
        for name, others in pairs(list(ports)).items()
    }
    outcomes = machines.ask(tries, SECONDS)
    yield from troubles("network", outcomes, OPEN)
    failed = {(name, other): why for name, there in answered(outcomes).items() for other, why in there.items()}
    for (name, other), why in failed.items():
        text = f"{_place(ends[name])} opens no connection to {other}, {_place(ends[other])}: {why}"
        yield Finding("network", name, "fault", text, OPEN)
    if not failed and len(answered(outcomes)) == len(ends):
        used = sorted({end.interface for end in ends.values()})
        yield Finding("network", some(list(ends)), "ok", f"they reach each other over {', '.join(used)}")


def pairs(names: Sequence[str]) -> dict[str, list[str]]:
    """Which others each machine tries: all of a few, of many the first one."""
    if len(names) <= ALL_PAIRS:
        return {name: [other for other in names if other != name] for name in names}
    return {name: [names[0]] if number else list(names[1:]) for number, name in enumerate(names)}


def listen(address: str, seconds: float) -> int:
    """Takes connections at an address for so long, in a thread; returns the port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.create_server((address, 0), family=family)
    threading.Thread(target=_accept, args=(server, time.monotonic() + seconds), daemon=True).start()
    return int(server.getsockname()[1])


def _accept(server: socket.socket, until: float) -> None:
    with server:
        while (left := until - time.monotonic()) > 0:
            server.settimeout(left)
            try:
                server.accept()[0].close()
            except TimeoutError:
                return


def connect(own: str, others: Sequence[tuple[str, str, int]]) -> dict[str, str]:
    """Connects from an address of this machine to others (name, address, port); returns why not, by name."""

    def attempt(other: tuple[str, str, int]) -> tuple[str, str | None]:
        name, address, port = other
        try:
            socket.create_connection((address, port), timeout=CONNECT_SECONDS, source_address=(own, 0)).close()
        except OSError as error:
            return name, str(error)
        return name, None

    with ThreadPoolExecutor(max_workers=32) as pool:
        return {name: why for name, why in pool.map(attempt, others) if why is not None}


def _place(end: End) -> str:
    return f"{end.interface} ({end.address})"
