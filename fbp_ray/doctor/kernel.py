"""The projector: that it computes what it should, that its compiled kernels are kept, and how fast it is."""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import torch

from fbp_ray.doctor.machines import Finding, Machine, report
from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.model import fbp
from fbp_ray.phantom import relative_error, soft_disc
from fbp_ray.projector import backproject, project, reference
from fbp_ray.threads import limit, processors

REINSTALL = "install the versions of constraints.txt there: pip install -c constraints.txt -e ."
RECOMPILE = (
    "the machine computes wrongly: remove the folders of compiled kernels (__pycache__ in fbp_ray/projector, "
    "NUMBA_CACHE_DIR), install the versions of constraints.txt, and test the machine's memory"
)

EXACT = 1e-4  # relative; float32 is better than that by far
CLOSE = 0.1  # relative error of an FBP
FBP = "fbp(project(x)), against x,"
BATCHES = (1, 4)  # which use different kernels
SPEED_BATCH = 4
ROUNDS = 7
PROCESSOR_MS = 9.3
"""What an FBP takes on one processor, in ms an image: 4.66 on two, in batches of four ("How fast" in the README)."""

MOST_PROCESSORS = 16  # that a batch of four keeps busy
SLOW = 3.0


def check_kernel(machines: Sequence[Machine]) -> Iterator[Finding]:
    """Has every machine try the kernels of its CPU, and of its first GPU if it has one."""
    tasks = {machine: functools.partial(try_kernels, machine.name) for machine in machines}
    yield from report("kernel", tasks, 300, REINSTALL)  # a slow machine compiles


def try_kernels(name: str) -> list[Finding]:
    """Projects and backprojects in float32 on each device of this machine, beside `reference` in float64."""
    step = math.pi / 60  # a scan that is symmetric as LoDoPaB-CT's is, and takes no time
    angles = RegularAngles(count=60, first=step / 2, step=step)
    geometry = ParallelBeam(angles=angles, cells=67, cell_size=0.0055, image_shape=(47, 47), pixel_size=0.26 / 47)
    return [try_device(name, device, geometry) for device in ("cpu", "cuda")[: 1 + torch.cuda.is_available()]]


def try_device(name: str, device: str, geometry: ParallelBeam) -> Finding:
    """Says whether the errors of a device's kernels are those of rounding, and whether they are kept on disk."""
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        batches = [relative_errors(geometry, batch, device) for batch in BATCHES]
        seconds.append(time.perf_counter() - begin)
    wrong = [
        f"{what} is off by {error:.2g} (at most {_most(what):g} is right)"
        for errors in batches
        for what, error in errors.items()
        if not error <= _most(what)  # as none is that is not a number
    ]
    if wrong:
        return Finding("kernel", name, "fault", f"{device}: {'; '.join(wrong)}", RECOMPILE)
    exact = max(error for errors in batches for what, error in errors.items() if what != FBP)
    text = f"{device}: right to {exact:.1g}, fbp(project(x)) is x to {max(errors[FBP] for errors in batches):.1%}"
    text += f"; ready in {max(seconds[0] - seconds[1], 0.0):.1f} s"  # reading the kernels, or compiling them
    if device == "cpu" and kernel_cache() is None:
        text += (
            "; what was compiled cannot be kept, so every process compiles anew: neither the package's folder nor the "
            "user's cache can be written"
        )
        remedy = "set NUMBA_CACHE_DIR to a folder that can be written, and that outlives the container"
        return Finding("kernel", name, "warning", text, remedy)
    return Finding("kernel", name, "ok", text + (f"; kept in {kernel_cache()}" if device == "cpu" else ""))


def relative_errors(geometry: ParallelBeam, batch: int, device: str) -> dict[str, float]:
    """By what is compared, how far a device's kernels are off for so many images."""
    random = torch.Generator().manual_seed(batch)
    image = torch.rand(batch, *geometry.image_shape, generator=random)
    sinogram = torch.rand(batch, *geometry.sinogram_shape, generator=random)
    x, y = image.double(), sinogram.double()
    projected = project(image.to(device), geometry).cpu().double()
    smeared = backproject(sinogram.to(device), geometry).cpu().double()
    left, right = float((smeared * x).sum()), float((y * projected).sum())
    disc = soft_disc(geometry).expand(batch, -1, -1)
    scan = reference.project(disc.double(), geometry).float()
    return {
        "project, against float64,": relative_error(projected, reference.project(x, geometry)),
        "backproject, against float64,": relative_error(smeared, reference.backproject(y, geometry)),
        "project as the transpose of backproject": abs(left - right) / abs(right),
        FBP: relative_error(fbp(scan.to(device), geometry, "none").cpu(), disc),
    }


def _most(what: str) -> float:
    return CLOSE if what == FBP else EXACT


def kernel_cache() -> Path | None:
    """The folder where Numba keeps what it compiles, None where it can write to none of those that it tries."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    usual = (Path(reference.__file__).parent / "__pycache__", Path.home() / ".cache" / "numba")
    for folder in (Path(named),) if named else usual:
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if there.is_dir() and os.access(there, os.W_OK):
            return folder
    return None


def check_speed(machines: Sequence[Machine]) -> Iterator[Finding]:
    """Has every machine measure its speed, all at the same time."""
    tasks = {machine: functools.partial(measure_speed, machine.name, machine.cpus) for machine in machines}
    yield from report("speed", tasks, 180, "see what else the machine does (top), and give it more memory")


def measure_speed(name: str, cpus: int | None) -> list[Finding]:
    """Times the FBP of LoDoPaB-CT's geometry, on all processors or on the number that Ray counts on."""
    threads = min(processors(), cpus or processors())
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        geometry = ParallelBeam.lodopab()
        sinograms = torch.rand(SPEED_BATCH, *geometry.sinogram_shape, generator=torch.Generator().manual_seed(0))
        times, busy = [], []
        with torch.inference_mode():
            fbp(sinograms, geometry)
            for _ in range(ROUNDS):
                begin, processor = time.perf_counter(), time.process_time()
                fbp(sinograms, geometry)
                seconds = time.perf_counter() - begin
                times.append(1000 * seconds / SPEED_BATCH)
                busy.append((time.process_time() - processor) / seconds)
    finally:
        torch.set_num_threads(before)
    return [compare_speed(name, median(times), threads, median(busy))]


def compare_speed(name: str, ms: float, threads: int, busy: float) -> Finding:
    """Compares a speed with the README's; a machine may be three times slower.

    Args:
        name: of the machine.
        ms: the time of an image.
        threads: how many worked at it.
        busy: the processors that were at work for it, on average.
    """
    expected = PROCESSOR_MS / min(threads, MOST_PROCESSORS)
    text = f"FBP: {ms:.1f} ms an image with {threads} thread{'s' * (threads != 1)}; {expected:.1f} is usual"
    if ms <= SLOW * expected:
        return Finding("speed", name, "ok", text)
    limited = "none" if limit() is None else f"{limit():g} processors"
    text += (
        f". {busy:.1f} of {threads} processors were busy with it; load {os.getloadavg()[0]:.1f}, the container's limit "
        f"{limited}, OMP_WAIT_POLICY {os.environ.get('OMP_WAIT_POLICY', 'not set')}"
    )
    remedy = (
        "stop other programs; give the container the processors that it counts on (--cpus); set "
        "OMP_WAIT_POLICY=PASSIVE where threads of several processes share processors. A processor without AVX2 is that "
        "slow by itself"
    )
    return Finding("speed", name, "warning", text, remedy)
