"""What each machine has: versions, processors, GPUs and room on disks."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch
from packaging.requirements import Requirement

import fbp_ray
from fbp_ray.checkpoint import versions
from fbp_ray.doctor.machines import Finding, Machine, State, majority, names, report
from fbp_ray.threads import limit, processors

GIB = 1024**3
STORAGE_FREE = 1.0  # GiB: checkpoints and curves of many runs
RAY_FREE = 5.0  # GiB
RAY_FULL = 0.95  # of a disk; Ray puts nothing on one that is fuller
SHM_FREE = 1.0  # GiB
SOCKET = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
SOCKET_LIMIT = 107  # bytes in the path of a Unix socket, on Linux

CODE = "the code of fbp_ray"
DECISIVE = ("python", "fbp-ray", "torch", "numpy", "numba", "ray", CODE)
"""What must be equal on all machines; where another version differs, results may."""

SAME_ENVIRONMENT = (
    "give every machine the same environment: the same container image, or pip install -c constraints.txt in each; "
    "then start Ray there again"
)


class Installed(NamedTuple):
    """What is installed on a machine."""

    versions: dict[str, str]
    unmet: dict[str, str]
    """By package, what fbp-ray needs and does not find, as a sentence."""


def installed() -> Installed:
    """What is installed on this machine."""
    return Installed(versions() | {CODE: digest(Path(fbp_ray.__file__).parent)}, unmet())


def digest(package: Path) -> str:
    """Eight hexadecimal digits that stand for the code and the recipes of a package."""
    files = sorted(path for suffix in ("py", "yaml") for path in package.rglob(f"*.{suffix}"))
    whole = hashlib.sha256()
    for path in files:
        whole.update(f"{path.relative_to(package).as_posix()}\0".encode())
        whole.update(path.read_bytes())
    return whole.hexdigest()[:8]


def unmet() -> dict[str, str]:
    """The requirements of the installed package that do not hold: nothing where the package is not installed."""
    try:
        needed = [Requirement(line) for line in metadata.requires("fbp-ray") or []]
    except metadata.PackageNotFoundError:
        return {}
    found = {}
    for requirement in needed:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found[requirement.name] = f"{requirement.name} is not installed, but fbp-ray needs {requirement}"
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            found[requirement.name] = f"{requirement.name} is {version}, but fbp-ray needs {requirement}"
    return found


def check_versions(known: Mapping[Machine, Installed]) -> Iterator[Finding]:
    """Compares the machines with each other, and with what the package needs."""
    well = True
    for machine, there in known.items():
        for text in there.unmet.values():
            well = False
            yield Finding("versions", machine.name, "fault", text, "pip install -c constraints.txt -e . puts it right")
    every = next(iter(known.values())).versions
    for what in every:
        found = {machine: there.versions.get(what, "not known") for machine, there in known.items()}
        usual = majority(found.values())
        like = names(machine for machine, version in found.items() if version == usual)
        for machine, version in found.items():
            if version != usual and what not in known[machine].unmet:
                well = False
                state: State = "fault" if what in DECISIVE else "warning"
                text = f"{what} is {version}, but {usual} on {like}"
                yield Finding("versions", machine.name, state, text, SAME_ENVIRONMENT)
    if well:
        text = ", ".join(f"{what} {every[what]}" for what in DECISIVE)
        yield Finding("versions", names(known), "ok", text if len(known) == 1 else f"equal: {text}")


def check_hardware(machines: Sequence[Machine], storage: str) -> Iterator[Finding]:
    """Has every machine look at its processors, its GPUs and its disks; `storage` is where the runs go."""
    tasks = {m: functools.partial(hardware, m.name, m.cpus, m.gpus, storage) for m in machines}
    yield from report("hardware", tasks, 60, "see what hangs on the machine itself: df, nvidia-smi, top")


def hardware(name: str, cpus: int | None, gpus: int | None, storage: str) -> list[Finding]:
    """What this machine has, beside the processors and GPUs that Ray counts on (None without Ray)."""
    cards = Path("/proc/driver/nvidia/gpus")
    seen = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count()) if torch.cuda.is_available()]
    return [
        compare_processors(name, cpus, processors(), limit()),
        *compare_gpus(name, gpus, seen, len(list(cards.iterdir())) if cards.is_dir() else 0, torch.version.cuda),
        *disks(name, storage),
        *([] if cpus is not None else ray_folder(name)),
    ]


def compare_processors(name: str, cpus: int | None, usable: int, quota: float | None) -> Finding:
    """Compares the processors that Ray counts on with those that a process may use.

    Args:
        name: of the machine.
        cpus: those that Ray counts on, None without Ray.
        usable: those that a process may use.
        quota: what a container may use at a time, None without a limit.
    """
    limited = "" if quota is None else f" (its container's limit is {quota:g})"
    if cpus is not None and cpus > usable:
        text = f"Ray was told of {cpus} processors, but it may use {usable}{limited}"
        remedy = f"start Ray there with --num-cpus {usable}, or give the container more: --cpus"
        return Finding("processors", name, "warning", text, remedy)
    in_ray = "" if cpus is None else f", Ray uses {cpus}"
    return Finding("processors", name, "ok", f"{usable}{limited}{in_ray}")


def compare_gpus(
    name: str, gpus: int | None, seen: Sequence[str], cards: int, cuda: str | None, triton: bool | None = None
) -> Iterator[Finding]:
    """Compares the GPUs that Ray counts on, those that torch can use and those that the machine has.

    Args:
        name: of the machine.
        gpus: how many Ray counts on, None without Ray.
        seen: the names of those that torch sees.
        cards: how many NVIDIA's driver knows.
        cuda: the version of CUDA that torch was built with.
        triton: it is installed; looked up unless given.
    """
    torch_sees = f"torch sees {len(seen)}"
    build = f"torch was built for CUDA {cuda}" if cuda else "this is torch for CPUs alone"
    if gpus is not None and gpus > len(seen):
        remedy = (
            "install the driver (nvidia-smi shows whether it works), give the container the GPUs (--gpus all), use "
            f"torch's build for CUDA, or start Ray there with --num-gpus {len(seen)}"
        )
        yield Finding("GPU", name, "fault", f"Ray was told of {gpus} GPUs, but {torch_sees}; {build}", remedy)
    elif cards and not seen:
        remedy = (
            "use torch's build for CUDA and a driver that is new enough for it (nvidia-smi names the CUDA it knows); "
            "leave CUDA_VISIBLE_DEVICES alone unless you mean it"
        )
        yield Finding("GPU", name, "warning", f"the machine has {cards} GPUs, but {torch_sees}; {build}", remedy)
    elif gpus is not None and gpus < len(seen):
        remedy = f"start Ray there with --num-gpus {len(seen)}"
        yield Finding("GPU", name, "warning", f"{torch_sees}, but Ray was told of {gpus}: the others stay idle", remedy)
    elif cuda and not seen:
        remedy = (
            "on a machine without a GPU nothing is lost but disk space (pip install torch --index-url "
            "https://download.pytorch.org/whl/cpu is smaller); on one with a GPU install the driver"
        )
        yield Finding("GPU", name, "warning", f"{build}, but finds no driver: it will use the CPU", remedy)
    else:
        yield Finding("GPU", name, "ok", ", ".join(seen) or "none, and none is expected")
    if seen and not (importlib.util.find_spec("triton") if triton is None else triton):
        text = "triton is not installed: the projector runs many times slower"
        yield Finding("GPU", name, "warning", text, "pip install triton")


def disks(name: str, storage: str) -> Iterator[Finding]:
    """Looks for room for a storage that is a path, for Ray's files, and in the memory that processes share."""
    path = storage.removeprefix("file://")
    folders = {} if "://" in path else {"storage": Path(path)}
    ray = sys.modules.get("ray")
    in_ray = ray is not None and ray.is_initialized()
    folders["Ray"] = Path(ray.get_runtime_context().get_temp_dir()) if ray and in_ray else Path(temporary()[1], "ray")
    if Path("/dev/shm").is_dir():
        folders["shared memory"] = Path("/dev/shm")
    for holds, folder in folders.items():
        try:
            there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
            usage = shutil.disk_usage(there)
        except OSError:  # the check of the storage says what is wrong with it
            continue
        yield check_room(name, holds, folder, usage.total / GIB, usage.free / GIB)


def check_room(name: str, holds: str, folder: Path, total: float, free: float) -> Finding:
    """Says whether the disk of a folder has room for what it holds: storage, Ray or shared memory. Sizes in GiB."""
    text = f"{holds}: {free:.1f} of {total:.1f} GiB free ({folder})"
    warning = functools.partial(Finding, "disk", name, "warning")
    if holds == "storage" and free < STORAGE_FREE:
        return warning(f"{text}; runs want {STORAGE_FREE:g} GiB", "make room, or name another folder: --run.storage")
    if holds == "Ray" and (free < RAY_FREE or free < (1 - RAY_FULL) * total):
        remedy = "make room, or start Ray with --temp-dir (RAY_TMPDIR) on another disk; keep that path short"
        return warning(f"{text}; Ray wants {RAY_FREE:g} GiB, and stops writing on a disk that is 95% full", remedy)
    if holds == "shared memory" and free < SHM_FREE:
        remedy = "start the container with --shm-size 8g, or remove what was left in /dev/shm"
        return warning(f"{text}; Ray's objects and --data.cache lie there, and want {SHM_FREE:g} GiB", remedy)
    return Finding("disk", name, "ok", text)


def temporary() -> tuple[str, str]:
    """The variable that names the folder in which Ray puts its own when it is started here, and that folder."""
    return next(((name, os.environ[name]) for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), ("", "/tmp"))


def ray_folder(name: str) -> Iterator[Finding]:
    """A fault where the paths of Ray's sockets would be too long for the system, so that Ray could not be started."""
    variable, folder = temporary()
    if len(os.fsencode(folder + SOCKET)) > SOCKET_LIMIT:
        text = (
            f"{variable} is {folder}, too long for Ray, which puts sockets there whose paths may have {SOCKET_LIMIT} "
            f"bytes: at most {SOCKET_LIMIT - len(SOCKET)} are left for the folder"
        )
        yield Finding("disk", name, "fault", text, f"set {variable} to a shorter path, such as /tmp")
