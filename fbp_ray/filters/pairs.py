"""Filtering on a GPU two projections at a time: one is the real part of a complex signal, the other the imaginary part.

A real response with a real kernel keeps the two apart. So one complex FFT and its inverse filter both, in half of the
passes through the memory that two real FFTs take.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from fbp_ray.gpus import FUSED

_PAIRS = 16000  # at a time: 140 MB of LoDoPaB-CT's; fewer stay in the cache, and cost more to launch than they save
_CELLS = 256  # that a program copies


def filter_pairs(sinogram: Tensor, response: Tensor, length: int) -> Tensor:
    """(B, A, D) float32, contiguous, and (F,) -> (B, A, D), by FFTs of `length`.

    A is even: the projection a of a sample goes with its projection a + A / 2, so that samples know nothing of each
    other.
    """
    batch, angles, cells = sinogram.shape
    half = angles // 2
    filtered = torch.empty_like(sinogram)
    whole = torch.cat([response, response[1:-1].flip(0)]) / length
    size = min(_PAIRS, batch * half)
    signals = sinogram.new_empty((size, length), dtype=torch.complex64)
    for first in range(0, batch * half, size):
        count = min(size, batch * half - first)
        blocks = (count, math.ceil(length / _CELLS))
        with torch.cuda.device_of(sinogram):  # type: ignore[no-untyped-call]
            pair_kernel[blocks](
                sinogram, torch.view_as_real(signals), first, half, cells, length, CELLS=_CELLS, **FUSED
            )
            spectra = torch.fft.fft(signals[:count])
            spectra *= whole
            both = torch.view_as_real(torch.fft.ifft(spectra, norm="forward"))
            part_kernel[blocks](both, filtered, first, half, cells, length, CELLS=_CELLS, **FUSED)
    return filtered


@triton.jit
def pair_kernel(rows, signals, first, half, cells, length, CELLS: tl.constexpr):
    """Pairs of `rows` (B, 2 half, D), from the one `first` on, to `signals` (n, length, 2)."""
    signal = tl.program_id(0).to(tl.int64)
    pair = first + signal
    row = pair // half * 2 * half + pair % half
    place = tl.program_id(1) * CELLS + tl.arange(0, CELLS)
    there = place < cells
    real = tl.load(rows + row * cells + place, mask=there, other=0.0)
    imaginary = tl.load(rows + (row + half) * cells + place, mask=there, other=0.0)
    both = tl.interleave(real, imaginary)
    target = tl.program_id(1) * 2 * CELLS + tl.arange(0, 2 * CELLS)
    tl.store(signals + signal * 2 * length + target, both, mask=target < 2 * length)


@triton.jit
def part_kernel(signals, rows, first, half, cells, length, CELLS: tl.constexpr):
    """The way back of `pair_kernel`, without the padding."""
    signal = tl.program_id(0).to(tl.int64)
    pair = first + signal
    row = pair // half * 2 * half + pair % half
    source = tl.program_id(1) * 2 * CELLS + tl.arange(0, 2 * CELLS)
    both = tl.load(signals + signal * 2 * length + source, mask=source < 2 * cells, other=0.0)
    real, imaginary = tl.split(tl.reshape(both, (CELLS, 2)))
    place = tl.program_id(1) * CELLS + tl.arange(0, CELLS)
    there = place < cells
    tl.store(rows + row * cells + place, real, mask=there)
    tl.store(rows + (row + half) * cells + place, imaginary, mask=there)
