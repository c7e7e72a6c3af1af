"""A rebinning and its transpose in torch's own operations, for any device: what the kernels are tested against.

Dimensions as in `tables`, and B samples. What is found here goes into graphs of torch.compile as well, so it comes as a
plain tuple of tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fbp_ray.rebinning.tables import TAPS, Tables

Found = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""`order`, `cell`, `cell_weights`, `place` and `weights` of tables, and an empty tensor of the source's shape."""


def as_tensors(made: Tables, device: torch.device) -> Found:
    """Tables as tensors."""
    order, cell, place = (torch.from_numpy(a).to(device, torch.int64) for a in (made.order, made.cell, made.place))
    cell_weights, weights = (torch.from_numpy(a).to(device) for a in (made.cell_weights, made.weights))
    return order, cell, cell_weights, place, weights, torch.empty((*made.source, 0), device=device)


def squared(found: Found) -> Found:
    """The tables that make variances of variances."""
    order, cell, cell_weights, place, weights, source = found
    return order, cell, cell_weights.square(), place, weights.square(), source


def resample(sinogram: Tensor, found: Found) -> Tensor:
    """(B, A, D) -> (B, A', D')."""
    order, cell, cell_weights, place, weights, _ = found
    ordered = sinogram[:, order]
    rows = sum(cell_weights[t] * ordered[..., cell + t] for t in range(TAPS))
    flat = rows.flatten(1)  # type: ignore[union-attr]
    looks = range(place.shape[1])
    return sum(  # type: ignore[return-value]
        weights[:, n, t] * flat[:, place[:, n] + t * cell.numel()] for n in looks for t in range(TAPS)
    )


def spread(sinogram: Tensor, found: Found) -> Tensor:
    """(B, A', D') -> (B, A, D), the transpose."""
    order, cell, cell_weights, place, weights, source = found
    angles, cells = source.shape[:2]
    batch = sinogram.shape[0]
    flat = sinogram.new_zeros((batch, order.numel() * cell.numel()))
    for n in range(place.shape[1]):
        for t in range(TAPS):
            index = (place[:, n] + t * cell.numel()).flatten()
            flat = flat.index_add(1, index, (weights[:, n, t] * sinogram).flatten(1))
    rows = flat.reshape(batch, order.numel(), cell.numel())
    ordered = sinogram.new_zeros((batch, order.numel(), cells))
    for t in range(TAPS):
        ordered = ordered.index_add(2, cell + t, cell_weights[t] * rows)
    return sinogram.new_zeros((batch, angles, cells)).index_add(1, order, ordered)
