"""Filtering along the detector: the ramp, and the product of a zero-padded projection's spectrum with a response.

The product is one operation with its own gradient. So it can work on a few projections at a time, which stay in the
cache of the processor that works on them, and keeps no more than the sinogram's spectrum for the gradient.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fbp_ray.threads import parallel_for_torch

PROJECTIONS_AT_ONCE = 128  # the spectra of 128 projections of 513 cells are 0.6 MB: they stay in the processor's cache


def fft_length(cells: int) -> int:
    """The length that a projection of `cells` cells is zero-padded to: 1080 for 513.

    At least 2 D - 1, so that the filtering does not wrap around; even, so that there is a Nyquist frequency; without
    prime factors beyond 5, so that the FFT is fast.
    """
    length = 2 * cells
    while not _is_smooth(length):
        length += 2
    return length


def _is_smooth(number: int) -> bool:
    for prime in (2, 3, 5):
        while number % prime == 0:
            number //= prime
    return number == 1


def frequencies(cells: int) -> NDArray[np.float64]:
    """The frequencies of the padded rfft as fractions of the Nyquist frequency, 0 .. 1, shape (F,)."""
    length = fft_length(cells)
    return np.arange(length // 2 + 1) / (length // 2)


def ramp(cells: int, cell_size: float) -> NDArray[np.float64]:
    """The frequency response of the ramp filter in cycles a metre, shape (F,), F = fft_length(D) / 2 + 1.

    The transform of the band-limited kernel h[0] = 1 / (4 d^2), h[n odd] = -1 / (pi n d)^2, h[n even] = 0 (Kak and
    Slaney, Principles of Computerized Tomographic Imaging, 1988, section 3.3), times d for the convolution sum.
    Sampling |f| instead would set the response at 0 to exactly 0 and bias the image.
    """
    length = fft_length(cells)
    n = np.minimum(np.arange(length), length - np.arange(length))
    kernel = np.zeros(length)
    kernel[0] = 1 / (4 * cell_size**2)
    odd = n % 2 == 1
    kernel[odd] = -1 / (np.pi * n[odd] * cell_size) ** 2
    return np.ascontiguousarray(np.fft.rfft(kernel).real * cell_size)


def filter_projections(sinogram: Tensor, response: Tensor) -> Tensor:
    """Multiplies every projection's spectrum by `response`.

    Args:
        sinogram: (B, A, D), floating point.
        response: (F,) for all angles or (A, F), real, of the same dtype and device; F = fft_length(D) / 2 + 1.

    Returns:
        (B, A, D): the convolution of each zero-padded projection with the response's kernel, on the same cells. On a
        CPU it does not depend on the number of threads.
    """
    result: Tensor = _FilterProjections.apply(sinogram, response)
    return result


class _FilterProjections(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sinogram: Tensor, response: Tensor) -> Tensor:
        cells = sinogram.shape[-1]
        length = fft_length(cells)
        spectrum = None
        if ctx.needs_input_grad[1]:
            complex_dtype = torch.complex128 if sinogram.dtype == torch.float64 else torch.complex64
            spectrum = sinogram.new_empty((*sinogram.shape[:-1], length // 2 + 1), dtype=complex_dtype)
        filtered = torch.empty_like(sinogram, memory_format=torch.contiguous_format)
        blocks = _blocks(sinogram)

        def filter_block(number: int) -> None:
            sample, angles = number // len(blocks), blocks[number % len(blocks)]
            block = torch.fft.rfft(sinogram[sample, angles], n=length)
            if spectrum is not None:
                spectrum[sample, angles] = block
            block *= _rows(response, angles)
            filtered[sample, angles] = torch.fft.irfft(block, n=length)[..., :cells]

        _each(filter_block, sinogram.shape[0] * len(blocks), sinogram)
        ctx.save_for_backward(spectrum, response)
        return filtered

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        gradient = gradients[0]
        spectrum, response = ctx.saved_tensors
        length = fft_length(gradient.shape[-1])
        # A real and even response is a symmetric convolution: its transpose is itself.
        to_sinogram = filter_projections(gradient, response) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return to_sinogram, None

        blocks = _blocks(gradient)
        shared = response.ndim == 1
        to_weights = gradient.new_zeros((len(blocks), response.shape[-1]) if shared else tuple(response.shape))

        def correlate_block(number: int) -> None:
            angles = blocks[number]
            target = to_weights[number] if shared else to_weights[angles]
            for sample in range(gradient.shape[0]):
                block = torch.fft.rfft(gradient[sample, angles], n=length)
                block *= spectrum[sample, angles].conj()
                target += block.real.sum(0) if shared else block.real

        _each(correlate_block, len(blocks), gradient)
        to_response = to_weights.sum(0) if shared else to_weights
        # Every frequency but the first and the last stands for its negative twin too.
        to_response *= 2 / length
        to_response[..., 0] /= 2
        to_response[..., -1] /= 2
        return to_sinogram, to_response


def _rows(response: Tensor, angles: slice) -> Tensor:
    return response if response.ndim == 1 else response[angles]


def _blocks(sinogram: Tensor) -> list[slice]:
    """The angles of (B, A, D) in parts: few at a time on a CPU, all at once elsewhere."""
    angles = sinogram.shape[1]
    size = PROJECTIONS_AT_ONCE if sinogram.device.type == "cpu" else angles
    return [slice(number * size, (number + 1) * size) for number in range(math.ceil(angles / size))]


def _each(task: Any, count: int, like: Tensor) -> None:
    if like.device.type == "cpu":
        parallel_for_torch(task, count)
        return
    for number in range(count):
        task(number)
