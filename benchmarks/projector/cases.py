"""What is measured of this project: each case one call on a batch, its inputs made beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from fbp_ray.filters import WindowConfig, build_filter
from fbp_ray.geometry import ParallelBeam
from fbp_ray.graphs import Recorded
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.projector import backproject, project

OURS = "fbp-ray"
HALF = "fbp-ray, half storage"
RECORDED, RECORDED_HALF = "fbp-ray, recorded", "fbp-ray, half storage, recorded"
BATCHES = (1, 4, 16, 32)

Operation = Literal["FBP", "training step", "backproject", "project", "filter"]


@dataclass(frozen=True)
class Case:
    """One call that is timed.

    Args:
        implementation: whose code it is.
        operation: what it computes; times are compared within one operation.
        batch: the images it computes.
        run: the call; on a GPU it returns when the work is launched.
        part: the part of an image's angles that it goes through, where all of them would take too long.
        device: cpu or cuda.
    """

    implementation: str
    operation: Operation
    batch: int
    run: Callable[[], object]
    part: float = 1.0
    device: str = "cpu"

    @property
    def images(self) -> float:
        """By what a call's time is divided to be the time of one image."""
        return self.batch * self.part

    @property
    def name(self) -> str:
        """Whose, what, how many and where: unlike any other case's."""
        return f"{self.implementation}: {self.operation}, batch {self.batch}, {self.device}"


def own_cases(geometry: ParallelBeam, device: str = "cpu", batches: tuple[int, ...] = BATCHES) -> Iterator[Case]:
    """All operations of this project at every batch; on a GPU the FBP in half precision and replayed too."""
    generator = torch.Generator().manual_seed(0)
    sinograms = torch.rand(max(batches), *geometry.sinogram_shape, generator=generator).to(device)
    images = torch.rand(max(batches), *geometry.image_shape, generator=generator).to(device)
    learnable = LearnableFBP(ModelConfig(geometry=geometry, window=WindowConfig(kind="angle_frequency"))).to(device)
    classic = LearnableFBP(ModelConfig(geometry=geometry, window=WindowConfig(kind="fixed", init="hann"))).to(device)
    stage = build_filter(WindowConfig(kind="fixed", init="hann"), geometry).to(device)

    def step(y: torch.Tensor, x: torch.Tensor) -> None:
        learnable.zero_grad(set_to_none=True)
        (learnable(y) * x).sum().backward()

    classic.eval()
    for batch in batches:
        y, x = sinograms[:batch], images[:batch]
        runs: list[tuple[str, Operation, Callable[[], object]]] = [
            (OURS, "FBP", partial(classic, y)),
            (OURS, "training step", partial(step, y, x)),
            (OURS, "backproject", partial(backproject, y, geometry, interpolate=True)),
            (OURS, "project", partial(project, x, geometry)),
            (OURS, "filter", partial(stage, y)),
        ]
        if device != "cpu":
            half = partial(classic, storage_dtype=torch.float16)
            runs.append((HALF, "FBP", partial(half, y)))
            runs.append((HALF, "backproject", partial(backproject, y, geometry, torch.float16, interpolate=True)))
            runs.append((RECORDED, "FBP", partial(Recorded(classic), y)))
            runs.append((RECORDED_HALF, "FBP", partial(Recorded(half), y)))
        for implementation, operation, run in runs:
            yield Case(implementation, operation, batch, run, device=device)


def updates(geometry: ParallelBeam, operation: Operation) -> int:
    """The interpolations of one image: pixels x angles, twice that for a training step, none for the filter."""
    height, width = geometry.image_shape
    times = {"training step": 2, "filter": 0}.get(operation, 1)
    return times * height * width * geometry.num_angles
