"""The operators as custom operators of torch.library, for torch.compile and torch.export, which cannot look into them.

`project` and `backproject` use these while a graph is traced, and import this module only then: it loads torch's
compiler. Custom operators take arguments of simple types, so the geometry comes as its JSON form.

Dimensions: B batch, A angles, D detector cells, H and W the image's axes.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from fbp_ray.geometry import Geometry, ParallelBeam
from fbp_ray.projector import kernel_for


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def constant(function: Any, *arguments: Any) -> Any:
    """What a function returns for these arguments; a graph takes it for a constant."""
    return function(*arguments)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def text_of(geometry: ParallelBeam) -> str:
    """A geometry as JSON; a graph takes it for a constant."""
    return geometry.model_dump_json(include=set(ParallelBeam.model_fields))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def text_of_parallel(geometry: Geometry) -> str:
    """What a scan is filtered and backprojected in, as JSON."""
    return geometry.parallel.model_dump_json(include=set(ParallelBeam.model_fields))


@functools.lru_cache(maxsize=32)
def _geometry_of(text: str) -> ParallelBeam:
    return ParallelBeam.model_validate_json(text)


@torch.library.custom_op("fbp_ray::backproject", mutates_args=())
def backproject_op(
    sinogram: Tensor, geometry: str, interpolate: bool, storage_dtype: torch.dtype | None = None
) -> Tensor:
    """See `backproject`: (B, A, D) -> (B, H, W)."""
    kernel = kernel_for(sinogram.device, sinogram.dtype, storage_dtype)
    return kernel.backproject(sinogram, _geometry_of(geometry), interpolate)


@torch.library.custom_op("fbp_ray::project", mutates_args=())
def project_op(image: Tensor, geometry: str, interpolate: bool) -> Tensor:
    """The transpose of `backproject`: (B, H, W) -> (B, A, D)."""
    return kernel_for(image.device, image.dtype).project(image, _geometry_of(geometry), interpolate)


@backproject_op.register_fake
def _(sinogram: Tensor, geometry: str, interpolate: bool, storage_dtype: torch.dtype | None = None) -> Tensor:
    return sinogram.new_empty((sinogram.shape[0], *_geometry_of(geometry).image_shape))


@project_op.register_fake
def _(image: Tensor, geometry: str, interpolate: bool) -> Tensor:
    return image.new_empty((image.shape[0], *_geometry_of(geometry).sinogram_shape))


def _keep_geometry(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.geometry, ctx.interpolate = inputs[1:3]


def _many(op: Any) -> Any:
    def apply(info: Any, in_dims: Any, array: Tensor, *options: Any) -> tuple[Tensor, int]:
        many = array.movedim(in_dims[0], 0)
        return op(many.flatten(0, 1), *options).unflatten(0, many.shape[:2]), 0

    return apply


backproject_op.register_autograd(
    lambda ctx, gradient: (project_op(gradient, ctx.geometry, ctx.interpolate), None, None, None),
    setup_context=_keep_geometry,
)
project_op.register_autograd(
    lambda ctx, gradient: (backproject_op(gradient, ctx.geometry, ctx.interpolate), None, None),
    setup_context=_keep_geometry,
)
backproject_op.register_vmap(_many(backproject_op))
project_op.register_vmap(_many(project_op))
