"""The two operators in plain torch: the definition that every faster kernel is held to.

A pixel at (x, y) sees, at angle theta, the detector coordinate `s = x cos(theta) + y sin(theta) + axis_offset`. It is
shared among the cells nearby, with weights that fall linearly from `1 / reach` at s to 0 at `reach` cells from there:

    backproject:  image[p]        = c * sum over angles a and cells j of  weight(a, j, p) * sinogram[a, j]
    project:      sinogram[a, j]  = c * sum over pixels p of              weight(a, j, p) * image[p]

with `c = pixel_size^2 / cell_size`, which makes `project` a line integral in absolute units: every pixel spreads its
area over the cells. What falls beyond the detector is lost. Any device, any floating dtype.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fbp_ray.geometry import ParallelBeam

# Pixels this many cells wide, LoDoPaB-CT's, reach one cell: faster, and uneven by some per cent near diagonals alone.
_ONE_CELL = 513 / (362 * math.sqrt(2))


def reaches(geometry: ParallelBeam, theta: NDArray[np.float64], interpolate: bool) -> NDArray[np.float64]:
    """How many cells a pixel reaches to either side, at each of the angles theta.

    As many as lie between neighbouring pixels, along the axis whose steps are the longer ones on the detector, or that
    times the whole number which comes nearest to one cell: only then do the weights of a line of pixels add up to 1 at
    every cell. Where cells are the finer ones this is Joseph's method (IEEE Trans. Med. Imaging 1, 192, 1982): a ray
    takes, from each line, what linear interpolation makes of the two pixels beside it.

    A reach of 1, which `interpolate` takes at every angle, is linear interpolation between the two cells that a pixel
    lies between.
    """
    ratio = geometry.pixel_size / geometry.cell_size
    if interpolate or math.isclose(ratio, _ONE_CELL, rel_tol=1e-6):
        return np.ones_like(theta)
    step = ratio * np.maximum(np.abs(np.cos(theta)), np.abs(np.sin(theta)))
    # rounded twice: angles that differ in their last digits, as mirrored ones do, are to get the same number
    return step * np.maximum(1, np.round(np.round(1 / step, 6)))


def over_reaches(sinogram: Tensor, geometry: ParallelBeam, interpolate: bool) -> Tensor:
    """A sinogram (B, A, D) times `1 / reach` of each angle, so that the kernels' weights can fall from 1."""
    reach = reaches(geometry, geometry.theta, interpolate)
    return sinogram if np.all(reach == 1) else sinogram * sinogram.new_tensor(1 / reach)[:, None]


def backproject(sinogram: Tensor, geometry: ParallelBeam, interpolate: bool = False) -> Tensor:
    """(B, A, D) -> (B, H, W)."""
    image = sinogram.new_zeros((sinogram.shape[0], *geometry.image_shape))
    padded = torch.nn.functional.pad(over_reaches(sinogram, geometry, interpolate), (1, 1))
    for angle, reach in enumerate(reaches(geometry, geometry.theta, interpolate)):
        image += sum(weight * padded[:, angle, cell] for cell, weight in _footprint(geometry, angle, reach, sinogram))
    return image * _area_over_cell(geometry)


def project(image: Tensor, geometry: ParallelBeam, interpolate: bool = False) -> Tensor:
    """(B, H, W) -> (B, A, D), the transpose of `backproject`."""
    batch = image.shape[0]
    padded = image.new_zeros((batch, geometry.num_angles, geometry.cells + 2))
    for angle, reach in enumerate(reaches(geometry, geometry.theta, interpolate)):
        for cell, weight in _footprint(geometry, angle, reach, image):
            padded[:, angle].index_add_(1, cell.flatten(), (weight * image).reshape(batch, -1))
    return over_reaches(padded[..., 1:-1], geometry, interpolate) * _area_over_cell(geometry)


def _footprint(geometry: ParallelBeam, angle: int, reach: float, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The cells that each pixel reaches, one after the other, and their weights, times the reach.

    Cells are counted from one that lies before the detector; it and one behind take what misses the detector.
    """
    theta = geometry.theta[angle]
    device = "cpu" if like.device.type == "mps" else like.device  # mps has no float64
    x = torch.as_tensor(geometry.x, device=device)[:, None]
    y = torch.as_tensor(geometry.y, device=device)[None, :]
    s = x * math.cos(theta) + y * math.sin(theta) + geometry.axis_offset
    position = s / geometry.cell_size + (geometry.cells - 1) / 2 + 1
    first = (position - reach).floor().add(1).clamp(0, geometry.cells + 1)
    for neighbour in range(min(math.ceil(2 * reach), geometry.cells + 2)):
        cell = (first + neighbour).clamp(max=geometry.cells + 1)
        weight = (1 - (position - cell).abs() / reach).clamp(min=0)
        yield cell.long().to(like.device), weight.to(like.dtype).to(like.device)


def _area_over_cell(geometry: ParallelBeam) -> float:
    return geometry.pixel_size**2 / geometry.cell_size
