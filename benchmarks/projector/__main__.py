"""Times projection, backprojection, FBP and training steps beside other projects, all in turns in one run.

    python -m benchmarks.projector                    a few minutes; prints the tables
    python -m benchmarks.projector --out figures      writes projector.json and growth.png too
    python -m benchmarks.projector --quick            fewer repetitions
    python -m benchmarks.projector --device cuda      on a GPU, with targets of its own

Other projects are measured where they are installed: pip install -e '.[bench]'.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

# Read when torch is imported. OpenMP's threads otherwise spin while they wait for each other, and as soon as another
# program takes a core, filtering an image in 3 ms can take 280: for all that compute with torch, now and then.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from pydantic import BaseModel, ConfigDict, Field

from benchmarks.projector.cases import own_cases
from benchmarks.projector.growth import growth_table, plot, points
from benchmarks.projector.machine import OtherPrograms, machine, versions
from benchmarks.projector.memory import extra_memory
from benchmarks.projector.peers import peer_cases
from benchmarks.projector.report import as_json, speed_table, target_table, targets
from benchmarks.projector.timing import interleaved
from fbp_ray.cli import parse, run_program
from fbp_ray.errors import ConfigError
from fbp_ray.geometry import ParallelBeam

ROUNDS, QUICK_ROUNDS, GROWTH_ROUNDS = 11, 3, 3


class Options(BaseModel):
    """How fast projection, backprojection and FBP are beside other projects, in the geometry of LoDoPaB-CT."""

    model_config = ConfigDict(extra="forbid")

    quick: bool = Field(default=False, description=f"{QUICK_ROUNDS} repetitions rather than {ROUNDS}")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where")
    threads: int | None = Field(default=None, ge=1, description="the threads of torch and of the kernels")
    out: Path | None = Field(default=None, description="a folder for projector.json and growth.png")


def main(argv: Sequence[str]) -> None:
    """Measures, prints, and writes where told to."""
    options = parse(Options, argv, "python -m benchmarks.projector")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    rounds, threads = QUICK_ROUNDS if options.quick else ROUNDS, torch.get_num_threads()
    if options.device == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError("--device cuda needs a GPU that torch can use, and there is none here; leave it out")
        from benchmarks.projector.on_gpu import measure  # here, not above: it needs Triton

        measure(rounds, options.out, lambda n: progress("speed", n, rounds))
        return
    geometry = ParallelBeam.lodopab()
    for title, facts in (("machine", machine()), ("versions", versions())):
        print(f"{title}: " + ", ".join(f"{name} {value}" for name, value in facts.items()))

    skipped: list[str] = []
    cases = [*own_cases(geometry), *peer_cases(geometry, "cpu", skipped)]
    for line in skipped:
        print(line)
    others = OtherPrograms()
    timings = interleaved(cases, rounds, lambda n: progress("speed", n, rounds))
    disturbed = others.cores()
    memory = extra_memory(threads)
    for timing in timings:
        timing.extra_bytes = memory.get(timing.case.name)
    found = targets(timings, geometry)
    grown = points(threads)
    growth = interleaved([point.case for point in grown], GROWTH_ROUNDS, lambda n: progress("growth", n, GROWTH_ROUNDS))

    print(f"\nMedians of {rounds} rounds, in each of which every case had its turn; 'x' is how many times faster.")
    if disturbed is not None:
        print(f"Meanwhile other programs kept {disturbed:.1f} cores busy.")
    print()
    print(speed_table(timings, geometry))
    print(f"\nHow the time of an FBP grows; medians of {GROWTH_ROUNDS} rounds\n")
    print(growth_table(grown, growth))
    print("\nTargets\n")
    print(target_table(found))
    if options.out is None:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    result = {
        "machine": machine(),
        "versions": versions(),
        "rounds": rounds,
        "cores_busy_with_other_programs": disturbed,
        "speed": as_json(timings, geometry),
        "growth": [
            {"what": point.axis, "value": point.value, "batch": point.case.batch, "device": point.case.device}
            | {"median_seconds_an_image": timing.median, "seconds_an_image": timing.seconds}
            for point, timing in zip(grown, growth, strict=True)
        ],
        "targets": [dataclasses.asdict(target) | {"holds": target.holds} for target in found],
        "left_out": skipped,
    }
    (options.out / "projector.json").write_text(json.dumps(result, indent=1))
    plot(grown, growth, options.out / "growth.png")
    print(f"\nwritten to {options.out}: projector.json, growth.png")


def progress(what: str, done: int, rounds: int) -> None:
    """On stderr, so that what is printed stays the tables."""
    print(f"{what}: round {done} of {rounds}", file=sys.stderr)


if __name__ == "__main__":
    run_program(main)
