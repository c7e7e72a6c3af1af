"""What the facts about machines mean: a function a check, which compares the machines and names what is wrong."""

from __future__ import annotations

import ipaddress
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple, TypeAlias

from fbp_ray.doctor.machine import CODE, Machine, MachineReport
from fbp_ray.train.cluster import LONGEST_FOLDER

State: TypeAlias = Literal["ok", "warning", "fault"]
Reports: TypeAlias = Mapping[Machine, MachineReport]

DECISIVE = ("python", "fbp-ray", "torch", "numpy", "numba", "ray", CODE)
"""What must be equal on all machines; where another version differs, results may."""

EXACT = 1e-4  # a relative error; float32 is better than that by far
PROCESSOR_MS = 9.3
"""What an FBP takes on one processor, in ms an image, in batches of four; docs/benchmarks.md says how it scales."""

MOST_PROCESSORS = 16  # that a batch of four keeps busy
SLOW = 3.0

REMEDIES = {
    "cluster": "see that the machine runs and has memory, that no disk or GPU driver there hangs (df, nvidia-smi), and "
    "that Ray there runs in an environment with fbp-ray of this version; then start Ray there again",
    "versions": "give every machine the same environment: the same container image, or pip install -c constraints.txt "
    "-e . in each; then start Ray there again",
    "processors": "start Ray there with --num-cpus, or give the container more: --cpus",
    "GPU": "install the driver (nvidia-smi shows whether it works), give the container the GPUs (--gpus all), install "
    "torch's build for CUDA and triton, and start Ray there with --num-gpus",
    "disk": "make room, or use another disk: --run.storage for the runs, ray start --temp-dir (RAY_TMPDIR, a short "
    "path such as /tmp) for Ray, and --shm-size 8g for the shared memory of a container",
    "interface": "name one that every machine has and the others can reach (--scaling.interface), or none to take that "
    "of Ray's address",
    "network": "let the machines open TCP connections to each other on all ports (firewall, security group, the "
    "network of the containers), or name an interface on which they can: --scaling.interface",
    "storage": "name a folder that can be read and written, and that all machines mount under the same path, or an "
    "object store (s3://bucket/runs): --run.storage",
    "data": "every machine must have the same files under the same path (--data.dir): mount the folder there, or copy "
    "it whole",
    "kernel": "remove the folders of compiled kernels (__pycache__ in fbp_ray/projector, NUMBA_CACHE_DIR), pip install "
    "-c constraints.txt -e ., and test the machine's memory",
    "speed": "stop other programs; give the container the processors that it counts on (--cpus); set "
    "OMP_WAIT_POLICY=PASSIVE where threads of several processes share processors. A processor without AVX2 is that "
    "slow by itself",
}


class Finding(NamedTuple):
    """One thing that a check found."""

    check: str
    machine: str  # the name of the machine, or of several
    state: State  # warning: it works, but badly or not for long; fault: training will fail, or give wrong results
    found: str
    remedy: str = ""  # empty where all is well


def say(check: str, machines: Machine | Iterable[Machine], state: State, found: str) -> Finding:
    """A finding with the remedy of its check."""
    name = machines.name if isinstance(machines, Machine) else names(machines)
    return Finding(check, name, state, found, "" if state == "ok" else REMEDIES[check])


def check_versions(reports: Reports) -> Iterator[Finding]:
    """Compares packages and code with each other, and with what the package needs."""
    every = next(iter(reports.values())).versions
    wrong = [say("versions", m, "fault", text) for m, report in reports.items() for text in report.unmet.values()]
    for what in every:
        found = {m: report.versions.get(what, "not known") for m, report in reports.items()}
        usual, like = majority(found)
        for machine, version in found.items():
            if version != usual and what not in reports[machine].unmet:
                state: State = "fault" if what in DECISIVE else "warning"
                wrong.append(say("versions", machine, state, f"{what} is {version}, but {usual} on {like}"))
    yield from wrong or [say("versions", reports, "ok", ", ".join(f"{what} {every[what]}" for what in DECISIVE))]


def check_hardware(reports: Reports) -> Iterator[Finding]:
    """Compares the processors and GPUs that Ray counts on with those that a process can use."""
    for machine, report in reports.items():
        text = f"it may use {report.processors}"
        if (machine.cpus or 0) > report.processors:
            yield say("processors", machine, "warning", f"Ray was told of {machine.cpus}, but {text}")
        else:
            yield say("processors", machine, "ok", text)
        told, seen = machine.gpus, len(report.gpus)
        text = f"torch, built for {f'CUDA {report.cuda}' if report.cuda else 'CPUs alone'}, sees {seen} GPUs"
        if told is not None and told > seen:
            yield say("GPU", machine, "fault", f"Ray was told of {told}, but {text}")
        elif (told is not None and told < seen) or (report.cards and not seen):
            text += f"; the machine has {report.cards}, and Ray counts on {told or 'none'}: the others stay idle"
            yield say("GPU", machine, "warning", text)
        elif seen and not report.triton:
            yield say("GPU", machine, "warning", "triton is not installed: the projector runs many times slower")
        else:
            yield say("GPU", machine, "ok", ", ".join(report.gpus) or "none")


def check_disks(reports: Reports) -> Iterator[Finding]:
    """Looks for room, in GiB, and for a folder that is too long for Ray's sockets where Ray is still to be started."""
    for machine, report in reports.items():
        too_long = machine.cpus is None and len(os.fsencode(report.temporary)) > LONGEST_FOLDER
        for holds, (total, free) in report.disks.items():
            if too_long and holds.startswith("Ray"):  # its files have to go elsewhere
                continue
            # Ray puts nothing on a disk that is 95 % full.
            wanted = max(5.0, 0.05 * total) if holds.startswith("Ray") else 1.0
            text = f"{holds}: {free:.1f} of {total:.1f} GiB free, {wanted:.0f} wanted"
            yield say("disk", machine, "warning" if free < wanted else "ok", text)
        if too_long:
            text = (
                f"RAY_TMPDIR or TMPDIR is {report.temporary}, too long for Ray's sockets, which leave {LONGEST_FOLDER}"
            )
            remedy = "name a short folder, such as /tmp, for Ray's files: export RAY_TMPDIR=/tmp"
            yield Finding("disk", machine.name, "fault", f"{text} characters", remedy)


def check_interface(machine: Machine, report: MachineReport, wanted: str | None, several: bool) -> tuple[Finding, str]:
    """Says which interface a machine's workers use: the one wanted, that of the environment, or that of Ray's address.

    `several` means that there are other machines to talk to. Also returns the address where they reach this one, empty
    where they cannot.
    """
    has = report.interfaces
    there = "there are " + ", ".join(f"{name} ({', '.join(found)})" for name, found in sorted(has.items()))
    given = wanted or report.gloo
    name = given or next((name for name, found in has.items() if machine.address in found), None)
    if name is None and not several:
        return say("interface", machine, "ok", "none is needed: the machine is alone"), ""
    if name is None:
        text = f"no interface has Ray's address {machine.address}, so torch takes any: {there}"
        return say("interface", machine, "warning", text), ""
    if not has.get(name):
        text = f"there is no interface {name!r} that is up and has an address; {there}"
        return say("interface", machine, "fault", text), ""
    address = str(machine.address) if machine.address in has[name] else has[name][0]
    if several and ipaddress.ip_address(address).is_loopback:
        text = f"{name} ({address}) is the loopback, which no other machine can reach; {there}"
        return say("interface", machine, "fault", text), ""
    return say("interface", machine, "ok", f"{name} ({address})"), address


def check_problems(reports: Reports) -> Iterator[Finding]:
    """A fault for whatever a machine could not do: use the storage or the data, compute, measure its speed."""
    for machine, report in reports.items():
        yield from (say(check, machine, "fault", problem) for check, problem in report.problems.items())


def check_data(reports: Reports) -> Iterator[Finding]:
    """Compares what the machines find in the data folder."""
    found = {machine: report.data for machine, report in reports.items() if report.data is not None}
    if found:
        usual, like = majority(found)
        for machine, data in found.items():
            if data != usual:
                yield say("data", machine, "fault", f"{data}; but on {like}: {usual}")
        yield Finding("data", like, "ok", usual)


def check_kernel(reports: Reports) -> Iterator[Finding]:
    """Says whether the projector's errors are those of rounding."""
    for machine, report in reports.items():
        wrong = [f"{what} is off by {e:.2g}" for what, e in report.errors.items() if not e <= EXACT]  # or is NaN
        if wrong:
            yield say("kernel", machine, "fault", f"{'; '.join(wrong)} (at most {EXACT:g} is right)")
        elif report.errors:
            devices = "the CPU and the GPU" if report.gpus else "the CPU"
            yield say("kernel", machine, "ok", f"right to {max(report.errors.values()):.1g} on {devices}")


def check_speed(reports: Reports) -> Iterator[Finding]:
    """Compares the speed with the usual one; a machine may be three times slower."""
    for machine, report in reports.items():
        if report.ms is not None:
            threads = min(report.processors, machine.cpus or report.processors)
            usual = PROCESSOR_MS / min(threads, MOST_PROCESSORS)
            text = f"FBP: {report.ms:.1f} ms an image on {threads} of {report.processors} processors"
            state: State = "warning" if report.ms > SLOW * usual else "ok"
            yield say("speed", machine, state, f"{text}; {usual:.1f} is usual")


def majority(values: Mapping[Machine, str]) -> tuple[str, str]:
    """The value that most have, of several such the first, and the names of the machines that have it."""
    usual = Counter(values.values()).most_common(1)[0][0]
    return usual, names(machine for machine, value in values.items() if value == usual)


def names(machines: Iterable[Machine], most: int = 3) -> str:
    """The names of the first few machines, and how many there are besides."""
    found = [machine.name for machine in machines]
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")
