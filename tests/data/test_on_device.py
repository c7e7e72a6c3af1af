"""Batches on their way to a device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fbp_ray.data import Sample
from fbp_ray.data.loader import on_device


def batches(count: int, pin: bool = False) -> Iterator[Sample]:
    """Of the values 0, 1, ..., each overwritten when the second one after it is asked for."""
    memory = [(torch.empty(4, 500, 513, pin_memory=pin), torch.empty(4, 362, 362, pin_memory=pin)) for _ in range(2)]
    for number in range(count):
        for part in memory[number % 2]:
            part.fill_(number)
        yield Sample(*memory[number % 2], torch.full((4,), number))  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_cpu_has_them_as_they_come(count: int) -> None:
    found = [int(batch.observation[0, 0, 0]) for batch in on_device(batches(count), torch.device("cpu"))]
    assert found == list(range(count))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="of a GPU that works behind the caller")
@pytest.mark.parametrize("count", [0, 1, 2, 12])
def test_a_gpu_that_is_slow_has_what_was_in_them(count: int) -> None:
    device, found = torch.device("cuda"), []
    busy = torch.rand(4096, 4096, device=device)
    for batch in on_device(batches(count, pin=True), device):
        for _ in range(8):
            busy = (busy @ busy).clamp(0, 1)
        sizes = [(part.amin(), part.amax()) for part in (batch.observation, batch.ground_truth)]
        found.append((torch.stack([value for pair in sizes for value in pair]), int(batch.index[0])))  # type: ignore[index]
    assert [number for _, number in found] == list(range(count))
    for values, number in found:
        assert values.tolist() == [number] * 4
