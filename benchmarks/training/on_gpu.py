"""How fast the training loop is on one GPU, in this process and without Ray, and what a step's time goes to.

The samples are of LoDoPaB-CT's size: smooth images, projected, with its noise. They are in memory from the start, as
they are from the second epoch on with `--data.cache memory`, since a disk is not what is measured.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import h5py
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.profiler import ProfilerActivity, profile

from benchmarks.projector.machine import machine, versions
from benchmarks.projector.report import Target, figure, markdown, target_table
from fbp_ray.cli import parse_with_recipe
from fbp_ray.config import PHOTONS, TrainConfig
from fbp_ray.data import SharedCache
from fbp_ray.data.layout import DESCRIPTION, MU_MAX, Kind, file_name
from fbp_ray.geometry import ParallelBeam
from fbp_ray.losses import composite_loss
from fbp_ray.projector import project
from fbp_ray.run import ResolvedConfig, RunFolder
from fbp_ray.train.events import EpochEnd, Event, Warned
from fbp_ray.train.loop import train
from fbp_ray.train.optimiser import learned, make_optimiser
from fbp_ray.train.parts import build_model, open_parts
from fbp_ray.train.process import Process

CASES = {
    "reference: angle_frequency, composite loss": ["--recipe", "reference"],
    "lodopab-window: adaptive, log_mse and local_ssim": ["--recipe", "lodopab-window"],
    "ray_noise, composite loss": ["--recipe", "reference", "--window.kind", "ray_noise"],
    "adaptive, composite loss": ["--recipe", "reference", "--window.kind", "adaptive"],
    "adaptive and tiny, composite loss": [
        "--recipe", "reference", "--window.kind", "adaptive", "--postprocessing.kind", "tiny",
    ],
    "the same in bfloat16": [
        "--recipe", "reference", "--window.kind", "adaptive", "--postprocessing.kind", "tiny",
        "--train.precision", "bfloat16",
    ],
}  # fmt: skip
REFERENCE = next(iter(CASES))
PARTS = ("forward", "loss", "backward", "optimiser")
LISTED = 25  # kernels and operations of a profile


class Size(NamedTuple):
    """How much is done."""

    geometry: ParallelBeam
    batch: int
    rows: int
    """Samples of a file."""

    names: int
    """By which each file of the training part goes, so that an epoch is long and little has to be written."""

    few: int
    """Samples that all cases but the first train on: their windows are slower."""

    epochs: int
    """Of which the first is not counted: kernels are compiled."""

    steps: int
    """Of which the time of the parts is the median."""


FULL = Size(ParallelBeam.lodopab(), 32, rows=512, names=2, few=256, epochs=4, steps=12)


class Speed(NamedTuple):
    """What a case showed."""

    samples_per_second: list[float]
    reading: float
    """The part of the time that the loop waited for data."""

    gigabytes: float
    """Of the GPU's memory, at most."""

    milliseconds: dict[str, float]
    """Of each part of a step, and until all of it has been launched."""


def measure(out: Path | None, profiled: bool, device: torch.device, size: Size = FULL) -> None:
    """Prints the table, the target and, where wanted, a profile; writes training-gpu.json to `out`."""
    for title, facts in (("machine", machine()), ("versions", versions())):
        print(f"{title}: " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    speeds: dict[str, Speed] = {}
    with tempfile.TemporaryDirectory(prefix="fbp-ray-") as temporary:
        root = Path(temporary)
        began = time.perf_counter()
        write_data(root / "data", device, size)
        configs = {name: _config(root, str(number), name, size) for number, name in enumerate(CASES)}
        caches = _filled_caches(configs[REFERENCE])
        print(f"\nmade the data in {time.perf_counter() - began:.1f} s", flush=True)
        for name, config in configs.items():
            began = time.perf_counter()
            rows, gigabytes = _trained(config, device, caches)
            samples = list(_batches(config, device, size.batch))
            milliseconds = _parts(config, samples, device, size.steps)
            speeds[name] = Speed(
                [row["samples_per_second"] for row in rows], median(row["reading"] for row in rows), gigabytes,
                milliseconds,
            )  # fmt: skip
            print(f"{name}: {time.perf_counter() - began:.1f} s", flush=True)
        if profiled:
            print(_profile(configs[REFERENCE], samples, device))
    print(
        f"\nBatch {size.batch}; samples/s through the steps, the median of {size.epochs - 1} epochs; times of a step.\n"
    )
    print(_table(speeds))
    reference = median(speeds[REFERENCE].samples_per_second)
    print("\nTargets\n")
    print(target_table([Target("reference recipe: samples/s", reference, None, 1500)]))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        cases = {name: speed._asdict() for name, speed in speeds.items()}
        result = {"machine": machine(), "versions": versions(), "cases": cases}
        (out / "training-gpu.json").write_text(json.dumps(result, indent=1))
        print(f"\nwritten to {out}: training-gpu.json")


def write_data(folder: Path, device: torch.device, size: Size) -> None:
    """Smooth images inside the circle of view and their noisy sinograms, a chunk a row."""
    folder.mkdir(parents=True)
    description = {"geometry": size.geometry.model_dump(mode="json"), "photons": PHOTONS, "unit": MU_MAX}
    (folder / DESCRIPTION).write_text(json.dumps(description))
    torch.manual_seed(0)
    for part, rows in (("train", size.rows), ("validation", 2)):
        shapes: dict[Kind, tuple[int, int]] = {
            "observation": size.geometry.sinogram_shape,
            "ground_truth": size.geometry.image_shape,
        }
        files = {kind: h5py.File(folder / file_name(kind, part, 0), "w") for kind in shapes}
        stored = {
            kind: file.create_dataset("data", (rows, *shapes[kind]), "f4", chunks=(1, *shapes[kind]))
            for kind, file in files.items()
        }
        for first in range(0, rows, size.batch):
            observations, truths = _samples(min(size.batch, rows - first), size.geometry, device)
            stored["observation"][first : first + size.batch] = observations.cpu().numpy()
            stored["ground_truth"][first : first + size.batch] = truths.cpu().numpy()
        for kind, file in files.items():
            file.close()
            for number in range(1, size.names if part == "train" else 1):
                (folder / file_name(kind, part, number)).hardlink_to(folder / file_name(kind, part, 0))


def _samples(count: int, geometry: ParallelBeam, device: torch.device) -> tuple[Tensor, Tensor]:
    height, width = geometry.image_shape
    blobs = torch.rand(count, 1, 12, 12, device=device)
    images = torch.nn.functional.interpolate(blobs, (height, width), mode="bicubic")[:, 0].clamp(0, 1) * 0.4
    x, y = (torch.linspace(-1, 1, side, device=device) for side in (height, width))
    images *= x[:, None] ** 2 + y**2 < 0.9
    counts = torch.poisson(PHOTONS * torch.exp(-MU_MAX * project(images, geometry)))
    return -torch.log(counts.clamp_min(0.1) / PHOTONS) / MU_MAX, images


def _config(root: Path, run: str, case: str, size: Size) -> ResolvedConfig:
    count = size.rows * size.names if case == REFERENCE else size.few
    given = {
        "--data.dir": root / "data", "--data.cache": "memory", "--data.train_samples": count,
        "--data.validation_samples": 2, "--train.batch_size": size.batch, "--train.epochs": size.epochs,
        "--train.patience": 0, "--track.to": "none", "--run.name": run, "--run.storage": root / "runs",
    }  # fmt: skip
    argv = [*CASES[case], *(str(word) for pair in given.items() for word in pair)]
    config = parse_with_recipe(TrainConfig, argv, "python -m benchmarks.training")
    return ResolvedConfig.model_validate(config.model_dump())


def _filled_caches(config: ResolvedConfig) -> tuple[SharedCache, SharedCache]:
    """Caches that have all samples before the first epoch."""
    training, validation = open_parts(config)
    caches = SharedCache(training, "memory"), SharedCache(validation, "memory")
    for dataset, cache in zip((training, validation), caches, strict=True):
        if cache.samples < len(dataset):
            print(f"only {cache.samples} of {len(dataset)} samples fit into shared memory: the others are read anew")
        for sample in range(cache.samples):
            one = dataset[sample]
            cache.put(sample, 0, one.observation.numpy(), one.ground_truth.numpy())
    return caches


def _trained(
    config: ResolvedConfig, device: torch.device, caches: tuple[SharedCache, SharedCache]
) -> tuple[list[dict[str, float]], float]:
    """The rows of all epochs but the first, and the memory."""
    run = RunFolder(Path(config.run.storage) / config.run.name)
    rows: list[dict[str, float]] = []

    def report(event: Event) -> None:
        if isinstance(event, EpochEnd):
            rows.append(event.row)
        elif isinstance(event, Warned):
            print(f"warning: {event.text}")

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    train(run.begin(config), run, Process(0, 1, device), report, caches)
    return rows[1:], torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0


def _batches(config: ResolvedConfig, device: torch.device, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Two batches on the device."""
    training, _ = open_parts(config)
    for first in (0, count):
        pairs = [training[sample % len(training)] for sample in range(first, first + count)]
        yield (
            torch.stack([pair.observation for pair in pairs]).to(device),
            torch.stack([pair.ground_truth for pair in pairs]).to(device),
        )


def _stepper(config: ResolvedConfig, device: torch.device) -> Iterator[Callable[..., Any]]:
    """The parts of a step, in order, as the loop has them; each gets what the one before gave."""
    training, _ = open_parts(config)
    model = build_model(config, training.geometry).to(device).train()
    if config.train.precision == "bfloat16" and device.type == "cuda":
        model.network_dtype = torch.bfloat16
    optimizer = make_optimiser(model, config.optim)

    def backward(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]

    def move(_: None) -> None:
        if config.optim.clip is not None:
            clip_grad_norm_(learned(model), config.optim.clip)
        optimizer.step()

    yield lambda pair: (model(pair[0]), pair[1])
    yield lambda pair: composite_loss(pair[0], pair[1], config.loss).total
    yield backward
    yield move


def _parts(
    config: ResolvedConfig, samples: list[tuple[Tensor, Tensor]], device: torch.device, steps: int
) -> dict[str, float]:
    """Milliseconds of each part, by the device's clock; and of launching a step, by the caller's."""
    parts = list(_stepper(config, device))
    found: list[list[float]] = []
    launching = []
    for step in range(steps + 3):
        value: Any = samples[step % len(samples)]
        clocks = [_Clock(device)]
        began = time.perf_counter()
        for part in parts:
            value = part(value)
            clocks.append(_Clock(device))
        launching.append(1e3 * (time.perf_counter() - began))
        _wait(device)
        found.append([after.since(before) for before, after in pairwise(clocks)])
    medians = [median(column) for column in zip(*found[3:], strict=True)]
    return dict(zip(PARTS, medians, strict=True)) | {"launching": median(launching[3:])}


class _Clock:
    """A moment of the device: a GPU's is when all has been done that was launched before."""

    def __init__(self, device: torch.device) -> None:
        self._event: Any = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._event.record()
        self._seconds = time.perf_counter()

    def since(self, before: _Clock) -> float:
        """Milliseconds."""
        if self._event is not None:
            return float(before._event.elapsed_time(self._event))
        return 1e3 * (self._seconds - before._seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _profile(config: ResolvedConfig, samples: list[tuple[Tensor, Tensor]], device: torch.device) -> str:
    """What a few steps are made of."""
    parts = list(_stepper(config, device))

    def run(steps: int) -> None:
        for step in range(steps):
            value: Any = samples[step % len(samples)]
            for part in parts:
                value = part(value)
        _wait(device)

    run(3)
    steps = 5
    on_gpu = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    with profile(activities=[ProfilerActivity.CPU, *on_gpu]) as found:
        run(steps)
    launched = sum(event.device_type.name == "CUDA" for event in found.events() or ()) / steps
    averages = found.key_averages()
    kernels = averages.table(sort_by="self_device_time_total", row_limit=LISTED, max_name_column_width=80)
    operations = averages.table(sort_by="self_cpu_time_total", row_limit=LISTED, max_name_column_width=80)
    return f"\n{REFERENCE}, {steps} steps: {launched:.0f} launches a step\n\n{kernels}\n\n{operations}"


def _table(speeds: dict[str, Speed]) -> str:
    rows = [
        [
            name,
            f"{median(speed.samples_per_second):.0f}",
            f"{min(speed.samples_per_second):.0f} to {max(speed.samples_per_second):.0f}",
            f"{speed.reading:.0%}",
            f"{speed.gigabytes:.2f}",
            *(figure(milliseconds) for milliseconds in speed.milliseconds.values()),
        ]
        for name, speed in speeds.items()
    ]
    head = ["recipe", "samples/s", "from, to", "waited for data", "GB at most", *(f"{part}, ms" for part in PARTS)]
    return markdown([*head, "launching, ms"], rows)
