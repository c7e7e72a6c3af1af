"""What the machines must have in common: a network between them, a folder for the runs, and the training data."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import psutil

from fbp_ray.data import LoDoPaB, geometry_of
from fbp_ray.doctor.machines import Finding, Machine, ask, majority, names
from fbp_ray.errors import RunError
from fbp_ray.storage import Folder, LocalFolder, open_folder

LISTEN_SECONDS = 120.0
CONNECT_SECONDS = 5.0
SETTLE_SECONDS = 5.0
"""In which a file that one machine wrote has to appear on another."""

OPTION = "--scaling.interface"
OPEN = (
    "let the machines open TCP connections to each other on all ports (firewall, security group, the network of the "
    f"containers), or name an interface on which they can: {OPTION} NAME"
)
OTHER_INTERFACE = (
    f"name one that every machine has and the others can reach ({OPTION}), or none to take that of Ray's address"
)
SHARED_STORAGE = (
    "every machine must read and write the same folder: use one that all of them mount under the same path, or an "
    "object store (s3://bucket/runs), for --run.storage"
)
USABLE_STORAGE = "name a folder, or the URI of one, that can be read and written: --run.storage"
SAME_DATA = (
    "every machine must have the same files under the same path (--data.dir): mount the folder there, or copy it whole"
)


class Interfaces(NamedTuple):
    """The network interfaces of a machine."""

    addresses: dict[str, list[str]]
    """Of each that is up, IPv4 in front."""

    environment: str | None
    """The one that GLOO_SOCKET_IFNAME names."""


class Endpoint(NamedTuple):
    """Where the others reach a machine."""

    interface: str
    address: str

    def __str__(self) -> str:
        return f"{self.interface} ({self.address})"


def check_network(machines: Sequence[Machine], wanted: str | None) -> Iterator[Finding]:
    """Finds the interface of every machine, and has the machines connect to each other.

    Args:
        machines: those that train.
        wanted: the interface that the user asks for.
    """
    answers, faults = ask("interface", dict.fromkeys(machines, interfaces), 60, OPEN)
    yield from faults
    several = len({machine.address for machine in machines}) > 1
    endpoints: dict[Machine, Endpoint] = {}
    for machine, has in answers.items():
        finding, endpoint = choose_interface(machine, has, wanted, several)
        yield finding
        if endpoint is not None:
            endpoints[machine] = endpoint
    if several and len(endpoints) > 1:
        yield from check_connections(endpoints)


def interfaces() -> Interfaces:
    """The interfaces of this machine that are up."""
    states = psutil.net_if_stats()
    addresses = {}
    for name, entries in psutil.net_if_addrs().items():
        if name in states and states[name].isup:
            both = [[e.address for e in entries if e.family == kind] for kind in (socket.AF_INET, socket.AF_INET6)]
            addresses[name] = both[0] + [address for address in both[1] if "%" not in address]  # not the link's own
    return Interfaces(addresses, os.environ.get("GLOO_SOCKET_IFNAME", "").split(",")[0] or None)


def choose_interface(
    machine: Machine, has: Interfaces, wanted: str | None, several: bool
) -> tuple[Finding, Endpoint | None]:
    """The interface that a machine's workers will use: the one wanted, that of the environment, or of Ray's address.

    Args:
        machine: the machine.
        has: its interfaces.
        wanted: the interface that the user asks for.
        several: there are other machines to talk to.
    """
    finding = functools.partial(Finding, "interface", machine.name)
    there = ", ".join(f"{name} ({', '.join(found) or 'no address'})" for name, found in sorted(has.addresses.items()))
    given = wanted or has.environment
    name = given or next((name for name, found in has.addresses.items() if machine.address in found), None)
    if name is None and not several:
        return finding("ok", "none is needed: the machine is alone"), None
    if name is None:
        text = f"no interface has Ray's address {machine.address}, so torch takes any: there are {there}"
        return finding("warning", text, f"name the one between the machines: {OPTION}"), None
    if name not in has.addresses:
        origin = OPTION if wanted else "GLOO_SOCKET_IFNAME"
        text = f"there is no interface {name!r} ({origin}) that is up, only {there}"
        return finding("fault", text, OTHER_INTERFACE), None
    if not has.addresses[name]:
        return finding("fault", f"the interface {name} has no address; there are {there}", OTHER_INTERFACE), None
    endpoint = Endpoint(name, machine.address if given is None and machine.address else has.addresses[name][0])
    if several and ipaddress.ip_address(endpoint.address).is_loopback:
        text = f"{endpoint} is the loopback, which no other machine can reach; there are {there}"
        return finding("fault", text, OTHER_INTERFACE), None
    return finding("ok", str(endpoint)), endpoint


def check_connections(endpoints: Mapping[Machine, Endpoint]) -> Iterator[Finding]:
    """Has all machines listen, and each connect to all others from the interface that it is to use."""
    listening = {machine: functools.partial(listen, end.address) for machine, end in endpoints.items()}
    ports, faults = ask("network", listening, 60, OPEN)
    yield from faults
    connecting = {
        machine: functools.partial(
            connect,
            endpoints[machine].address,
            {other.name: (endpoints[other].address, port) for other, port in ports.items() if other is not machine},
        )
        for machine in ports
    }
    answers, faults = ask("network", connecting, 60, OPEN)
    yield from faults
    ends = {machine.name: end for machine, end in endpoints.items()}
    for machine, refused in answers.items():
        if refused:
            other, why = next(iter(refused.items()))
            more = f"; nor to {len(refused) - 1} others" if len(refused) > 1 else ""
            text = f"{endpoints[machine]} opens no connection to {other}, {ends[other]}: {why}{more}"
            yield Finding("network", machine.name, "fault", text, OPEN)
    if len(answers) == len(endpoints) and not any(answers.values()):
        used = ", ".join(sorted({end.interface for end in endpoints.values()}))
        yield Finding("network", names(endpoints), "ok", f"they reach each other over {used}")


def listen(address: str) -> int:
    """Has the system take connections at an address for a while; returns the port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.create_server((address, 0), family=family, backlog=1024)  # which nobody has to accept
    closing = threading.Timer(LISTEN_SECONDS, server.close)
    closing.daemon = True
    closing.start()
    return int(server.getsockname()[1])


def connect(own: str, others: Mapping[str, tuple[str, int]]) -> dict[str, str]:
    """Connects from an address of this machine to others, by name; returns why not, by name."""

    def refusal(place: tuple[str, int]) -> str | None:
        try:
            socket.create_connection(place, timeout=CONNECT_SECONDS, source_address=(own, 0)).close()
        except OSError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(max_workers=32) as pool:
        reasons = dict(zip(others, pool.map(refusal, others.values()), strict=True))
    return {name: why for name, why in reasons.items() if why is not None}


def check_storage(machines: Sequence[Machine], place: str) -> Iterator[Finding]:
    """Has the first machine leave a file in the folder, and the others find it there and write their own.

    Args:
        machines: all that read or write runs, the driver in front.
        place: an absolute path, or a URI.
    """
    first, *others = machines
    mark = f"doctor-{uuid4().hex}"
    made, faults = ask("storage", {first: functools.partial(leave, place, mark)}, 60, USABLE_STORAGE)
    if faults:
        yield faults[0]._replace(found=f"{place} cannot be used: {faults[0].found}")
        return
    try:
        task = functools.partial(find, place, mark, first.name)
        _, faults = ask("storage", dict.fromkeys(others, task), 60, SHARED_STORAGE)
        yield from faults
        if not faults:
            text = f"what {first.name} writes to {place}, all others see, and they can write there too"
            yield Finding("storage", names(machines), "ok", text if others else f"{place} can be read and written")
    finally:
        ask("storage", {first: functools.partial(clear, place, mark, made[first])}, 60, USABLE_STORAGE)


def leave(place: str, mark: str) -> list[str]:
    """Writes a file, and returns the folders that had to be made for it, innermost first.

    Raises:
        OSError: that cannot be done.
        ConfigError: there is no such kind of storage, or it does not answer.
    """
    folder = open_folder(place)
    made = []
    if isinstance(folder, LocalFolder):
        made = [str(path) for path in (folder.path, *folder.path.parents) if not path.exists()]
    try:
        probe(folder)
        folder.write(mark, mark)
    except BaseException:
        with contextlib.suppress(OSError):
            clear(place, mark, made)
        raise
    return made


def find(place: str, mark: str, first: str) -> None:
    """Looks for the first machine's file for a while, and writes to the folder too; raises RunError or OSError."""
    folder = open_folder(place)
    until = time.monotonic() + SETTLE_SECONDS
    while not folder.has(mark):
        if time.monotonic() > until:
            if folder.exists():
                raise RunError(f"{place} is a folder of this machine's own: it does not show what {first} wrote to it")
            raise RunError(f"there is no folder {place}, which {first} wrote to")
        time.sleep(0.2)
    if folder.read(mark).decode() != mark:
        raise OSError(f"{folder}/{mark} has another content than was written")
    probe(folder)


def probe(folder: Folder) -> None:
    """Writes a small file, reads it back and removes it; raises OSError where that cannot be done."""
    name = f"probe-{uuid4().hex}"
    folder.write(name, name)
    try:
        if folder.read(name).decode() != name or name not in folder.names():
            raise OSError(f"a file that was written to {folder} is not there, or has another content")
    finally:
        folder.remove(name)


def clear(place: str, mark: str, made: Sequence[str]) -> None:
    """Removes the file, and the folders that were made for it."""
    open_folder(place).remove(mark)
    for path in made:
        with contextlib.suppress(OSError):
            Path(path).rmdir()


def check_data(machines: Sequence[Machine], folder: Path) -> Iterator[Finding]:
    """Has every machine open the folder, and compares what they find."""
    task = functools.partial(open_data, str(folder.absolute()))
    found, faults = ask("data", dict.fromkeys(machines, task), 120, SAME_DATA)
    yield from faults
    if not found:
        return
    usual = majority(found.values())
    like = names(machine for machine, there in found.items() if there == usual)
    for machine, there in found.items():
        if there != usual:
            yield Finding("data", machine.name, "fault", f"{there}; but on {like}: {usual}", SAME_DATA)
    yield Finding("data", like, "ok", usual)


def open_data(folder: str) -> str:
    """Opens the parts that training reads, and reads the first and the last sample of each; says what there is.

    Raises:
        DataError: the folder or a file is missing or damaged.
        GeometryError: the files hold arrays of another shape.
    """
    geometry = geometry_of(folder)
    counts = []
    for part in ("train", "validation"):
        dataset = LoDoPaB(folder, part, geometry)
        for index in {0, len(dataset) - 1}:
            dataset[index]
        counts.append(f"{len(dataset)} {part}")
    return (
        f"{' and '.join(counts)} samples, sinograms {geometry.sinogram_shape}, images {geometry.image_shape}, geometry "
        f"{geometry.digest}"
    )
