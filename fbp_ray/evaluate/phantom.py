"""Noise and resolution apart, which PSNR mixes: a disc of water with two inserts, seen many times.

The mean of its images shows how sharp an edge is, and what is left of each how much noise there is. A window that
depends on the sinogram is not linear, so an edge of low contrast may come out less sharp than one of high contrast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fbp_ray.config import PHOTONS
from fbp_ray.data.layout import MU_AIR, MU_MAX, MU_WATER
from fbp_ray.data.values import BRIGHTEST, WATER, in_hounsfield
from fbp_ray.geometry import Geometry
from fbp_ray.simulate.protocol import observe

Array = NDArray[np.float64]

SCANS = 32
LEAST_REACH = 4.0  # pixels to either side of an edge, without which it cannot be looked at
BODY, INSERT = 0.8, 0.1  # radii, of half the image
INSERTS = {"high": (0.4, 1000.0), "low": (-0.4, 100.0)}  # where along axis 0, and how many HU above water


class Contrast(NamedTuple):
    """What the disc is made of, in 1/m: water, or what is as bright among other images as water is in CT."""

    body: float
    thousandth: float
    """Of it, above air: in water a Hounsfield unit."""

    @classmethod
    def of(cls, unit: float, high: float) -> Contrast:
        """That for images in multiples of `unit` (1/m) whose densest things have the value `high`."""
        if in_hounsfield(unit):
            return cls(MU_WATER, (MU_WATER - MU_AIR) / 1000)
        body = unit * high * WATER / BRIGHTEST
        return cls(body, body / 1000)


@dataclass(frozen=True)
class Apart:
    """Noise and resolution of one method. Frequencies are in cycles a millimetre."""

    noise: float
    """In HU; where images are no CT's, in thousandths of the disc."""

    frequency: Array
    power: Array
    edges: dict[str, tuple[Array, Array]]
    """Frequencies and transfer function of the edge of each insert; none where it has too few pixels."""

    def half(self, insert: str) -> float:
        """The frequency at which half of an edge's contrast is left."""
        if insert not in self.edges:
            return float("nan")
        frequency, transfer = self.edges[insert]
        below = int(np.argmax(transfer < 0.5))
        if below == 0:
            return float("nan")
        share = (transfer[below - 1] - 0.5) / (transfer[below - 1] - transfer[below])
        return float(frequency[below - 1] + share * (frequency[below] - frequency[below - 1]))

    def as_dict(self) -> dict[str, Any]:
        """For quality.json."""
        return {"noise_hu": self.noise, **{f"half_contrast_{name}": self.half(name) for name in INSERTS}}


def look_apart(
    reconstruct: Callable[[torch.Tensor], torch.Tensor],
    geometry: Geometry,
    photons: float | None,
    scans: int = SCANS,
    device: torch.device | str = "cpu",
    unit: float = MU_MAX,
    high: float = BRIGHTEST,
) -> Apart:
    """Noise in the middle of the disc, and the sharpness of the edges of its inserts.

    Args:
        reconstruct: (B, A, D) -> (B, H, W).
        geometry: the scan.
        photons: of a ray that meets nothing; None for LoDoPaB-CT's.
        scans: how often the disc is seen, 2 at least.
        device: where `reconstruct` is.
        unit: 1/m that the value 1 of its images stands for.
        high: what the densest things of images have.
    """
    contrast = Contrast.of(unit, high)
    sinograms = _sinograms(geometry, photons or PHOTONS, scans, contrast, unit).to(device)
    with torch.inference_mode():
        images = torch.cat([reconstruct(part) for part in torch.split(sinograms, 8)]).double().cpu().numpy()
    images *= unit / contrast.thousandth
    size = geometry.image_shape[0]
    mean, pixel_mm = images.mean(0), geometry.pixel_size * 1000
    side = int(0.3 * size) // 2 * 2
    middle = slice((size - side) // 2, (size + side) // 2)
    noise = (images - mean)[:, middle, middle] * np.sqrt(scans / (scans - 1))
    frequency, power = noise_power(noise)
    edges = {}
    for name, (place, _) in INSERTS.items():
        centre = ((size - 1) / 2 + place * size / 2, (geometry.image_shape[1] - 1) / 2)
        reach = min(10.0, INSERT * size / 2 * 0.8)
        if reach < LEAST_REACH:
            continue
        cycles, transfer = edge_mtf(mean, centre, INSERT * size / 2, reach)
        edges[name] = (cycles / pixel_mm, transfer)
    return Apart(float(noise.std()), frequency / pixel_mm, power * pixel_mm**2, edges)


@lru_cache(maxsize=2)
def _sinograms(geometry: Geometry, photons: float, scans: int, contrast: Contrast, unit: float) -> torch.Tensor:
    """Scans of the disc with noise of their own, (scans, A, D), divided by the unit."""
    line_integrals = disc(geometry, contrast)
    random = np.random.default_rng(0)
    seen = np.stack([observe(line_integrals, photons, random) for _ in range(scans)])
    return torch.from_numpy(seen if in_hounsfield(unit) else seen * np.float32(MU_MAX / unit))


def disc(geometry: Geometry, contrast: Contrast | None = None) -> NDArray[np.float32]:
    """The line integrals (A, D) of the disc with its inserts, which are chords of circles, divided by MU_MAX.

    Args:
        geometry: the scan.
        contrast: of what the disc is made, None for water.
    """
    body, thousandth = contrast or Contrast.of(MU_MAX, BRIGHTEST)
    half = geometry.image_shape[0] * geometry.pixel_size / 2
    theta, ray = geometry.rays
    collected = 2 * body * np.sqrt(np.maximum((BODY * half) ** 2 - ray**2, 0)) * np.ones((geometry.num_angles, 1))
    for place, thousandths in INSERTS.values():
        away = ray - place * half * np.cos(theta)
        chord = 2 * np.sqrt(np.maximum((INSERT * half) ** 2 - away**2, 0))
        collected = collected + thousandths * thousandth * chord
    return (collected / MU_MAX).astype(np.float32)


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
