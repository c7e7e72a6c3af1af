"""The arithmetic of filtering: the product of zero-padded projections' spectra with a response, and its gradient.

It works on a few projections at a time, which stay in the cache of the processor that works on them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fbp_ray.filters.ramp import fft_length
from fbp_ray.gpus import has_triton
from fbp_ray.threads import parallel_for_torch

PROJECTIONS_AT_ONCE = 128  # the spectra of 128 projections of 513 cells are 0.6 MB: they stay in the processor's cache
SAMPLES_AT_ONCE = 16  # on a GPU: 140 MB of spectra of LoDoPaB-CT's


def filtered(sinogram: Tensor, response: Tensor, keep: bool) -> tuple[Tensor, Tensor | None]:
    """The filtered sinogram, and its spectra before filtering if they are to be kept."""
    cells = sinogram.shape[-1]
    if not keep and _by_pairs(sinogram, response):
        from fbp_ray.filters.pairs import filter_pairs  # here, not above: triton need not be installed

        return filter_pairs(sinogram.contiguous(), response, fft_length(cells)), None
    length = fft_length(cells)
    spectrum = _empty_spectra(sinogram) if keep else None
    result = torch.empty_like(sinogram, memory_format=torch.contiguous_format)
    parts = _parts(sinogram)

    def filter_part(number: int) -> None:
        part = parts[number]
        block = torch.fft.rfft(sinogram[part], n=length)
        if spectrum is not None:
            spectrum[part] = block
        block *= _rows(response, part[1])
        result[part] = torch.fft.irfft(block, n=length)[..., :cells]

    _each(filter_part, len(parts), sinogram)
    return result, spectrum


def _by_pairs(sinogram: Tensor, response: Tensor) -> bool:
    """Whether two projections of a sample can be filtered at a time: on a GPU, with one response for all angles."""
    alike = response.ndim == 1 and sinogram.shape[1] % 2 == 0 and sinogram.shape[0] > 0
    return alike and sinogram.device.type == "cuda" and sinogram.dtype == torch.float32 and has_triton()


def spectra(sinogram: Tensor) -> Tensor:
    """The spectra (B, A, F), complex, of the zero-padded projections of (B, A, D)."""
    spectrum, parts = _empty_spectra(sinogram), _parts(sinogram)

    def transform_part(number: int) -> None:
        part = parts[number]
        spectrum[part] = torch.fft.rfft(sinogram[part], n=fft_length(sinogram.shape[-1]))

    _each(transform_part, len(parts), sinogram)
    return spectrum


def _empty_spectra(sinogram: Tensor) -> Tensor:
    dtype = torch.complex128 if sinogram.dtype == torch.float64 else torch.complex64
    return sinogram.new_empty((*sinogram.shape[:-1], fft_length(sinogram.shape[-1]) // 2 + 1), dtype=dtype)


def correlated(gradient: Tensor, spectrum: Tensor, by_angle: bool) -> Tensor:
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
