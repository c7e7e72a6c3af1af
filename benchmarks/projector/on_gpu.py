"""The same on a GPU: times by the device's own clock, beside what its memory and its arithmetic allow.

Two numbers come first. A filtered backprojection of LoDoPaB-CT's reads 2.05 MB and writes 0.52 MB; and it makes 131
million updates, each two multiply-adds. The first over the rate of a copy and the second over that of float32
arithmetic are what no program goes below. A third rate counts where the tensor cores do the work: they multiply eight
times as much, three times over for float32.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.projector.cases import HALF, OURS, RECORDED, RECORDED_HALF, Case, own_cases, updates
from benchmarks.projector.machine import machine, versions
from benchmarks.projector.peers import TORCHTOMO, peer_cases
from benchmarks.projector.report import Target, figure, markdown, target_table
from fbp_ray.geometry import ParallelBeam
from fbp_ray.graphs import Recorded
from fbp_ray.model import fbp

BATCHES = (1, 4, 16, 32, 128)
PINNED = "fbp-ray, from pinned memory"
MILLISECONDS = 4  # that a round of a case takes at least


def measure(rounds: int, out: Path | None, progress: Callable[[int], None]) -> None:
    """Prints the tables; writes projector-gpu.json to `out`."""
    geometry = ParallelBeam.lodopab()
    for title, facts in (("machine", machine()), ("versions", versions())):
        print(f"{title}: " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    skipped: list[str] = []
    cases = [*own_cases(geometry, "cuda", BATCHES), *from_pinned(geometry), *peer_cases(geometry, "cuda", skipped)]
    for line in skipped:
        print(line)
    ceilings = {"bytes": _copied(), "multiply-adds on tensor cores": _multiplied()}
    times = _timed(cases, rounds, progress)

    print(f"\n{torch.cuda.get_device_name()}: medians of {rounds} rounds, in each of which every case had its turn.")
    print(f"A copy moves {ceilings['bytes'] / 1e12:.2f} TB/s, counting bytes read and written; float16 matrices are ")
    print(f"multiplied at {ceilings['multiply-adds on tensor cores'] / 1e12:.0f}e12 multiply-adds/s.\n")
    print(_table(cases, times, geometry, ceilings["bytes"]))
    found = _targets(cases, times)
    errors = _errors(geometry)
    print("\nTargets\n")
    print(target_table(found + errors))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        rows = [
            {"implementation": case.implementation, "operation": case.operation, "batch": case.batch}
            | {"median_seconds_an_image": times[case.name], "images_per_second": 1 / times[case.name]}
            for case in cases
        ]
        result = {
            "machine": machine(),
            "versions": versions(),
            "ceilings": ceilings,
            "rounds": rounds,
            "speed": rows,
            "targets": [dataclasses.asdict(target) | {"holds": target.holds} for target in found + errors],
            "left_out": skipped,
        }
        (out / "projector-gpu.json").write_text(json.dumps(result, indent=1))
        print(f"\nwritten to {out}: projector-gpu.json")


def from_pinned(geometry: ParallelBeam, batch: int = 32, batches: int = 8) -> Iterator[Case]:
    """Sinograms from pinned memory to images in it: one batch is copied in while another is reconstructed."""
    given = torch.rand(batches, batch, *geometry.sinogram_shape).pin_memory()
    made = torch.empty(batches, batch, *geometry.image_shape).pin_memory()
    coming, going = torch.cuda.Stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def run(reconstruct: Callable[[Tensor], Tensor]) -> None:
        present = torch.cuda.current_stream()
        coming.wait_stream(present)

        def fetch(number: int) -> Tensor:
            with torch.cuda.stream(coming):
                return given[number].to("cuda", non_blocking=True)

        following = fetch(0)
        for number in range(batches):
            present.wait_stream(coming)
            sinograms = following
            if number + 1 < batches:
                following = fetch(number + 1)
            images = reconstruct(sinograms)
            sinograms.record_stream(present)
            going.wait_stream(present)
            with torch.cuda.stream(going):
                made[number].copy_(images, non_blocking=True)
                images.record_stream(going)
        present.wait_stream(going)

    for name, storage in ((PINNED, None), (f"{PINNED}, half storage", torch.float16)):
        reconstruct = Recorded(partial(fbp, geometry=geometry, storage_dtype=storage))
        yield Case(name, "FBP", batch, partial(run, reconstruct), part=float(batches), device="cuda")


def _timed(cases: list[Case], rounds: int, progress: Callable[[int], None]) -> dict[str, float]:
    """Seconds an image of each case, by its name: medians by the device's clock, of as many calls as fill a round."""
    calls = {}
    for case in cases:
        case.run()
        calls[case.name] = max(1, round(MILLISECONDS / (1e3 * _seconds(case, 2))))
    found: dict[str, list[float]] = {case.name: [] for case in cases}
    for number in range(rounds):
        for case in cases:
            found[case.name].append(_seconds(case, calls[case.name]))
        progress(number + 1)
    return {case.name: statistics.median(found[case.name]) / case.images for case in cases}


def _seconds(case: Case, calls: int) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    for _ in range(calls):
        case.run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / calls


def _copied() -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.rand(1 << 28, device="cuda")
    target = torch.empty_like(source)
    case = Case(OURS, "filter", 1, lambda: target.copy_(source), device="cuda")
    case.run()
    return 2 * source.numel() * source.element_size() / _seconds(case, 10)


def _multiplied() -> float:
    """Multiply-adds a second of a large product in float16."""
    size = 8192
    left, right = (torch.randn(size, size, device="cuda", dtype=torch.float16) for _ in range(2))
    case = Case(OURS, "filter", 1, lambda: left @ right, device="cuda")
    case.run()
    return size**3 / _seconds(case, 10)


def _table(cases: list[Case], times: dict[str, float], geometry: ParallelBeam, bandwidth: float) -> str:
    """Images a second, the time of a call, updates a second, and how much of the memory's rate an FBP needs."""
    moved = 4 * (geometry.num_angles * geometry.cells + geometry.image_shape[0] * geometry.image_shape[1])
    peer = min((times[case.name] for case in cases if case.implementation == TORCHTOMO), default=None)
    rows = []
    order = list(dict.fromkeys(case.operation for case in cases))
    for case in sorted(cases, key=lambda case: (order.index(case.operation), case.implementation)):
        seconds = times[case.name]
        count = updates(geometry, case.operation)
        rows.append(
            [
                case.operation,
                case.implementation,
                str(case.batch),
                f"{1 / seconds:.0f}",
                figure(seconds * case.images * 1e3),
                figure(count / seconds / 1e9) if count else "",
                figure(moved / seconds / bandwidth) if case.operation == "FBP" else "",
                figure(peer / seconds) if peer and case.operation == "FBP" else "",
            ]
        )
    head = ["operation", "by", "batch", "images/s", "ms a call", "GUPS", "of the memory's rate", f"x {TORCHTOMO}"]
    return markdown(head, rows)


def _targets(cases: list[Case], times: dict[str, float]) -> list[Target]:
    def rate(implementation: str, operation: str, batch: int) -> float | None:
        wanted = (implementation, operation, batch)
        found = (c for c in cases if (c.implementation, c.operation, c.batch) == wanted)
        return next((1 / times[case.name] for case in found), None)

    def target(name: str, value: float | None, bound: float, at_least: bool = True) -> Target:
        return Target(name, value, None, bound, at_least)

    ours, half, one = rate(OURS, "FBP", 32), rate(HALF, "FBP", 32), rate(RECORDED, "FBP", 1)
    recorded, recorded_half = rate(RECORDED, "FBP", 32), rate(RECORDED_HALF, "FBP", 32)
    peer = max((1 / times[case.name] for case in cases if case.implementation == TORCHTOMO), default=None)
    return [
        target("FBP, batch 32: images/s", ours, 10_000),
        target("FBP, batch 32, recorded: x torchtomo's, at its best batch", recorded and peer and recorded / peer, 3),
        target("FBP, half storage, batch 32: images/s", half, 18_000),
        target("the same, half storage", recorded_half and peer and recorded_half / peer, 3),
        target("FBP, one image, recorded: ms", 1e3 / one if one else None, 0.25, at_least=False),
        target("training step, batch 32: images/s", rate(OURS, "training step", 32), 4_000),
    ]


def _errors(geometry: ParallelBeam) -> list[Target]:
    """The relative errors beside the float64 reference, of noise, which is harder than an image's sinogram."""
    sinogram = torch.randn(2, *geometry.sinogram_shape, generator=torch.Generator().manual_seed(0)).to("cuda")
    many = sinogram.repeat(16, 1, 1)
    exact = fbp(sinogram.double(), geometry)
    found = []
    for name, given, storage, bound in (
        ("float32, batch 2", sinogram, None, 1e-4),
        ("float32, batch 32", many, None, 1e-4),
        ("half storage, batch 32", many, torch.float16, 1e-3),
    ):
        images = fbp(given, geometry, storage_dtype=storage)[:2].double()
        error = float((images - exact).norm() / exact.norm())
        found.append(Target(f"relative error, {name}", error, None, bound, at_least=False))
    return found
