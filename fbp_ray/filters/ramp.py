"""The ramp, from its band-limited spatial kernel, and the FFT length it needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
