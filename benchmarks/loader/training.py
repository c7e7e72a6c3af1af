"""What reading takes of an epoch on this processor: the time waited for it, and its own time on the processor."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from torch import Tensor

from benchmarks.loader.files import LAYOUTS, Layout, open_set
from fbp_ray.data import Batches
from fbp_ray.filters import WindowConfig
from fbp_ray.geometry import ParallelBeam
from fbp_ray.model import LearnableFBP, ModelConfig

BATCH, STEPS = 4, 20


class Epoch(NamedTuple):
    """Seconds of steps of BATCH samples, forwards and backwards."""

    layout: Layout
    seconds: float
    """With the loader."""

    waited: float
    """Of which it waited for a batch."""

    reading: float
    """Seconds on the processor that reading the same batches takes when nothing else is done."""


def epochs(root: Path, rounds: int) -> list[Epoch]:
    """STEPS steps from each layout's files, and reading as many batches alone, in turns; medians."""
    geometry = ParallelBeam.lodopab()
    model = LearnableFBP(ModelConfig(geometry=geometry, window=WindowConfig(kind="angle_frequency")))

    def step(y: Tensor, x: Tensor) -> None:
        model.zero_grad(set_to_none=True)
        (model(y) - x).square().mean().backward()

    found: dict[Layout, list[Epoch]] = {layout: [] for layout in LAYOUTS}
    readers = {layout: Batches(open_set(root, layout, geometry), BATCH, seed=0) for layout in LAYOUTS}
    for number in range(rounds + 1):
        for layout, batches in readers.items():
            began = time.perf_counter()
            for _, batch in zip(range(STEPS), batches.epoch(number + 1), strict=False):
                step(batch.observation, batch.ground_truth)
            seconds, waited = time.perf_counter() - began, batches.waited
            processor = time.process_time()
            count = sum(1 for _ in batches.epoch(number + 1))
            reading = (time.process_time() - processor) * STEPS / count
            if number > 0:
                found[layout].append(Epoch(layout, seconds, waited, reading))
    return [
        Epoch(layout, *(median(column) for column in list(zip(*of, strict=True))[1:])) for layout, of in found.items()
    ]
