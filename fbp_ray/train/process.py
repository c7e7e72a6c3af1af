"""The processes that train together, and how they exchange values. One alone needs no process group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fbp_ray.errors import RunError

T = TypeVar("T")


class Process(NamedTuple):
    """One of the processes that train together."""

    rank: int
    world_size: int
    device: torch.device

    def add_up(self, sums: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in each of them."""
        if self.world_size > 1:
            dist.all_reduce(sums)
        return sums

    def from_first(self, make: Callable[[], T]) -> T:
        """Calls `make` in the first process alone, and returns its result in every process."""
        if self.world_size == 1:
            return make()
        box: list[Any] = [make() if self.rank == 0 else None]
        dist.broadcast_object_list(box, src=0, device=self.device)
        result: T = box[0]
        return result

    def check_same(self, what: str, value: object) -> None:
        """Raises RunError, in every process, where the processes have different values."""
        if self.world_size == 1:
            return
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        if any(other != values[0] for other in values):
            listed = ", ".join(f"{other} in worker {rank}" for rank, other in enumerate(values))
            raise RunError(f"the workers do not agree on {what}: {listed}; every machine must have the same data")


class Sums:
    """Sums of named figures over samples, then their means over all processes."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.names: list[str] = []
        self.total = torch.zeros(0, 2)

    def add(self, count: int, figures: dict[str, Tensor]) -> None:
        """Adds figures of `count` samples: each one's mean, or its value for each sample, nan where it has none."""
        found = [figure.detach() for figure in figures.values()]
        if all(figure.ndim == 0 for figure in found):  # the same in a few operations, as it is at each step
            sums = torch.stack(found).double() * count
            values = torch.stack([sums, torch.full_like(sums, count)], 1)
        else:
            values = torch.stack([_sum_and_count(figure.double(), count) for figure in found])
        self.total = values if not self.names else self.total + values
        self.names = list(figures)

    def means(self) -> dict[str, float]:
        """The mean of each figure over the samples of all processes."""
        sums, counts = self.process.add_up(self.total.to(self.process.device)).unbind(1)
        return dict(zip(self.names, (sums / counts).tolist(), strict=True))


def _sum_and_count(figure: Tensor, count: int) -> Tensor:
    if figure.ndim == 0:
        return torch.stack([figure * count, torch.full_like(figure, count)])
    return torch.stack([figure.nansum(), (~figure.isnan()).sum()])
