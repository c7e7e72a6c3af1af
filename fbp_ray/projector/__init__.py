"""Projection and backprojection: exact transposes of each other, in absolute units, differentiable.

    project:      (..., H, W) -> (..., A, D)     line integrals along the rays of the geometry
    backproject:  (..., A, D) -> (..., H, W)     its transpose: <backproject(y), x> = <y, project(x)>, scale 1

Both are linear, so the gradient of the one is the other and nothing but the geometry is kept for it. A filtered
backprojection takes the `backproject` that interpolates, and that has a transpose of its own for its gradient. The
device and the dtype choose the kernel; `reference` says what all of them compute.

    CPU     float32             Numba kernels
    CUDA    float32, float16    Triton kernels, which sum in float32
    all other                   `reference`, slowly: float64 is for checking gradients, and a device without a kernel
                                warns once, as does a CPU for which the kernels cannot be compiled
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from fbp_ray.caches import signature_kept
from fbp_ray.errors import GeometryError
from fbp_ray.geometry import FanBeam, Geometry, ParallelBeam, check_tensor
from fbp_ray.gpus import has_triton
from fbp_ray.projector import reference

Operator = Callable[[Tensor, ParallelBeam, bool], Tensor]


class Kernel(NamedTuple):
    """The two operators of one implementation: (array with one batch dimension, geometry, interpolate)."""

    backproject: Operator
    project: Operator


REFERENCE = Kernel(reference.backproject, reference.project)


def kernel_for(device: torch.device, dtype: torch.dtype, storage_dtype: torch.dtype | None = None) -> Kernel:
    """The implementation that arrays of this device and dtype are given to: the one place where a new one is added."""
    if device.type == "cpu" and dtype == torch.float32:
        return _cpu_kernel()
    if device.type == "cuda" and dtype in (torch.float32, torch.float16) and has_triton():
        from fbp_ray.projector import gpu  # here, not above: triton need not be installed

        return Kernel(functools.partial(gpu.backproject, storage_dtype=storage_dtype), gpu.project)
    if device.type != "cpu" and dtype != torch.float64:
        _warn_of_reference(device.type, _reason(device.type))
    return REFERENCE


@functools.cache
def _cpu_kernel() -> Kernel:
    """The kernels in Numba, and the reference where they cannot be compiled."""
    try:
        from fbp_ray.projector import cpu  # here, not above: numba takes half a second to import
        from fbp_ray.projector.compiler import CompileError
    except Exception as error:  # another version of Numba or llvmlite may raise anything
        _warn_of_reference("cpu", f"its kernels cannot be compiled: {type(error).__name__}: {error}")
        return REFERENCE

    def with_reference(operator: Operator, definition: Operator) -> Operator:
        def either(array: Tensor, geometry: ParallelBeam, interpolate: bool) -> Tensor:
            try:
                return operator(array, geometry, interpolate)
            except CompileError as error:
                _warn_of_reference("cpu", f"its kernels cannot be compiled: {error}")
                return definition(array, geometry, interpolate)

        return either

    return Kernel(*(with_reference(*pair) for pair in zip((cpu.backproject, cpu.project), REFERENCE, strict=True)))


def _reason(device_type: str) -> str:
    if device_type == "cuda" and not has_triton():
        return "triton, which its kernels are written in, is not installed: pip install triton"
    if device_type == "cuda":
        return "its kernels take float32 and float16: convert the array to one of them"
    return f"there are kernels for the CPU and for CUDA only, none for {device_type}"


@functools.cache
def _warn_of_reference(device_type: str, reason: str) -> None:
    """Warns once for each type of device and reason."""
    warnings.warn(
        f"projection and backprojection on {device_type} run in plain torch, many times slower than they could, "
        f"because {reason}",
        stacklevel=2,
    )


def where_compiled(what_runs: str, load: Callable[[], Any]) -> Any:
    """Kernels of other parts in Numba; None, with a warning, where they cannot be compiled. Keep the result.

    Args:
        what_runs: what is slow without them, for example "SSIM runs".
        load: imports the kernels, since Numba takes half a second to import, and calls one, which compiles it.
    """
    try:
        return load()
    except Exception as error:  # another version of Numba or llvmlite may raise anything
        warnings.warn(
            f"{what_runs} in plain torch, several times slower than with kernels, which cannot be compiled: "
            f"{type(error).__name__}: {error}",
            stacklevel=2,
        )
        return None


def backproject(
    sinogram: Tensor,
    geometry: ParallelBeam,
    storage_dtype: torch.dtype | None = None,
    *,
    interpolate: bool = False,
) -> Tensor:
    """The transpose of `project`: every pixel gathers from the rays that pass through it.

    Args:
        sinogram: (..., A, D), floating point, any device.
        geometry: the scan and the image grid.
        storage_dtype: what a CUDA kernel keeps the sinogram as while it reads it, the sinogram's own dtype unless said.
            torch.float16 halves what it reads, each sample scaled by its largest value; sums and result stay as they
            are. It changes the sinogram by up to 5e-4 of each value, and values below 2e-9 of the largest by more.
            Other devices and the gradient ignore it.
        interpolate: read each projection where a pixel's centre falls, between two cells, rather than over the width of
            the pixel. It is sharper, and what a filtered backprojection does. It is the transpose of `project` only
            where pixels and cells are alike in size, to within 1 %; its gradient is right in any case.

    Returns:
        (..., H, W) of the same dtype and device. For a filtered backprojection use `fbp_ray.fbp`, which weighs the
        angles and scales to absolute units.

    Raises:
        GeometryError: the last two dimensions are not (A, D), or the dtype is not a floating one.
    """
    return _apply(_Backproject, sinogram, geometry, "sinogram", interpolate, storage_dtype)


def backproject_filtered(sinogram: Tensor, geometry: Geometry, storage_dtype: torch.dtype | None = None) -> Tensor:
    """`backproject`, interpolating, of a filtered sinogram (B, A', D') of `geometry.parallel`."""
    if torch.compiler.is_compiling():
        from fbp_ray.projector import compiled

        text = compiled.text_of_parallel(geometry)
        return compiled.backproject_op(sinogram, text, True, storage_dtype)  # type: ignore[no-any-return]
    return backproject(sinogram, geometry.parallel, storage_dtype, interpolate=True)


def project(image: Tensor, geometry: Geometry) -> Tensor:
    """Line integrals of an image: every pixel is shared among the cells that its width covers.

    Args:
        image: (..., H, W), floating point, any device; in 1/m for a sinogram without unit.
        geometry: the scan and the image grid. A fan beam's rays are interpolated from those of a finer parallel beam:
            see `fbp_ray.rebinning.project`.

    Returns:
        (..., A, D) of the same dtype and device, in the image's unit times metres.

    Raises:
        GeometryError: the last two dimensions are not (H, W), or the dtype is not a floating one.
    """
    if isinstance(geometry, FanBeam):
        from fbp_ray import rebinning  # here, not above: it projects with this

        return rebinning.project(image, geometry)
    return _apply(_Project, image, geometry, "image", False)


def check_array(array: Tensor, geometry: Geometry, kind: Literal["sinogram", "image"]) -> None:
    """Raises GeometryError where `array` is no floating-point tensor of the shape that the geometry says."""
    check_tensor(array, f"a {kind}" if kind == "sinogram" else "an image")
    geometry.check(array, kind)
    if not array.is_floating_point():
        raise GeometryError(
            f"a {kind} holds floating-point numbers, but this one is {array.dtype}; convert it: .float()"
        )


def _apply(
    function: Any, array: Tensor, geometry: ParallelBeam, kind: Literal["sinogram", "image"], *options: Any
) -> Tensor:
    check_array(array, geometry, kind)
    if isinstance(geometry, FanBeam):
        raise GeometryError(
            "a fan beam's sinogram cannot be backprojected as it is: rebin it, fbp_ray.rebinning.rebin(sinogram, fan), "
            "and backproject with fan.parallel; fbp_ray.fbp does both"
        )
    batch = array.reshape(math.prod(array.shape[:-2]), *array.shape[-2:])  # -1 takes no empty batch
    if array.dtype not in (torch.float32, torch.float64) and (array.dtype, array.device.type) != (
        torch.float16,
        "cuda",
    ):
        batch = batch.float()
    if torch.compiler.is_compiling():
        from fbp_ray.projector import compiled

        operator = compiled.backproject_op if kind == "sinogram" else compiled.project_op
        result: Tensor = operator(batch, compiled.text_of(geometry), *options)
    else:
        result = function.apply(batch, geometry, *options)
    return result.to(array.dtype).reshape(*array.shape[:-2], *result.shape[-2:])


class _Linear(torch.autograd.Function):
    """What both operators have in common: the geometry and how it is read are all that their derivatives need."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.geometry, ctx.interpolate = inputs[1:3]


class _Backproject(_Linear):
    @staticmethod
    @signature_kept
    def forward(
        sinogram: Tensor, geometry: ParallelBeam, interpolate: bool, storage_dtype: torch.dtype | None
    ) -> Tensor:
        return kernel_for(sinogram.device, sinogram.dtype, storage_dtype).backproject(sinogram, geometry, interpolate)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _apply(_Project, gradient[0], ctx.geometry, "image", ctx.interpolate), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return backproject(tangents[0], ctx.geometry, interpolate=ctx.interpolate)

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, sinogram: Tensor, geometry: ParallelBeam, interpolate: bool, storage: Any
    ) -> tuple[Tensor, int]:
        return backproject(sinogram.movedim(in_dims[0], 0), geometry, storage, interpolate=interpolate), 0


class _Project(_Linear):
    @staticmethod
    @signature_kept
    def forward(image: Tensor, geometry: ParallelBeam, interpolate: bool) -> Tensor:
        return kernel_for(image.device, image.dtype).project(image, geometry, interpolate)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None, None]:
        return backproject(gradient[0], ctx.geometry, interpolate=ctx.interpolate), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _apply(_Project, tangents[0], ctx.geometry, "image", ctx.interpolate)

    @staticmethod
    def vmap(info: Any, in_dims: Any, image: Tensor, geometry: ParallelBeam, interpolate: bool) -> tuple[Tensor, int]:
        return _apply(_Project, image.movedim(in_dims[0], 0), geometry, "image", interpolate), 0
