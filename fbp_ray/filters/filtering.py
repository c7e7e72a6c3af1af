"""Filtering along the detector as one differentiable operation.

Having its own gradient, it keeps no more than the sinogram's spectra for that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fbp_ray.caches import signature_kept
from fbp_ray.errors import GeometryError
from fbp_ray.filters.ramp import fft_length
from fbp_ray.filters.spectra import correlated, filtered, spectra
from fbp_ray.geometry import check_tensor


def filter_projections(sinogram: Tensor, response: Tensor) -> Tensor:
    """Multiplies every projection's spectrum by `response`.

    Args:
        sinogram: (B, A, D), floating point; half precision is filtered in float32.
        response: (F,) for all angles or (A, F), real, on the same device; F = fft_length(D) / 2 + 1.

    Returns:
        (B, A, D) of the sinogram's dtype: the convolution of each zero-padded projection with the response's kernel, on
        the same cells. On a CPU it does not depend on the number of threads. Differentiable any number of times.

    Raises:
        GeometryError: no torch tensors of floating-point numbers are given, or their shapes do not fit.
    """
    check_tensor(sinogram, "a sinogram")
    check_tensor(response, "a response")
    if not sinogram.is_floating_point():
        raise GeometryError(f"a sinogram holds floating-point numbers, but this one is {sinogram.dtype}: .float()")
    if response.is_complex():
        raise GeometryError(f"a response is real, but this one is {response.dtype}: .real")
    if sinogram.ndim != 3:
        raise GeometryError(
            f"a sinogram has the shape (samples, angles, cells), but this one is {tuple(sinogram.shape)}"
        )
    angles, cells = sinogram.shape[1:]
    count = fft_length(cells) // 2 + 1
    if tuple(response.shape) not in ((count,), (angles, count)):
        raise GeometryError(
            f"for {angles} angles of {cells} cells a response has the shape ({count},) or ({angles}, {count}), but "
            f"this one is {tuple(response.shape)}; frequencies({cells}) gives its frequencies"
        )
    dtype = torch.float64 if sinogram.dtype == torch.float64 else torch.float32
    return _filter(sinogram.to(dtype), response.to(dtype)).to(sinogram.dtype)


def _filter(sinogram: Tensor, response: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        return filter_op(sinogram, response)  # type: ignore[no-any-return]
    keep = response.requires_grad and torch.is_grad_enabled()
    return _FilterProjections.apply(sinogram, response, keep)[0]  # type: ignore[no-any-return]


def _correlate(gradient: Tensor, sinogram: Tensor, response: Tensor) -> Tensor:
    """The gradient of <gradient, filter_projections(sinogram, response)> to the response, of its shape."""
    if torch.compiler.is_compiling():
        return correlate_op(gradient, sinogram, response.ndim == 2)  # type: ignore[no-any-return]
    return _Correlate.apply(gradient, sinogram, response.ndim == 2)  # type: ignore[no-any-return]


class _FilterProjections(torch.autograd.Function):
    """The filtered projections and, if they are to be kept for the gradient, the spectra of the sinogram."""

    @staticmethod
    @signature_kept
    def forward(sinogram: Tensor, response: Tensor, keep: bool) -> tuple[Tensor, Tensor | None]:
        return filtered(sinogram, response, keep)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        sinogram, response, _ = inputs
        if output[1] is not None:
            ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(sinogram, response, output[1])
        ctx.save_for_forward(sinogram, response)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        gradient = gradients[0]
        if gradient is None:
            return None, None, None
        sinogram, response, spectrum = ctx.saved_tensors
        # A real and even response is a symmetric convolution: its transpose is itself.
        to_sinogram = _filter(gradient, response) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return to_sinogram, None, None
        if spectrum is None or torch.is_grad_enabled():  # a second derivative is wanted
            return to_sinogram, _correlate(gradient, sinogram, response), None
        return to_sinogram, correlated(gradient, spectrum, response.ndim == 2), None

    @staticmethod
    def jvp(ctx: Any, along: Tensor | None, response_along: Tensor | None, _: None) -> tuple[Tensor | None, None]:
        sinogram, response = ctx.saved_tensors
        parts = [_filter(along, response)] if along is not None else []
        parts += [_filter(sinogram, response_along)] if response_along is not None else []
        return (parts[0] + parts[1] if len(parts) == 2 else parts[0]), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, sinogram: Tensor, response: Tensor, keep: bool) -> tuple[Any, Any]:
        result = _filter_many(info, in_dims[:2], sinogram, response)
        return (result[0], None), (result[1], None)


class _Correlate(torch.autograd.Function):
    @staticmethod
    @signature_kept
    def forward(gradient: Tensor, sinogram: Tensor, by_angle: bool) -> Tensor:
        return correlated(gradient, spectra(sinogram), by_angle)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])
        ctx.by_angle = inputs[2]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        gradient, sinogram = ctx.saved_tensors
        return (
            _filter(sinogram, gradients[0]) if ctx.needs_input_grad[0] else None,
            _filter(gradient, gradients[0]) if ctx.needs_input_grad[1] else None,
            None,
        )

    @staticmethod
    def jvp(ctx: Any, along: Tensor | None, sinogram_along: Tensor | None, _: None) -> Tensor:
        gradient, sinogram = ctx.saved_tensors
        parts = [_Correlate.apply(along, sinogram, ctx.by_angle)] if along is not None else []
        parts += [_Correlate.apply(gradient, sinogram_along, ctx.by_angle)] if sinogram_along is not None else []
        return parts[0] + parts[1] if len(parts) == 2 else parts[0]  # type: ignore[no-any-return]

    @staticmethod
    def vmap(info: Any, in_dims: Any, gradient: Tensor, sinogram: Tensor, by_angle: bool) -> tuple[Tensor, int]:
        return _correlate_many(info, in_dims, gradient, sinogram, by_angle)


def _spread(info: Any, in_dims: Any, *arrays: Tensor) -> list[Tensor]:
    """The arrays with the dimension that vmap goes along in front, also where one has none."""
    return [
        array.expand(info.batch_size, *array.shape) if dim is None else array.movedim(dim, 0)
        for array, dim in zip(arrays, in_dims, strict=True)
    ]


def _filter_many(info: Any, in_dims: Any, sinogram: Tensor, response: Tensor) -> tuple[Tensor, int]:
    if in_dims[1] is None:
        (many,) = _spread(info, in_dims[:1], sinogram)
        return _filter(many.flatten(0, 1), response).reshape(many.shape), 0
    many, responses = _spread(info, in_dims, sinogram, response)
    return torch.stack([_filter(one, other) for one, other in zip(many, responses, strict=True)]), 0


def _correlate_many(info: Any, in_dims: Any, gradient: Tensor, sinogram: Tensor, by_angle: bool) -> tuple[Tensor, int]:
    many, others = _spread(info, in_dims[:2], gradient, sinogram)
    like = gradient.new_empty((1, 1) if by_angle else (1,))
    return torch.stack([_correlate(one, other, like) for one, other in zip(many, others, strict=True)]), 0


# The same as operators of torch.library, for torch.compile and torch.export, which do not look into an operator.


@torch.library.custom_op("fbp_ray::filter_projections", mutates_args=())
def filter_op(sinogram: Tensor, response: Tensor) -> Tensor:
    """See `filter_projections`; float32 or float64."""
    return filtered(sinogram, response, keep=False)[0]


@filter_op.register_fake
def _(sinogram: Tensor, response: Tensor) -> Tensor:
    return torch.empty_like(sinogram, memory_format=torch.contiguous_format)


@torch.library.custom_op("fbp_ray::correlate_projections", mutates_args=())
def correlate_op(gradient: Tensor, sinogram: Tensor, by_angle: bool) -> Tensor:
    """The gradient of <gradient, filter_projections(sinogram, response)> to the response: (F,) or (A, F)."""
    return correlated(gradient, spectra(sinogram), by_angle)


@correlate_op.register_fake
def _(gradient: Tensor, sinogram: Tensor, by_angle: bool) -> Tensor:
    count = fft_length(gradient.shape[-1]) // 2 + 1
    return gradient.new_empty((gradient.shape[1], count) if by_angle else (count,))


def _save_both(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])


def _filter_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
    sinogram, response = ctx.saved_tensors
    return (
        filter_op(gradient, response) if ctx.needs_input_grad[0] else None,
        correlate_op(gradient, sinogram, response.ndim == 2) if ctx.needs_input_grad[1] else None,
    )


def _correlate_backward(ctx: Any, along: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    gradient, sinogram = ctx.saved_tensors
    return (
        filter_op(sinogram, along) if ctx.needs_input_grad[0] else None,
        filter_op(gradient, along) if ctx.needs_input_grad[1] else None,
        None,
    )


filter_op.register_autograd(_filter_backward, setup_context=_save_both)
filter_op.register_vmap(_filter_many)
correlate_op.register_autograd(_correlate_backward, setup_context=_save_both)
correlate_op.register_vmap(_correlate_many)
