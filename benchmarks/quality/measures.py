"""Noise and resolution apart, which PSNR mixes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def edge_mtf(image: Array, centre: tuple[float, float], radius: float, reach: float = 10.0) -> tuple[Array, Array]:
    """Modulation transfer function from the edge of a disc, and its frequencies in cycles a pixel.

    Args:
        image: (rows, columns).
        centre: row and column of the disc's centre, in pixels.
        radius: in pixels.
        reach: how far from the edge the profile goes, in pixels.
    """
    rows, columns = np.indices(image.shape)
    distance = np.hypot(rows - centre[0], columns - centre[1]) - radius
    step = 0.25  # of a pixel: pixels lie at all distances from a round edge
    edges = np.arange(-reach, reach + step / 2, step)
    near = (distance >= edges[0]) & (distance < edges[-1])
    number = np.histogram(distance[near], edges)[0]
    profile = np.histogram(distance[near], edges, weights=image[near])[0] / np.maximum(number, 1)
    spread = np.diff(profile)
    spread = spread * np.hanning(len(spread) + 2)[1:-1]
    transfer: Array = np.abs(np.fft.rfft(spread))
    return np.asarray(np.fft.rfftfreq(len(spread), step), np.float64), np.asarray(transfer / transfer[0], np.float64)


def noise_power(noise: Array) -> tuple[Array, Array]:
    """Radial mean of the noise power spectrum of a square region, and its frequencies in cycles a pixel.

    Args:
        noise: (samples, N, N); the mean of each sample is taken off. The spectrum's mean over both frequencies' whole
            range is the noise's variance.
    """
    size = noise.shape[-1]
    centred = noise - noise.mean((-2, -1), keepdims=True)
    power = (np.abs(np.fft.fft2(centred)) ** 2).mean(0) / size**2
    frequency = np.fft.fftfreq(size)
    ring = np.rint(np.hypot(frequency[:, None], frequency) * size).astype(int).ravel()
    radial = np.bincount(ring, power.ravel()) / np.bincount(ring)
    return np.arange(1, size // 2) / size, radial[1 : size // 2]
