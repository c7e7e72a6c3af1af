"""The projector: compiled, kept on disk, and computing what it should."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from fbp_ray.doctor.finding import Finding
from fbp_ray.doctor.machines import Machines, answered, troubles
from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.model import fbp
from fbp_ray.projector import backproject, project, reference

SECONDS = 300.0  # on a slow machine that compiles
BATCHES = (1, 4)  # which use different kernels
EXACT = 1e-4  # relative; float32 is better than that by far
CLOSE = 0.1  # of an FBP to the phantom, relative
KERNEL = (
    "the machine computes wrongly: remove the folders of compiled kernels (__pycache__ in fbp_ray/projector, "
    "NUMBA_CACHE_DIR), install the versions of constraints.txt, and test the machine's memory"
)
BROKEN = "install the versions of constraints.txt there: pip install -c constraints.txt -e ."


class Errors(NamedTuple):
    """By how much the kernels are off, relatively."""

    project: float
    """The projection, against `reference` in float64."""

    backproject: float
    """The backprojection, the same."""

    adjoint: float
    """<backproject(y), x> against <y, project(x)>."""

    fbp: float
    """fbp(project(x)) against x."""


class Tried(NamedTuple):
    """How the kernels of a device did."""

    device: str
    errors: Errors
    seconds: float
    """What the first calls took longer than the second: reading the kernels, or compiling them."""

    cache: str | None
    """Where compiled kernels are kept."""


def phantom(geometry: ParallelBeam, batch: int) -> Tensor:
    """(B, H, W) float64: smooth spots off the centre, each image another, so that no turned or swapped one fits."""
    half = geometry.image_shape[0] * geometry.pixel_size / 2
    x, y = torch.as_tensor(geometry.x)[:, None] / half, torch.as_tensor(geometry.y)[None, :] / half

    def spot(u: float, v: float, width: float) -> Tensor:
        return torch.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * width**2))

    return torch.stack([spot(0.3, -0.1, 0.2 + 0.02 * n) + 0.5 * spot(-0.2, 0.35 - 0.1 * n, 0.15) for n in range(batch)])


def small_scan() -> ParallelBeam:
    """A scan that is symmetric as LoDoPaB-CT's is, and takes no time."""
    step = math.pi / 60
    return ParallelBeam(
        angles=RegularAngles(count=60, first=step / 2, step=step),
        cells=67,
        cell_size=0.0055,
        image_shape=(47, 47),
        pixel_size=0.26 / 47,
    )


def try_kernel(device: str) -> Tried:
    """Projects and backprojects phantoms on a device, in float32."""
    geometry = small_scan()
    phantoms = [phantom(geometry, batch) for batch in BATCHES]
    begin = time.perf_counter()
    errors = [_errors(truth, geometry, device) for truth in phantoms]
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    for truth in phantoms:
        _errors(truth, geometry, device)
    second = time.perf_counter() - begin
    worst = Errors(*(max(values, key=lambda value: (value != value, value)) for values in zip(*errors, strict=True)))
    return Tried(device, worst, seconds=max(first - second, 0.0), cache=_cache() if device == "cpu" else None)


def try_gpu() -> Tried | None:
    """The same on the first GPU, None where there is none."""
    return try_kernel("cuda") if torch.cuda.is_available() else None


def _errors(truth: Tensor, geometry: ParallelBeam, device: str) -> Errors:
    """Of all operations on some images."""
    sinogram = reference.project(truth, geometry)
    image = reference.backproject(sinogram, geometry)
    x, y = truth.float().to(device), sinogram.float().to(device)
    projected, smeared = project(x, geometry).cpu().double(), backproject(y, geometry).cpu().double()
    left, right = float((smeared * truth).sum()), float((sinogram * projected).sum())
    found = fbp(y, geometry, "none").cpu().double()
    return Errors(
        project=_error(projected, sinogram),
        backproject=_error(smeared, image),
        adjoint=abs(left - right) / abs(right),
        fbp=_error(found, truth),
    )


def _error(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


def _cache() -> str | None:
    from fbp_ray.projector.layout import layout  # here, not above: numba takes half a second to import

    path: str | None = layout().fold_sinogram.cache_path
    return path


def check_kernel(machines: Machines) -> Iterator[Finding]:
    """Has every machine try the kernels of its CPU, and of its GPU if it has one."""
    answers = machines.everywhere(functools.partial(try_kernel, "cpu"), SECONDS)
    yield from troubles("kernel", answers, BROKEN)
    for name, tried in answered(answers).items():
        yield from judge(name, tried)
    answers_gpu = machines.everywhere(try_gpu, SECONDS)
    yield from troubles("kernel", answers_gpu, BROKEN)
    for name, on_gpu in answered(answers_gpu).items():
        if on_gpu is not None:
            yield from judge(name, on_gpu)


def judge(name: str, tried: Tried) -> Iterator[Finding]:
    """Whether the errors are those of rounding, and the compiled kernels are kept."""
    errors = tried.errors
    limits = {
        "project, against float64,": (errors.project, EXACT),
        "backproject, against float64,": (errors.backproject, EXACT),
        "project as the transpose of backproject": (errors.adjoint, EXACT),
        "fbp(project(x)), against x,": (errors.fbp, CLOSE),
    }
    wrong = [
        f"{what} is off by {error:.2g} (at most {most:g} is right)"
        for what, (error, most) in limits.items()
        if not error <= most
    ]
    if wrong:
        yield Finding("kernel", name, "fault", f"{tried.device}: {'; '.join(wrong)}", KERNEL)
        return
    exact = max(errors.project, errors.backproject, errors.adjoint)
    text = f"{tried.device}: right to {exact:.1g}, fbp(project(x)) is x to {errors.fbp:.1%}"
    text += f"; ready in {tried.seconds:.1f} s"
    if tried.device == "cpu" and tried.cache is None:
        yield Finding(
            "kernel",
            name,
            "warning",
            f"{text}; what was compiled cannot be kept, so every process compiles anew: neither the package's folder "
            "nor the user's cache can be written",
            "set NUMBA_CACHE_DIR to a folder that can be written, and that outlives the container",
        )
    else:
        yield Finding("kernel", name, "ok", text + (f"; kept in {tried.cache}" if tried.cache else ""))
