"""What one machine reports about itself: facts, which `fbp_ray.doctor.checks` judges."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

import psutil
import torch

import fbp_ray
from fbp_ray.data import LoDoPaB, geometry_of
from fbp_ray.data.layout import has_truth
from fbp_ray.errors import FbpRayError, RunError
from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.metrics import relative_error
from fbp_ray.model import fbp
from fbp_ray.projector import backproject, project, reference
from fbp_ray.storage import LocalFolder, open_folder, probe
from fbp_ray.threads import processors
from fbp_ray.train.cluster import temporary
from fbp_ray.versions import unmet_requirements, versions

T = TypeVar("T")

CODE = "the code of fbp_ray"
SETTLE_SECONDS = 5.0
"""In which a file that one machine wrote has to appear on another."""


class Machine(NamedTuple):
    """The machine of this process, or a node of the Ray cluster that it has joined."""

    name: str
    node: str | None = None  # Ray's identifier; None for the machine of this process
    address: str | None = None  # in the cluster
    cpus: int | None = None  # those that Ray counts on, None without Ray
    gpus: int | None = None


class Request(NamedTuple):
    """What a machine is to look at."""

    storage: str  # an absolute path or a URI
    mark: str | None = None  # a file that another machine left there; without it the storage is not tried
    data: str | None = None
    kernel: bool = True
    speed: bool = False
    cpus: int | None = None  # to measure speed with; all by default


@dataclass(frozen=True)
class MachineReport:
    """The facts about a machine."""

    versions: dict[str, str]  # of the packages, and the digest of the code
    unmet: dict[str, str]  # by package, what fbp-ray needs and does not find, as a sentence
    processors: int  # that a process may use
    gpus: list[str]  # names of those that torch can use
    cards: int  # GPUs that NVIDIA's driver knows
    cuda: str | None  # the version that torch was built with
    triton: bool
    interfaces: dict[str, list[str]]  # the addresses of those that are up, IPv4 in front
    gloo: str | None  # the interface that GLOO_SOCKET_IFNAME names
    temporary: str  # where Ray puts its folder when it is started there
    disks: dict[str, tuple[float, float]]  # GiB in all and free, of the folders by what they hold
    data: str | None  # what is in the data folder
    errors: dict[str, float]  # of the projector, relative, by what was computed; none where it fails
    ms: float | None  # an image, in an FBP of LoDoPaB-CT's geometry
    problems: dict[str, str]  # by check: why storage, data, kernel or speed could not be looked at


def examine_machine(request: Request) -> MachineReport:
    """Looks at this machine."""
    problems: dict[str, str] = {}

    def attempt(check: str, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except Exception as error:
            problems[check] = why(error)
            return None

    mark, data = request.mark, request.data
    if mark:
        attempt("storage", lambda: find_mark(request.storage, mark))
    cards = Path("/proc/driver/nvidia/gpus")
    return MachineReport(
        versions=versions() | {CODE: digest(Path(fbp_ray.__file__).parent)},
        unmet=unmet_requirements(),
        processors=processors(),
        gpus=[torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count()) if torch.cuda.is_available()],
        cards=len(list(cards.iterdir())) if cards.is_dir() else 0,
        cuda=torch.version.cuda,
        triton=importlib.util.find_spec("triton") is not None,
        interfaces=interfaces(),
        gloo=os.environ.get("GLOO_SOCKET_IFNAME", "").split(",")[0] or None,
        temporary=temporary(),
        disks=attempt("storage", lambda: disks(request.storage)) or {},
        data=attempt("data", lambda: open_data(data)) if data else None,
        errors=(attempt("kernel", projector_errors) if request.kernel else None) or {},
        ms=attempt("speed", lambda: measure_speed(request.cpus)) if request.speed else None,
        problems=problems,
    )


def why(error: BaseException) -> str:
    """An error as a line: those of the package speak for themselves; the essence of Ray's stands at their end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, FbpRayError) or len(lines) > 1:
        return lines[-1]
    return f"{type(error).__name__}: {error}"


def digest(package: Path) -> str:
    """Eight hexadecimal digits that stand for the code and the recipes of a package."""
    whole = hashlib.sha256()
    for path in sorted(path for path in package.rglob("*") if path.suffix in (".py", ".yaml")):
        whole.update(f"{path.relative_to(package).as_posix()}\0".encode())
        whole.update(path.read_bytes())
    return whole.hexdigest()[:8]


def interfaces() -> dict[str, list[str]]:
    """The addresses of the network interfaces that are up, but not those that hold on one link only."""
    families = (socket.AF_INET, socket.AF_INET6)
    states = psutil.net_if_stats()
    return {
        name: [e.address for family in families for e in entries if e.family == family and "%" not in e.address]
        for name, entries in psutil.net_if_addrs().items()
        if name in states and states[name].isup
    }


def disks(storage: str) -> dict[str, tuple[float, float]]:
    """The room for a storage that is a path, for Ray's files, and in the memory that processes share."""
    ray = sys.modules.get("ray")
    in_ray = ray is not None and ray.is_initialized()
    folders = {
        "storage": Path(storage.removeprefix("file://")),
        "Ray": Path(ray.get_runtime_context().get_temp_dir() if ray and in_ray else temporary()),
        "shared memory": Path("/dev/shm"),
    }
    found = {}
    for holds, folder in folders.items():
        if folder.is_absolute():  # a URI is not
            usage = shutil.disk_usage(existing(folder))
            found[f"{holds} ({folder})"] = usage.total / 1024**3, usage.free / 1024**3
    return found


def existing(path: Path) -> Path:
    """The path, or the innermost folder around it that exists."""
    return next(there for there in (path, *path.parents) if there.exists())


def leave_mark(storage: str, mark: str) -> str:
    """Tries the storage, or the folder in which it would be made, and leaves a file there; returns the folder.

    Raises:
        OSError: that cannot be done.
        ConfigError: there is no such kind of storage, or it does not answer.
    """
    folder = open_folder(storage)
    if isinstance(folder, LocalFolder):
        folder = LocalFolder(existing(folder.path))
    probe(folder)
    folder.write(mark, mark)
    return str(folder)


def find_mark(storage: str, mark: str) -> None:
    """Looks for another machine's file for a while, and tries the storage; raises RunError or OSError."""
    folder = open_folder(storage)
    until = time.monotonic() + SETTLE_SECONDS
    while not folder.has(mark):
        if time.monotonic() > until:
            if folder.exists():
                raise RunError(f"{storage} is a folder of this machine's own: it does not show what others write there")
            raise RunError(f"there is no folder {storage}, though others write to it")
        time.sleep(0.2)
    probe(folder)


def open_data(folder: str) -> str:
    """Opens the parts that training reads, and reads the first and the last sample of each; says what there is.

    Raises:
        DataError: the folder or a file is missing or damaged.
        GeometryError: the files hold arrays of another shape.
    """
    geometry = geometry_of(folder)
    counts = []
    for part in ("train", "validation"):
        dataset = LoDoPaB(folder, part, geometry, truth=has_truth(Path(folder), part))
        for index in (0, len(dataset) - 1):
            dataset[index]
        counts.append(f"{len(dataset)} {part}")
    shapes = f"sinograms {geometry.sinogram_shape}, images {geometry.image_shape}"
    return f"{' and '.join(counts)} samples, {shapes}, geometry {geometry.digest}"


def projector_errors() -> dict[str, float]:
    """Relative errors of the projector in float32, on the CPU and the first GPU, against `reference` in float64."""
    step = math.pi / 60
    angles = RegularAngles(count=60, first=step / 2, step=step)  # symmetric, as LoDoPaB-CT's are
    geometry = ParallelBeam(angles=angles, cells=67, cell_size=0.0055, image_shape=(47, 47), pixel_size=0.26 / 47)
    errors: dict[str, float] = {}
    for batch in (1, 4):  # which use different kernels
        random = torch.Generator().manual_seed(batch)
        image = torch.rand(batch, *geometry.image_shape, generator=random)
        sinogram = torch.rand(batch, *geometry.sinogram_shape, generator=random)
        for device in ("cpu", "cuda")[: 1 + torch.cuda.is_available()]:
            where = f"on {device}, {batch} at a time"
            projected = project(image.to(device), geometry).cpu().double()
            smeared = backproject(sinogram.to(device), geometry, interpolate=True).cpu().double()
            exact = reference.backproject(sinogram.double(), geometry, interpolate=True)
            errors |= {
                f"project {where}": relative_error(projected, reference.project(image.double(), geometry)),
                f"backproject {where}": relative_error(smeared, exact),
            }
    return errors


def measure_speed(cpus: int | None) -> float:
    """The time of the FBP of LoDoPaB-CT's geometry in batches of four, on so many processors, in ms an image."""
    geometry = ParallelBeam.lodopab()
    sinograms = torch.rand(4, *geometry.sinogram_shape)
    times = []
    before = torch.get_num_threads()
    torch.set_num_threads(min(processors(), cpus or processors()))
    try:
        with torch.inference_mode():
            for _ in range(8):
                begin = time.perf_counter()
                fbp(sinograms, geometry)
                times.append(1000 * (time.perf_counter() - begin) / len(sinograms))
    finally:
        torch.set_num_threads(before)
    return median(times[1:])  # the first one prepares
