"""Filtering along the detector: a real, even frequency response applied to zero-padded projections.

Written as one operation with its own gradient, because it then works a few hundred projections at a time, which stay
in the cache, and keeps no more than the sinogram's spectrum for the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fbp_ray.filters.ramp import fft_length

PROJECTIONS_AT_ONCE = 256  # 256 spectra of 541 complex64 are 1.1 MB: they stay in a core's own cache


def filter_projections(sinogram: Tensor, response: Tensor) -> Tensor:
    """Multiplies every projection's spectrum by `response`.

    Args:
        sinogram: (B, A, D), floating point.
        response: (F,) for all angles or (A, F), real, of the same dtype and device; F = fft_length(D) / 2 + 1.

    Returns:
        (B, A, D): the convolution of each zero-padded projection with the response's kernel, on the same cells.
    """
    result: Tensor = _FilterProjections.apply(sinogram, response)
    return result


class _FilterProjections(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sinogram: Tensor, response: Tensor) -> Tensor:
        length = fft_length(sinogram.shape[-1])
        keep_spectrum = ctx.needs_input_grad[1]
        spectrum = None
        if keep_spectrum:
            complex_dtype = torch.complex128 if sinogram.dtype == torch.float64 else torch.complex64
            spectrum = torch.empty((*sinogram.shape[:-1], length // 2 + 1), dtype=complex_dtype, device=sinogram.device)
        filtered = torch.empty_like(sinogram, memory_format=torch.contiguous_format)
        for sample, angles in _blocks(sinogram):
            block = torch.fft.rfft(sinogram[sample, angles], n=length)
            if spectrum is not None:
                spectrum[sample, angles] = block
            block *= _rows(response, angles)
            filtered[sample, angles] = torch.fft.irfft(block, n=length)[..., : sinogram.shape[-1]]
        ctx.save_for_backward(spectrum, response)
        return filtered

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        gradient = gradients[0]
        spectrum, response = ctx.saved_tensors
        length = fft_length(gradient.shape[-1])
        # A real and even response is a symmetric convolution: its transpose is itself.
        to_sinogram = filter_projections(gradient, response) if ctx.needs_input_grad[0] else None
        to_response = None
        if ctx.needs_input_grad[1]:
            to_response = torch.zeros_like(response)
            for sample, angles in _blocks(gradient):
                block = torch.fft.rfft(gradient[sample, angles], n=length)
                product = torch.view_as_real(block).mul_(torch.view_as_real(spectrum[sample, angles])).sum(-1)
                if response.ndim == 1:
                    to_response += product.sum(0)
                else:
                    to_response[angles] += product
            # Every frequency but the first and the last stands for its negative twin too.
            to_response *= 2 / length
            to_response[..., 0] /= 2
            to_response[..., -1] /= 2
        return to_sinogram, to_response


def _rows(response: Tensor, angles: slice) -> Tensor:
    return response if response.ndim == 1 else response[angles]


def _blocks(sinogram: Tensor) -> Iterator[tuple[int | slice, slice]]:
    """Index pairs that cover (B, A, D): a few hundred projections of one sample on a CPU, all at once elsewhere."""
    if sinogram.device.type != "cpu":
        yield slice(None), slice(None)
        return
    for sample in range(sinogram.shape[0]):
        for first in range(0, sinogram.shape[1], PROJECTIONS_AT_ONCE):
            yield sample, slice(first, first + PROJECTIONS_AT_ONCE)
