"""Filtering along the detector: the ramp, and the product of a zero-padded projection's spectrum with a response.

The product is one operation with its own gradient. So it can work on a few projections at a time, which stay in the
cache of the processor that works on them, and keeps no more than the sinogram's spectrum for the gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fbp_ray.caches import signature_kept
from fbp_ray.errors import GeometryError
from fbp_ray.geometry import check_tensor
from fbp_ray.gpus import has_triton
from fbp_ray.threads import parallel_for_torch

FEW_CELLS = 256
PROJECTIONS_AT_ONCE = 128  # the spectra of 128 projections of 513 cells are 0.6 MB: they stay in the processor's cache
SAMPLES_AT_ONCE = 16  # on a GPU: 140 MB of spectra of LoDoPaB-CT's


def fft_length(cells: int) -> int:
    """The length that a projection of `cells` cells is zero-padded to: 1080 for 513.

    At least 2 D - 1, so that the filtering does not wrap around; even, so that there is a Nyquist frequency; without
    prime factors beyond 5, so that the FFT is fast.
    """
    length = 2 * cells
    while not _is_smooth(length):
        length += 2
    return length


def shortest_length(cells: int) -> int:
    """The shortest even length without prime factors beyond 5 that a projection can be padded to: 1024 for 513.

    At least 2 D - 2: the farthest two cells are D - 1 apart, and a symmetric filter is the same to either side, so that
    the one lag that wraps around meets the value it should. `fft_length` is longer only because the tables of windows
    have a weight for each of its frequencies. That is too coarse for few
    cells, where speed does not matter.
    """
    if cells < FEW_CELLS:
        return fft_length(cells)
    length = max(2 * cells - 2, 2)
    while not _is_smooth(length):
        length += 2
    return length


def _is_smooth(number: int) -> bool:
    for prime in (2, 3, 5):
        while number % prime == 0:
            number //= prime
    return number == 1


def frequencies(cells: int, length: int | None = None) -> NDArray[np.float64]:
    """The frequencies of the padded rfft as fractions of the Nyquist frequency, 0 .. 1, shape (F,)."""
    length = length or fft_length(cells)
    return np.arange(length // 2 + 1) / (length // 2)


def ramp(cells: int, cell_size: float, length: int | None = None) -> NDArray[np.float64]:
    """The frequency response of the ramp filter in cycles a metre, shape (F,), F = length / 2 + 1.

    The transform of the band-limited kernel h[0] = 1 / (4 d^2), h[n odd] = -1 / (pi n d)^2, h[n even] = 0 (Kak and
    Slaney, Principles of Computerized Tomographic Imaging, 1988, section 3.3), times d for the convolution sum.
    Sampling |f| instead would set the response at 0 to exactly 0 and bias the image.
    """
    length = length or fft_length(cells)
    n = np.minimum(np.arange(length), length - np.arange(length))
    kernel = np.zeros(length)
    kernel[0] = 1 / (4 * cell_size**2)
    odd = n % 2 == 1
    kernel[odd] = -1 / (np.pi * n[odd] * cell_size) ** 2
    return np.ascontiguousarray(np.fft.rfft(kernel).real * cell_size)


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
        return _filtered(sinogram, response, keep)

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
        return to_sinogram, _correlated(gradient, spectrum, response.ndim == 2), None

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
        return _correlated(gradient, _spectrum(sinogram), by_angle)

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
    return _filtered(sinogram, response, keep=False)[0]


@filter_op.register_fake
def _(sinogram: Tensor, response: Tensor) -> Tensor:
    return torch.empty_like(sinogram, memory_format=torch.contiguous_format)


@torch.library.custom_op("fbp_ray::correlate_projections", mutates_args=())
def correlate_op(gradient: Tensor, sinogram: Tensor, by_angle: bool) -> Tensor:
    """The gradient of <gradient, filter_projections(sinogram, response)> to the response: (F,) or (A, F)."""
    return _correlated(gradient, _spectrum(sinogram), by_angle)


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


def _filtered(sinogram: Tensor, response: Tensor, keep: bool) -> tuple[Tensor, Tensor | None]:
    """The filtered sinogram, and its spectra before filtering if they are to be kept."""
    cells = sinogram.shape[-1]
    if not keep and _by_pairs(sinogram, response):
        from fbp_ray.filters.pairs import filter_pairs  # here, not above: triton need not be installed

        return filter_pairs(sinogram.contiguous(), response, fft_length(cells)), None
    length = fft_length(cells)
    spectrum = _empty_spectrum(sinogram) if keep else None
    filtered = torch.empty_like(sinogram, memory_format=torch.contiguous_format)
    parts = _parts(sinogram)

    def filter_part(number: int) -> None:
        part = parts[number]
        block = torch.fft.rfft(sinogram[part], n=length)
        if spectrum is not None:
            spectrum[part] = block
        block *= _rows(response, part[1])
        filtered[part] = torch.fft.irfft(block, n=length)[..., :cells]

    _each(filter_part, len(parts), sinogram)
    return filtered, spectrum


def _by_pairs(sinogram: Tensor, response: Tensor) -> bool:
    """Whether two projections of a sample can be filtered at a time: on a GPU, with one response for all angles."""
    alike = response.ndim == 1 and sinogram.shape[1] % 2 == 0 and sinogram.shape[0] > 0
    return alike and sinogram.device.type == "cuda" and sinogram.dtype == torch.float32 and has_triton()


def _spectrum(sinogram: Tensor) -> Tensor:
    spectrum, parts = _empty_spectrum(sinogram), _parts(sinogram)

    def transform_part(number: int) -> None:
        part = parts[number]
        spectrum[part] = torch.fft.rfft(sinogram[part], n=fft_length(sinogram.shape[-1]))

    _each(transform_part, len(parts), sinogram)
    return spectrum


def _empty_spectrum(sinogram: Tensor) -> Tensor:
    dtype = torch.complex128 if sinogram.dtype == torch.float64 else torch.complex64
    return sinogram.new_empty((*sinogram.shape[:-1], fft_length(sinogram.shape[-1]) // 2 + 1), dtype=dtype)


def _correlated(gradient: Tensor, spectrum: Tensor, by_angle: bool) -> Tensor:
    """The sum over the samples of conj(spectrum) x the gradient's spectrum: (F,), or (A, F) by angle."""
    length = fft_length(gradient.shape[-1])
    samples, blocks = _samples(gradient), _blocks(gradient)
    rows = gradient.shape[1] if by_angle else len(blocks)
    to_weights = gradient.new_zeros((rows, spectrum.shape[-1]))

    def correlate_block(number: int) -> None:
        angles = blocks[number]
        target = to_weights[angles] if by_angle else to_weights[number]
        for part in samples:
            block = torch.fft.rfft(gradient[part, angles], n=length)
            block *= spectrum[part, angles].conj_physical()  # a lazy one gets lost in compiled graphs
            total = block.real if isinstance(part, int) else block.real.sum(0)
            target += total if by_angle else total.sum(0)

    _each(correlate_block, len(blocks), gradient)
    to_response = to_weights if by_angle else to_weights.sum(0)
    # Every frequency but the first and the last stands for its negative twin too.
    to_response *= 2 / length
    to_response[..., 0] /= 2
    to_response[..., -1] /= 2
    return to_response


def _rows(response: Tensor, angles: slice) -> Tensor:
    return response if response.ndim == 1 else response[angles]


def _parts(sinogram: Tensor) -> list[tuple[int | slice, slice]]:
    """The samples and angles of (B, A, D) that are filtered at a time."""
    return [(part, angles) for part in _samples(sinogram) for angles in _blocks(sinogram)]


def _samples(sinogram: Tensor) -> list[int] | list[slice]:
    """The samples of (B, A, D): one at a time on a CPU, many elsewhere."""
    if sinogram.device.type == "cpu":
        return list(range(sinogram.shape[0]))
    return _slices(sinogram.shape[0], SAMPLES_AT_ONCE)


def _blocks(sinogram: Tensor) -> list[slice]:
    """The angles of (B, A, D) in parts: few at a time on a CPU, all at once elsewhere."""
    angles = sinogram.shape[1]
    return _slices(angles, PROJECTIONS_AT_ONCE if sinogram.device.type == "cpu" else angles)


def _slices(length: int, size: int) -> list[slice]:
    return [slice(begin, begin + size) for begin in range(0, length, size)]


def _each(task: Any, count: int, like: Tensor) -> None:
    if like.device.type == "cpu":
        parallel_for_torch(task, count)
        return
    for number in range(count):
        task(number)
