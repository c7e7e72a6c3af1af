"""How fast the classic FBP is, beside what the README measured."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

import torch

from fbp_ray.doctor.finding import Finding
from fbp_ray.doctor.machines import Machines, answered, troubles
from fbp_ray.geometry import ParallelBeam
from fbp_ray.model import fbp
from fbp_ray.threads import limit, processors

SECONDS = 180.0
BATCH = 4
ROUNDS = 7
PROCESSOR_MS = 15.0
"""What an image takes on one processor: 7.51 ms on two (README, "How fast")."""

MOST = 16  # processors that a batch of four keeps busy
SLOW = 3.0


class Speed(NamedTuple):
    """What was measured."""

    ms: float
    """The median time of an image."""

    threads: int
    busy: float
    """The processors that were at work for it, on average."""

    load: float
    """How many processes wanted a processor in the last minute, on the whole machine."""

    waits: str
    """OMP_WAIT_POLICY."""

    limit: float | None
    """Of a container, in processors."""


def measure(told: int | None) -> Speed:
    """Times the FBP of LoDoPaB-CT's geometry on the processors that there are, or on those that Ray was told of."""
    threads = min(processors(), told or processors())
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        geometry = ParallelBeam.lodopab()
        sinograms = torch.rand(BATCH, *geometry.sinogram_shape, generator=torch.Generator().manual_seed(0))
        times, worked = [], []
        with torch.inference_mode():
            fbp(sinograms, geometry)
            for _ in range(ROUNDS):
                begin, processor = time.perf_counter(), time.process_time()
                fbp(sinograms, geometry)
                seconds = time.perf_counter() - begin
                times.append(1000 * seconds / BATCH)
                worked.append((time.process_time() - processor) / seconds)
    finally:
        torch.set_num_threads(usual)
    return Speed(
        ms=median(times),
        threads=threads,
        busy=median(worked),
        load=os.getloadavg()[0],
        waits=os.environ.get("OMP_WAIT_POLICY", "not set"),
        limit=limit(),
    )


def check_speed(machines: Machines) -> Iterator[Finding]:
    """Has every machine measure, all at the same time."""
    calls = {machine.name: functools.partial(measure, machine.processors) for machine in machines.machines}
    answers = machines.ask(calls, SECONDS)
    yield from troubles("speed", answers, "see what else the machine does (top), and give it more memory")
    for name, speed in answered(answers).items():
        yield judge(name, speed)


def expected(threads: int) -> float:
    """Milliseconds an image."""
    return PROCESSOR_MS / min(threads, MOST)


def judge(name: str, speed: Speed) -> Finding:
    """Whether it is far slower than expected."""
    threads = f"{speed.threads} thread{'s' * (speed.threads != 1)}"
    text = f"FBP: {speed.ms:.1f} ms an image with {threads}; {expected(speed.threads):.1f} is usual"
    if speed.ms <= SLOW * expected(speed.threads):
        return Finding("speed", name, "ok", text)
    limited = "none" if speed.limit is None else f"{speed.limit:g} processors"
    text += (
        f". {speed.busy:.1f} of {speed.threads} processors were busy with it; load {speed.load:.1f}, the container's "
        f"limit {limited}, OMP_WAIT_POLICY {speed.waits}"
    )
    way_out = (
        "stop other programs; give the container the processors that it counts on (--cpus); set "
        "OMP_WAIT_POLICY=PASSIVE where threads of several processes share processors. A processor without AVX2 is that "
        "slow by itself"
    )
    return Finding("speed", name, "warning", text, way_out)
