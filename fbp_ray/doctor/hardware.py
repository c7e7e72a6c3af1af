"""Processors, GPUs and room on disks: what there is, what Ray was told, and what is enough."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from fbp_ray.doctor.finding import Finding
from fbp_ray.doctor.machines import Machine, Machines, answered, troubles
from fbp_ray.threads import limit, processors

SECONDS = 60.0
GIB = 1024**3
STORAGE_FREE = 1.0  # GiB: checkpoints and curves of many runs
RAY_FREE = 5.0  # GiB
RAY_FULL = 0.95  # of a disk, beyond which Ray puts nothing on it
SHM_FREE = 1.0  # GiB
AGAIN = "look at the machine itself: what it reports there is not what a machine should"


class Room(NamedTuple):
    """A folder's disk, in bytes."""

    what: str
    """storage, Ray or shared memory."""

    path: str
    total: int
    free: int


class Hardware(NamedTuple):
    """What a machine has."""

    processors: int
    """Those that this process may use."""

    limit: float | None
    """Of a container, in processors."""

    gpus: list[str]
    """Those that torch sees, by name."""

    cards: int
    """Those that the driver of NVIDIA knows."""

    cuda: str | None
    """The version of CUDA that torch was built with."""

    triton: bool
    rooms: list[Room]


def hardware(storage: str) -> Hardware:
    """What this machine has; `storage` is where the runs go."""
    cards = Path("/proc/driver/nvidia/gpus")
    return Hardware(
        processors=processors(),
        limit=limit(),
        gpus=[torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count()) if torch.cuda.is_available()],
        cards=len(list(cards.iterdir())) if cards.is_dir() else 0,
        cuda=torch.version.cuda,
        triton=importlib.util.find_spec("triton") is not None,
        rooms=rooms(storage),
    )


def rooms(storage: str) -> list[Room]:
    """The disks that matter: of a storage that is a path, of Ray's files, and the memory that processes share."""
    path = storage.removeprefix("file://")
    places = {} if "://" in path else {"storage": Path(path)}
    places["Ray"] = _ray_folder()
    if Path("/dev/shm").is_dir():
        places["shared memory"] = Path("/dev/shm")
    found = []
    for what, place in places.items():
        try:
            there = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.is_dir())
            usage = shutil.disk_usage(there)
        except OSError:  # what is wrong with it, the check of the storage says
            continue
        found.append(Room(what, str(place), usage.total, usage.free))
    return found


def _ray_folder() -> Path:
    """Where Ray has its files on this machine, or would have them."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        return Path(ray.get_runtime_context().get_temp_dir())
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray"


def check_hardware(machines: Machines, storage: str) -> Iterator[Finding]:
    """Asks every machine what it has, and compares with what Ray was told and with what is needed."""
    answers = machines.everywhere(functools.partial(hardware, storage), SECONDS)
    yield from troubles("hardware", answers, AGAIN)
    found = answered(answers)
    for machine in machines.machines:
        if machine.name in found:
            has = found[machine.name]
            yield judge_processors(machine, has)
            yield from judge_gpus(machine, has)
            for room in has.rooms:
                yield judge_room(machine, room)


def judge_processors(machine: Machine, has: Hardware) -> Finding:
    """Whether Ray counts on more processors than there are."""
    limited = "" if has.limit is None else f" (its container's limit is {has.limit:g})"
    if machine.processors is not None and machine.processors > has.processors:
        text = f"Ray was told of {machine.processors} processors, but it may use {has.processors}{limited}"
        way_out = f"start Ray there with --num-cpus {has.processors}, or give the container more: --cpus"
        return Finding("processors", machine.name, "warning", text, way_out)
    told = "" if machine.processors is None else f", Ray uses {machine.processors}"
    return Finding("processors", machine.name, "ok", f"{has.processors}{limited}{told}")


def judge_gpus(machine: Machine, has: Hardware) -> Iterator[Finding]:
    """Whether torch can use what Ray counts on, and Ray what torch can use."""
    finding = functools.partial(Finding, "GPU", machine.name)
    seen = f"torch sees {len(has.gpus)}"
    told = machine.gpus
    build = f"torch was built for CUDA {has.cuda}" if has.cuda else "this is torch for CPUs alone"
    if told is not None and told > len(has.gpus):
        way_out = (
            "install the driver (nvidia-smi shows whether it works), give the container the GPUs (--gpus all), use "
            f"torch's build for CUDA, or start Ray there with --num-gpus {len(has.gpus)}"
        )
        yield finding("fault", f"Ray was told of {told} GPUs, but {seen}; {build}", way_out)
    elif has.cards and not has.gpus:
        way_out = (
            "use torch's build for CUDA and a driver that is new enough for it (nvidia-smi names the CUDA it knows); "
            "leave CUDA_VISIBLE_DEVICES alone unless you mean it"
        )
        yield finding("warning", f"the machine has {has.cards} GPUs, but {seen}; {build}", way_out)
    elif told is not None and told < len(has.gpus):
        way_out = f"start Ray there with --num-gpus {len(has.gpus)}"
        yield finding("warning", f"{seen}, but Ray was told of {told}: the others stay idle", way_out)
    elif has.cuda and not has.gpus:
        way_out = (
            "on a machine without a GPU nothing is lost but disk space (pip install torch --index-url "
            "https://download.pytorch.org/whl/cpu is smaller); on one with a GPU install the driver"
        )
        yield finding("warning", f"{build}, but finds no driver: it will use the CPU", way_out)
    else:
        yield finding("ok", ", ".join(has.gpus) or "none, and none is expected")
    if has.gpus and not has.triton:
        yield finding("warning", "triton is not installed: the projector runs many times slower", "pip install triton")


def judge_room(machine: Machine, room: Room) -> Finding:
    """Whether a disk has room for what will be written there."""
    free, total = room.free / GIB, room.total / GIB
    text = f"{room.what}: {free:.1f} of {total:.1f} GiB free ({room.path})"
    warn = functools.partial(Finding, "disk", machine.name, "warning")
    if room.what == "storage" and free < STORAGE_FREE:
        return warn(f"{text}; runs want {STORAGE_FREE:g} GiB", "make room, or name another folder: --run.storage")
    if room.what == "Ray" and (free < RAY_FREE or free < (1 - RAY_FULL) * total):
        way_out = "make room, or start Ray with --temp-dir (RAY_TMPDIR) on another disk; keep that path short"
        return warn(f"{text}; Ray wants {RAY_FREE:g} GiB, and stops writing on a disk that is 95% full", way_out)
    if room.what == "shared memory" and free < SHM_FREE:
        way_out = "start the container with --shm-size 8g, or remove what was left in /dev/shm"
        return warn(f"{text}; Ray's objects and --data.cache lie there, and want {SHM_FREE:g} GiB", way_out)
    return Finding("disk", machine.name, "ok", text)
