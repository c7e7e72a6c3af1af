"""Fourier ring correlation: up to which frequency two images of the same object, with noise of their own, agree.

    FRC(r) = Re sum F1 conj(F2) / sqrt(sum |F1|^2 sum |F2|^2), sums over the ring r of frequencies.

The images here are those of either half of the angles. The half-bit criterion asks of a ring of n frequencies that
FRC(r) >= (0.2071 + 1.9102 / sqrt(n)) / (1.2071 + 0.9102 / sqrt(n)): half a bit of information a frequency in the image
of all angles. Source: van Heel and Schatz, Journal of Structural Biology 151 (2005) 250-262, equations 2 and 17.

What multiplies a whole ring, as a window that all angles share does, is in both sums and so makes no difference to the
correlation. What it takes away is gone all the same: of a frequency that counts as resolved at least a tenth has to be
left, beside the bare ramp (the 10 % of the modulation transfer function that are usually taken for a limit).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
EDGE = 0.3  # of the radius, over which an image fades out: abruptly, low frequencies would leak into all rings
LEFT = 0.1  # of a frequency, that has to be left


@dataclass
class Rings:
    """Sums over rings of frequencies, of any number of pairs of images.

    Args:
        shape: (H, W) of the images.
    """

    shape: tuple[int, int]

    def __post_init__(self) -> None:
        size = min(self.shape)
        across, along = (np.fft.fftfreq(length) for length in self.shape)
        self._ring = np.rint(np.hypot(across[:, None], along) * size).astype(int).ravel()
        self._fade = _fade(self.shape)
        rings = self._ring.max() + 1
        self.last = size // 2
        self.sums = np.zeros((3, rings))
        self.pairs = 0
        self._in_ring = np.bincount(self._ring, minlength=rings)

    def add(self, one: Array, other: Array) -> None:
        """Adds pairs of images, (n, H, W) each. Their means are taken off, and they fade out towards a round border."""
        for pair in zip(one, other, strict=True):
            first, second = (np.fft.fft2((image - image.mean()) * self._fade).ravel() for image in pair)
            products = ((first * second.conj()).real, np.abs(first) ** 2, np.abs(second) ** 2)
            self.sums += [np.bincount(self._ring, product, len(self._in_ring)) for product in products]
            self.pairs += 1

    @property
    def frequency(self) -> Array:
        """Of each ring, in cycles a pixel: up to a half."""
        return np.arange(1, self.last + 1) / min(self.shape)

    @property
    def correlation(self) -> Array:
        """FRC of each ring; 0 where the images have nothing."""
        both, one, other = self.sums[:, 1 : self.last + 1]
        power = np.sqrt(one * other)
        return np.asarray(np.divide(both, power, out=np.zeros_like(both), where=power > 0))

    @property
    def half_bit(self) -> Array:
        """The criterion for each ring of one pair of images: what is asked of an image does not depend on the others.

        n counts the frequencies of the fading images that tell something of their own: their part of the area.
        """
        count = self._in_ring[1 : self.last + 1] * (self._fade**2).mean()
        root = np.sqrt(np.maximum(count, 1))
        return np.asarray((0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root))

    def resolved(self, ramp: Rings) -> float:
        """The frequency, in cycles a pixel, up to which the images agree and enough is left; 0.5 for all, 0 for none.

        Args:
            ramp: of the same scans, reconstructed with the bare ramp.
        """
        power, whole = (rings.sums[1:, 1 : self.last + 1].sum(0) for rings in (self, ramp))
        left = np.sqrt(np.divide(power, whole, out=np.zeros_like(power), where=whole > 0))
        return min(self._crossing(self.correlation - self.half_bit), self._crossing(left - LEFT))

    def _crossing(self, above: Array) -> float:
        """Where something first falls below 0, between two rings interpolated."""
        below = int(np.argmax(above < 0))
        if above[below] >= 0:
            return 0.5
        if below == 0:
            return 0.0
        share = above[below - 1] / (above[below - 1] - above[below])
        return float(self.frequency[below - 1] + share / min(self.shape))


def _fade(shape: tuple[int, int]) -> Array:
    """1 inside a circle, 0 outside of the one inscribed in the image, half a cosine in between."""
    centres = (np.arange(length) - (length - 1) / 2 for length in shape)
    across, along = centres
    radius = np.hypot(across[:, None], along) / (min(shape) / 2)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * np.clip((radius - 1 + EDGE) / EDGE, 0, 1)))
