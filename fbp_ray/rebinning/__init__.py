"""From a fan beam to the parallel beam on which everything else works.

    rebin:            (..., A, D) -> (..., A', D')   the sinogram of `fan.parallel`
    rebin_transpose:  (..., A', D') -> (..., A, D)   its transpose, <rebin(y), z> = <y, rebin_transpose(z)>
    rebin_variance:   (..., A, D) -> (..., A', D')   what rebinning makes of the variance of independent samples
    project:          (..., H, W) -> (..., A, D)     line integrals along the rays of a fan beam

All are linear; the gradient of the first is the second and the other way round, so that derivatives of any order exist.
What is computed, `tables` says. On a CPU float32 has kernels in Numba; other devices and float64 take torch's own
operations, `reference`, which the kernels are tested against.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fbp_ray.caches import cached
from fbp_ray.geometry import FanBeam, Geometry, ParallelBeam
from fbp_ray.projector import check_array, where_compiled
from fbp_ray.projector import project as project_parallel
from fbp_ray.rebinning import reference
from fbp_ray.rebinning.tables import Tables, fine_parallel, projection_tables, tables
from fbp_ray.threads import parallel_for

Which = Literal["rebin", "project"]
"""Of the two kinds of tables."""

_ROWS, _COLUMNS = 16, 16  # of a sinogram that a task takes


def rebin(sinogram: Tensor, fan: Geometry) -> Tensor:
    """The sinogram of the parallel beam `fan.parallel`; that of a parallel beam as it is, but for half acquisition,
    where the detector is continued with zeros.

    Args:
        sinogram: (..., A, D), floating point, any device.
        fan: the scan.

    Returns:
        (..., A', D') of the same dtype and device, differentiable. Rays that the scan has not measured are 0, of which
        it warns.

    Raises:
        GeometryError: the sinogram does not fit the scan, or that has too few angles or cells.
    """
    check_array(sinogram, fan, "sinogram")
    if isinstance(fan, ParallelBeam):
        return _continued(sinogram, fan)
    return _apply(_Resample, sinogram, "rebin", fan)


def _continued(sinogram: Tensor, scan: ParallelBeam) -> Tensor:
    """A half acquisition on its wider detector, any other as it is."""
    if torch.compiler.is_compiling():
        from fbp_ray.projector.compiled import constant

        added = constant(_added, scan)
    else:
        added = _added(scan)
    return torch.nn.functional.pad(sinogram, added) if any(added) else sinogram


def _added(scan: ParallelBeam) -> tuple[int, int]:
    """The cells before and after the detector's own that `scan.parallel` has."""
    return (0, 0) if scan.parallel is scan else scan.parallel.added


def rebin_transpose(sinogram: Tensor, fan: FanBeam) -> Tensor:
    """The transpose of `rebin`: (..., A', D') -> (..., A, D), of the same dtype and device, differentiable.

    Raises:
        GeometryError: the sinogram does not fit `fan.parallel`, or the scan has too few angles or cells.
    """
    check_array(sinogram, fan.parallel, "sinogram")
    return _apply(_Spread, sinogram, "rebin", fan)


def rebin_variance(variance: Tensor, fan: FanBeam) -> Tensor:
    """The variance of each ray of `fan.parallel` from that of the fan's own, whose noise is independent.

    Rays near each other share samples, so their noise is no longer independent; `fbp_ray.filters.noise` allows for it.

    Args:
        variance: (..., A, D), floating point, any device.
        fan: the scan.

    Returns:
        (..., A', D') of the same dtype and device.

    Raises:
        GeometryError: as for `rebin`.
    """
    check_array(variance, fan, "sinogram")
    found = reference.squared(_on("rebin", fan, torch.float64, variance.device))
    batch = variance.reshape(math.prod(variance.shape[:-2]), *fan.sinogram_shape).double()
    result = reference.resample(batch, found).to(variance.dtype)
    return result.reshape(*variance.shape[:-2], *fan.parallel.sinogram_shape)


def project(image: Tensor, fan: FanBeam) -> Tensor:
    """Line integrals of an image along a fan beam's rays: interpolated from those of a finer parallel beam.

    Args:
        image: (..., H, W), floating point, any device; in 1/m for a sinogram without unit.
        fan: the scan.

    Returns:
        (..., A, D) of the same dtype and device, in the image's unit times metres, differentiable.

    Raises:
        GeometryError: the image does not fit the scan.
    """
    half = project_parallel(image, fine_parallel(fan))
    circle = torch.cat([half, half.flip(-1)], -2)  # the same rays from the other side
    return _apply(_Resample, circle, "project", fan)


def _apply(function: Any, array: Tensor, which: Which, fan: FanBeam) -> Tensor:
    batch = array.reshape(math.prod(array.shape[:-2]), *array.shape[-2:])  # -1 takes no empty batch
    batch = batch if array.dtype == torch.float64 else batch.float()
    if torch.compiler.is_compiling():
        from fbp_ray.projector.compiled import constant

        operator = reference.resample if function is _Resample else reference.spread
        result = operator(batch, constant(_on, which, fan, batch.dtype, batch.device))
    else:
        result = function.apply(batch, which, fan)
    return result.to(array.dtype).reshape(*array.shape[:-2], *result.shape[-2:])


@cached(4)
def _look_up(which: Which, fan: FanBeam, dtype: torch.dtype, device: torch.device) -> reference.Found:
    made = _made(which, fan, np.float64 if dtype == torch.float64 else np.float32)
    return reference.as_tensors(made, device)


def _made(which: Which, fan: FanBeam, dtype: Any) -> Tables:
    return (tables if which == "rebin" else projection_tables)(fan, dtype)


def _on(which: Which, fan: FanBeam, dtype: torch.dtype, device: torch.device) -> reference.Found:
    """The tables as tensors, as a plain function: a graph cannot call a cache."""
    return _look_up(which, fan, dtype, device)


class _Linear(torch.autograd.Function):
    """What both have in common: which tables, and of which scan, is all that their derivatives need."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.of = inputs[1:]


class _Resample(_Linear):
    @staticmethod
    def forward(sinogram: Tensor, which: Which, fan: FanBeam) -> Tensor:
        if (kernels := _kernels_for(sinogram)) is None:
            return reference.resample(sinogram, _on(which, fan, sinogram.dtype, sinogram.device))
        made = _made(which, fan, np.float32)
        result = sinogram.new_empty((len(sinogram), *made.shape))
        for one in range(len(sinogram)):  # its rows stay in the cache
            rows = torch.empty(made.order.size, made.cell.size, dtype=torch.float32, device="cpu").numpy()
            source, target = sinogram[one].detach().contiguous().numpy(), result[one].numpy()
            cells = functools.partial(kernels.along_cells, source, made.order, made.cell, made.cell_weights, rows)
            angles = functools.partial(kernels.along_angles, rows.reshape(-1), made.place, made.weights, target)
            parallel_for(cells, len(rows), _ROWS)
            parallel_for(angles, len(target), _ROWS)
        return result

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None, None]:
        return _apply(_Spread, gradient[0], *ctx.of), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _apply(_Resample, tangents[0], *ctx.of)

    @staticmethod
    def vmap(info: Any, in_dims: Any, sinogram: Tensor, which: Which, fan: FanBeam) -> tuple[Tensor, int]:
        return _apply(_Resample, sinogram.movedim(in_dims[0], 0), which, fan), 0


class _Spread(_Linear):
    @staticmethod
    def forward(sinogram: Tensor, which: Which, fan: FanBeam) -> Tensor:
        if (kernels := _kernels_for(sinogram)) is None:
            return reference.spread(sinogram, _on(which, fan, sinogram.dtype, sinogram.device))
        made = _made(which, fan, np.float32)
        result = sinogram.new_empty((len(sinogram), *made.source))
        rows = np.empty((len(sinogram), made.order.size, made.cell.size), np.float32)
        for one in range(len(sinogram)):
            source = sinogram[one].detach().contiguous().numpy()
            angles = functools.partial(kernels.to_angles, source, made.place, made.weights, rows[one])
            parallel_for(angles, -(-made.cell.size // 2), _COLUMNS)
        cells = functools.partial(kernels.to_cells, rows, made.order, made.cell, made.cell_weights, result.numpy())
        parallel_for(cells, len(sinogram), 1)
        return result

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None, None]:
        return _apply(_Resample, gradient[0], *ctx.of), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _apply(_Spread, tangents[0], *ctx.of)

    @staticmethod
    def vmap(info: Any, in_dims: Any, sinogram: Tensor, which: Which, fan: FanBeam) -> tuple[Tensor, int]:
        return _apply(_Spread, sinogram.movedim(in_dims[0], 0), which, fan), 0


def _kernels_for(array: Tensor) -> Any:
    """The module of the CPU kernels, where they serve such an array."""
    return _kernels() if array.is_cpu and array.dtype == torch.float32 else None


@functools.cache
def _kernels() -> Any:
    def load() -> Any:
        from fbp_ray.rebinning import kernels

        nothing = np.zeros((0, 1), np.float32)
        kernels.along_cells(nothing, np.zeros(0, np.int64), np.zeros(0, np.int32), nothing, nothing, 0, 0)
        return kernels

    return where_compiled("rebinning runs", load)
