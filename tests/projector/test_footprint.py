"""What cells make of an image whose pixels are wider or narrower than they are."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.model import fbp
from fbp_ray.projector import backproject, project

CELLS_A_PIXEL = (0.25, 0.5, 0.6, 0.75, 1, 1.5, 2, 3, 4, 7.3)


def scan(cells_a_pixel: float, pixels: int = 64, **changes: object) -> ParallelBeam:
    """All of the image in sight, at angles among which are the axes and the diagonals."""
    fields = {
        "angles": RegularAngles(count=16, first=0.0, step=math.pi / 8),
        "cells": math.ceil(1.6 * pixels * cells_a_pixel),
        "cell_size": 1e-3 / cells_a_pixel,
        "image_shape": (pixels, pixels - 5),
        "pixel_size": 1e-3,
        **changes,
    }
    return ParallelBeam(**fields)  # type: ignore[arg-type]


def gaussian(geometry: ParallelBeam, width: float) -> tuple[Tensor, Tensor]:
    """A Gaussian off the middle, and its line integrals."""
    x, y = torch.from_numpy(geometry.x)[:, None], torch.from_numpy(geometry.y)
    theta = torch.from_numpy(geometry.theta)[:, None]
    x0, y0 = 3.3e-3, -2.1e-3
    s = torch.from_numpy(geometry.detector) - geometry.axis_offset - x0 * theta.cos() - y0 * theta.sin()
    image = torch.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * width**2))
    return image, math.sqrt(2 * math.pi) * width * torch.exp(-(s**2) / (2 * width**2))


@pytest.mark.parametrize("cells_a_pixel", CELLS_A_PIXEL)
def test_every_projection_of_a_gaussian_is_that_of_the_formula(cells_a_pixel: float) -> None:
    pixels = math.ceil(64 / min(1, cells_a_pixel))
    geometry = scan(cells_a_pixel, pixels, axis_offset=0.37e-3)
    image, exact = gaussian(geometry, 0.1e-3 * pixels)
    difference = project(image.float(), geometry) - exact
    assert (difference.norm(dim=-1) / exact.norm(dim=-1)).max() < 0.005
    assert difference.abs().max() < 0.005 * exact.max()


@pytest.mark.parametrize("cells_a_pixel", [0.75, 1.5, 4])
def test_a_row_of_ones_is_as_thick_as_a_pixel_on_every_cell_that_it_covers(cells_a_pixel: float) -> None:
    geometry = scan(cells_a_pixel, angles=(0.0, math.pi / 2))
    image = torch.zeros(geometry.image_shape, dtype=torch.float64)
    image[30] = 1.0
    along_y = project(image, geometry)[1]
    covered = abs(torch.from_numpy(geometry.detector)) < geometry.y[-1] - geometry.cell_size
    torch.testing.assert_close(along_y[covered], torch.full_like(along_y[covered], geometry.pixel_size))


@pytest.mark.parametrize("cells_a_pixel", [1, 1.5, 2, 4])
def test_fbp_gives_the_image_back_whatever_the_cells(cells_a_pixel: float) -> None:
    geometry = scan(cells_a_pixel, angles=RegularAngles(count=120, first=0.0, step=math.pi / 120))
    image, _ = gaussian(geometry, 6e-3)
    assert (fbp(project(image, geometry), geometry, "none") - image).norm() < 0.01 * image.norm()


@pytest.mark.parametrize("cells_a_pixel", [0.6, 2.7])
def test_interpolation_has_its_own_transpose_for_a_gradient(cells_a_pixel: float) -> None:
    geometry = scan(cells_a_pixel, pixels=9)
    generator = torch.Generator().manual_seed(1)
    sinogram = torch.randn(2, *geometry.sinogram_shape, dtype=torch.float64, generator=generator).requires_grad_()
    image = torch.randn(2, *geometry.image_shape, dtype=torch.float64, generator=generator)
    inner = (backproject(sinogram, geometry, interpolate=True) * image).sum()
    (gradient,) = torch.autograd.grad(inner, sinogram)
    torch.testing.assert_close((gradient * sinogram).sum(), inner)
    assert (gradient - project(image, geometry)).norm() > 0.05 * gradient.norm()


def test_the_scan_of_lodopab_is_projected_by_interpolation() -> None:
    geometry = ParallelBeam.lodopab().every(100)
    sinogram = torch.rand(1, *geometry.sinogram_shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(backproject(sinogram, geometry), backproject(sinogram, geometry, interpolate=True))
