"""Filtering along the detector: a real, even frequency response applied to zero-padded projections.

Written as one operation with its own gradient, because it then works a few projections at a time, which stay in the
cache of the processor that works on them, and keeps no more than the sinogram's spectrum for the gradient.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fbp_ray.filters.ramp import fft_length
from fbp_ray.threads import parallel_for_torch

PROJECTIONS_AT_ONCE = 128  # the spectra of 128 projections of 513 cells are 0.6 MB: they stay in the processor's cache


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
