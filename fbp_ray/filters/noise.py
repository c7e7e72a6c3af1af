"""How noisy each ray of a sinogram is: the variance of its line integral.

A detector that counts n photons of N measures the line integral p = -ln(n / N) with a variance of about 1 / n, hence
exp(p) / N. N is known, or estimated: noise differs from cell to cell and a smooth object hardly does, so the mean of
(y[j - 1] - 2 y[j] + y[j + 1])^2 / 6 over a small tile is the variance there, or more where there are edges. Times
exp(-p) each tile gives its own 1 / N, and their median is taken.

The rays of a fan beam that was rebinned are means of samples that they share with their neighbours: their noise is
less, and it is not independent. `CarriedNoise` says how it differs from that of rays that were measured.

Dimensions: B batch, A angles, D cells, S and T tiles of 4 angles x 4 cells.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fbp_ray.caches import cached
from fbp_ray.filters.bands import TILE, interpolated, tile_means
from fbp_ray.geometry import FanBeam, Geometry
from fbp_ray.rebinning import rebin_variance
from fbp_ray.rebinning.noise import correlation

_ROWS = 32  # of tiles, at least, that an estimate takes in: its error is a percent then
FEWEST, MOST = 1.0, 1e9
"""Bounds of an estimate: a sinogram without noise would give no limit."""


def log_variance(sinogram: Tensor, unit: float, photons: Tensor, level: Tensor | None = None) -> Tensor:
    """The decimal logarithm of the variance of the line integrals, smoothed over about 12 angles x 12 cells.

    Args:
        sinogram: (B, A, D), line integrals in multiples of `unit`.
        unit: 1/m, so that `unit` x sinogram is free of a unit.
        photons: (B,), N of each; see `estimated_photons`.
        level: (S, T), what is added to their natural logarithm.

    Returns:
        (B, S, T), of the line integrals without unit.
    """
    means = tile_means(sinogram)
    integrals = unit * smoothed(means if level is None else means + level / unit)
    return (integrals - photons.log()[:, None, None]) / math.log(10)


def estimated_photons(sinogram: Tensor, unit: float) -> Tensor:
    """(B, A, D) -> (B,): the photons of a ray that meets nothing, from the noise of the sinogram itself."""
    if sinogram.shape[-1] < 3:
        return sinogram.new_full((sinogram.shape[0],), MOST)
    if (rows := sinogram.shape[-2] // TILE) >= 2 * _ROWS:
        together = sinogram[:, : rows * TILE].reshape(sinogram.shape[0], rows, TILE, -1)
        sinogram = together[:, :: rows // _ROWS].flatten(1, 2)
    curvature = sinogram[..., 2:] - 2 * sinogram[..., 1:-1] + sinogram[..., :-2]
    variance = tile_means(curvature.square()) * (unit**2 / 6)
    inverse = variance * torch.exp(-unit * tile_means(sinogram[..., 1:-1]))
    return (1 / inverse.flatten(1).median(1).values.clamp(min=1 / MOST)).clamp(min=FEWEST)


def smoothed(values: Tensor) -> Tensor:
    """(..., S, T): each tile's mean with its neighbours, a quarter, a half and a quarter along either dimension."""
    padded = functional.pad(values.flatten(0, -3)[:, None], (1, 1, 1, 1), mode="replicate").reshape(
        *values.shape[:-2], values.shape[-2] + 2, values.shape[-1] + 2
    )
    across = padded[..., :-2] / 4 + padded[..., 1:-1] / 2 + padded[..., 2:] / 4
    return across[..., :-2, :] / 4 + across[..., 1:-1, :] / 2 + across[..., 2:, :] / 4


class CarriedNoise(NamedTuple):
    """What rebinning makes of independent noise of variance 1, in the parallel beam."""

    level: Tensor
    """(A', D'), float64: the natural logarithm of its spectral density at frequency 0, smoothed."""

    shape: NDArray[np.float64]
    """(J,): its correlation between cells 0, 1, .. J - 1 apart, for a density of 1 at frequency 0."""

    def density(self, frequency: NDArray[np.float64]) -> NDArray[np.float64]:
        """The spectral density relative to that at frequency 0, at fractions of Nyquist's frequency."""
        apart = np.arange(1, self.shape.size)
        found = self.shape[0] + 2 * np.cos(np.pi * np.outer(frequency, apart)) @ self.shape[1:]
        return np.asarray(np.maximum(found, 0))

    @property
    def curvature(self) -> float:
        """The mean of (y[j - 1] - 2 y[j] + y[j + 1])^2 / 6: 1 for independent noise."""
        return float(np.array([6, -8, 2]) @ self.shape[:3] / 6)


@cached(8)
def carried_noise(scan: Geometry) -> CarriedNoise | None:
    """The noise of a scan after its rebinning; None for a parallel beam, whose rays are as they were measured."""
    if not isinstance(scan, FanBeam):
        return None
    variance = rebin_variance(torch.ones(1, *scan.sinogram_shape, dtype=torch.float64, device="cpu"), scan)
    measured = variance > 0
    variance = torch.where(measured, variance, variance[measured].mean())
    shape = correlation(scan)
    even = interpolated(smoothed(smoothed(tile_means(variance))), *scan.parallel.sinogram_shape)
    return CarriedNoise(even[0].log() - math.log(shape[0]), shape)
