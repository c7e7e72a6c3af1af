"""Projection and backprojection: exact transposes of each other, in absolute units, differentiable.

    project:      (..., H, W) -> (..., A, D)     line integrals along the rays of the geometry
    backproject:  (..., A, D) -> (..., H, W)     its transpose: <backproject(y), x> = <y, project(x)>, scale 1

Both are linear, so the gradient of the one is the other and nothing but the geometry is kept for it. The device and
the dtype choose the kernel; `reference` says what all of them compute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fbp_ray.errors import GeometryError
from fbp_ray.geometry import ParallelBeam
from fbp_ray.projector import reference

Operator = Callable[[Tensor, ParallelBeam], Tensor]


class Kernel(NamedTuple):
    """The two operators of one implementation, on arrays with exactly one batch dimension."""

    backproject: Operator
    project: Operator


def kernel_for(device: torch.device, dtype: torch.dtype) -> Kernel:
    """The implementation that arrays of this device and dtype are given to: the one place where a new one is added."""
    if device.type == "cpu" and dtype == torch.float32:
        from fbp_ray.projector import cpu  # here, not above: numba takes half a second to import

        return Kernel(cpu.backproject, cpu.project)
    return Kernel(reference.backproject, reference.project)


def backproject(sinogram: Tensor, geometry: ParallelBeam) -> Tensor:
    """The transpose of `project`: every pixel gathers from the rays that pass through it.

    Args:
        sinogram: (..., A, D), floating point, any device.
        geometry: the scan and the image grid.

    Returns:
        (..., H, W) of the same dtype and device. For a filtered backprojection use `fbp_ray.fbp`, which weighs the
        angles and scales to absolute units.

    Raises:
        GeometryError: the last two dimensions are not (A, D), or the dtype is not a floating one.
    """
    return _apply(_Backproject, sinogram, geometry, "sinogram")


def project(image: Tensor, geometry: ParallelBeam) -> Tensor:
    """Line integrals of an image: pixel-driven, each pixel shared linearly between the two nearest cells.

    Args:
        image: (..., H, W), floating point, any device; in 1/m for a sinogram without unit.
        geometry: the scan and the image grid.

    Returns:
        (..., A, D) of the same dtype and device, in the image's unit times metres.

    Raises:
        GeometryError: the last two dimensions are not (H, W), or the dtype is not a floating one.
    """
    return _apply(_Project, image, geometry, "image")


def _apply(function: Any, array: Tensor, geometry: ParallelBeam, kind: Any) -> Tensor:
    geometry.check(array, kind)
    if not array.is_floating_point():
        raise GeometryError(
            f"a {kind} holds floating-point numbers, but this one is {array.dtype}; convert it: .float()"
        )
    batch = array.reshape(-1, *array.shape[-2:])
    result: Tensor = function.apply(batch, geometry)
    return result.reshape(*array.shape[:-2], *result.shape[-2:])


class _Backproject(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sinogram: Tensor, geometry: ParallelBeam) -> Tensor:
        ctx.geometry = geometry
        return kernel_for(sinogram.device, sinogram.dtype).backproject(sinogram, geometry)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None]:
        return project(gradient[0], ctx.geometry), None


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, geometry: ParallelBeam) -> Tensor:
        ctx.geometry = geometry
        return kernel_for(image.device, image.dtype).project(image, geometry)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None]:
        return backproject(gradient[0], ctx.geometry), None
