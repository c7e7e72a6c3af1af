"""The ramp of filtered backprojection, and the frequencies at which it is sampled.

Projections are filtered by FFT, padded with zeros to a length that is even and fast.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FEW_CELLS = 256


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
