"""The two operators in plain torch: the definition that every faster kernel is held to.

A pixel at (x, y) sees, at angle theta, the detector coordinate `s = x cos(theta) + y sin(theta) + axis_offset`. It lies
between two cell centres; the linear weights towards them are all there is:

    backproject:  image[p]        = c * sum over angles a and cells j of  weight(a, j, p) * sinogram[a, j]
    project:      sinogram[a, j]  = c * sum over pixels p of              weight(a, j, p) * image[p]

with `c = pixel_size^2 / cell_size`, which makes `project` a line integral in absolute units: every pixel spreads its
area over the cells. Beyond the detector lies a cell of zeros on either side. Any device, any floating dtype.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fbp_ray.geometry import ParallelBeam


def backproject(sinogram: Tensor, geometry: ParallelBeam) -> Tensor:
    """(B, A, D) -> (B, H, W)."""
    padded = torch.nn.functional.pad(sinogram, (1, 1))
    image = sinogram.new_zeros((sinogram.shape[0], *geometry.image_shape))
    for angle in range(geometry.num_angles):
        cell, weight = _footprint(geometry, angle, sinogram)
        row = padded[:, angle]
        image += (1 - weight) * row[:, cell] + weight * row[:, cell + 1]
    return image * _area_over_cell(geometry)


def project(image: Tensor, geometry: ParallelBeam) -> Tensor:
    """(B, H, W) -> (B, A, D), the transpose of `backproject`."""
    batch = image.shape[0]
    padded = image.new_zeros((batch, geometry.num_angles, geometry.cells + 2))
    for angle in range(geometry.num_angles):
        cell, weight = _footprint(geometry, angle, image)
        row = padded[:, angle]
        row.index_add_(1, cell.flatten(), ((1 - weight) * image).reshape(batch, -1))
        row.index_add_(1, cell.flatten() + 1, (weight * image).reshape(batch, -1))
    return padded[..., 1:-1] * _area_over_cell(geometry)


def _footprint(geometry: ParallelBeam, angle: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The left one of the two (padded) cells that each pixel falls between, and the weight of the right one."""
    theta = geometry.theta[angle]
    device = "cpu" if like.device.type == "mps" else like.device  # mps has no float64
    x = torch.as_tensor(geometry.x, device=device)[:, None]
    y = torch.as_tensor(geometry.y, device=device)[None, :]
    s = x * math.cos(theta) + y * math.sin(theta) + geometry.axis_offset
    position = s / geometry.cell_size + (geometry.cells - 1) / 2 + 1
    position = position.clamp(0, geometry.cells + 1)
    cell = position.floor().clamp(max=geometry.cells).long()
    return cell.to(like.device), (position - cell).to(like.dtype).to(like.device)


def _area_over_cell(geometry: ParallelBeam) -> float:
    return geometry.pixel_size**2 / geometry.cell_size
