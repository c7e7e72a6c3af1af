"""Measures the service on this machine: latency, throughput with and without batching, and a soak.

    python -m benchmarks.service                  a quarter of an hour; prints the tables
    python -m benchmarks.service --soak 0         without the soak
    python -m benchmarks.service --out figures    writes service.json too

The clients run on the same processors as the service, in processes of their own. Where there is a GPU the service
computes on it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field

from benchmarks.projector.machine import OtherPrograms, machine, versions
from benchmarks.projector.report import figure
from benchmarks.service.report import Found, computing_share, soak_table, target_table, throughput_table
from benchmarks.service.server import bare_call_ms, make_material, on_device_ms, serving
from benchmarks.service.soak import soak
from fbp_ray.cli import parse, run_program

CLIENTS = (1, 2, 4, 8, 16, 32)
DEVICE_BATCHES = (1, 4, 32)
WITHOUT = ("--batching.images", "1")


class Options(BaseModel):
    """How fast the service answers, and whether it does so for minutes."""

    model_config = ConfigDict(extra="forbid")

    seconds: Annotated[float, Field(gt=0)] = Field(default=5, description="of each measurement")
    rounds: Annotated[int, Field(ge=1)] = Field(default=3, description="of all measurements")
    soak: Annotated[float, Field(ge=0)] = Field(default=600, description="seconds of the soak; 0: none")
    attacks: bool = Field(default=True, description="an attack a second in the soak")
    out: Path | None = Field(default=None, description="a folder for service.json")


def main(argv: Sequence[str]) -> None:
    """Measures, prints, and writes where told to."""
    options = parse(Options, argv, "python -m benchmarks.service")
    for title, facts in (("machine", machine()), ("versions", versions())):
        print(f"{title}: " + ", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    found: Found = {}
    bare = []
    soaked = None
    with tempfile.TemporaryDirectory(prefix="fbp-ray-") as temporary:
        root = Path(temporary)
        material = make_material(root)
        first = next(iter(material.models.values()))
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        on_device = {batch: on_device_ms(material, batch) for batch in DEVICE_BATCHES} if gpu else {}
        others = OtherPrograms()
        with serving(root / "with") as batching, serving(root / "without", *WITHOUT) as single:
            for server in (batching, single):
                server.activate(first)
            for number in range(1, options.rounds + 1):
                bare.append(bare_call_ms(material))
                for clients in CLIENTS:
                    print(f"round {number} of {options.rounds}: {clients} clients", file=sys.stderr, flush=True)
                    for with_batching, server in ((True, batching), (False, single)):
                        seen = server.measured(material.body, clients, options.seconds)
                        print(f"batching {with_batching}: {seen._asdict()}", file=sys.stderr, flush=True)
                        found.setdefault((with_batching, clients), []).append(seen)
        if options.soak:
            with serving(root / "soak") as server:
                server.activate(first)
                soaked = soak(server, material, options.soak, options.attacks)
        disturbed = others.cores()

    bare_ms = sorted(bare)[len(bare) // 2]
    print(f"\nOne sinogram of 1000 angles x 513 cells a request, .npy both ways; medians of {options.rounds} rounds of")
    print(f"{options.seconds:g} s. The model alone takes {bare_ms:.3g} ms an image, one at a time.")
    if gpu:
        images = ", ".join(f"{figure(ms)} ms an image in a batch of {batch}" for batch, ms in on_device.items())
        print(f"It runs on one {gpu}; without the copies to it and back it takes {images}.")
    print(f"A lone client's request is computed for {computing_share(found):.0%} of its time, copies included.")
    print("A batch: its images; computing and processors: milliseconds of the service an image, all with batching.")
    if disturbed is not None:
        print(f"Meanwhile other programs kept {disturbed:.1f} cores busy.")
    print(f"\n{throughput_table(found)}\n")
    if soaked is not None:
        print(f"{soak_table(soaked)}\n")
        for complaint, times in soaked.complaints.items():
            print(f"{times} x {complaint}")
    if targets := target_table(found, bare_ms, soaked, gpu is not None):
        print(f"Targets\n\n{targets}")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        result = {
            "machine": machine(),
            "versions": versions(),
            "cores_busy_with_other_programs": disturbed,
            "bare_ms": bare,
            "on_device_ms": on_device,
            "runs": [
                {"batching": batching, **seen._asdict()}
                for (batching, _), all_seen in found.items()
                for seen in all_seen
            ],
            "soak": soaked and soaked._asdict(),
        }
        (options.out / "service.json").write_text(json.dumps(result, indent=1))
        print(f"\nwritten to {options.out}: service.json")


if __name__ == "__main__":
    run_program(main)
