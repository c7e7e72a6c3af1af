"""Noise and resolution apart, which PSNR mixes: a disc of water with two inserts, seen many times.

The mean of its images shows how sharp an edge is, and what is left of each how much noise there is. A window that
depends on the sinogram is not linear, so an edge of low contrast may come out less sharp than one of high contrast.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quality.measures import Array, edge_mtf, noise_power
from benchmarks.quality.methods import Method
from fbp_ray.config import PHOTONS
from fbp_ray.data.layout import MU_AIR, MU_MAX, MU_WATER
from fbp_ray.geometry import ParallelBeam
from fbp_ray.simulate.protocol import observe, project_rays

SCANS = 32
LEAST_REACH = 4.0  # pixels to either side of an edge, without which it cannot be looked at
FINER = 4  # samples a pixel and axis of what is projected
BODY, INSERT = 0.8, 0.1  # radii, of half the image
INSERTS = {"high": (0.4, 1000.0), "low": (-0.4, 100.0)}  # where along axis 0, and how many HU above water
HU = MU_MAX * 1000 / (MU_WATER - MU_AIR)  # of the value 1


@dataclass(frozen=True)
class Apart:
    """Noise and resolution of one method. Frequencies are in cycles a millimetre."""

    noise_hu: float
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
        return {"noise_hu": self.noise_hu, **{f"half_contrast_{name}": self.half(name) for name in INSERTS}}


def look_apart(method: Method, geometry: ParallelBeam, photons: float | None) -> Apart:
    """Noise in the middle of the disc, and the sharpness of the edges of its inserts."""
    sinograms = _scans(geometry, photons or PHOTONS)
    with torch.inference_mode():
        images = torch.cat([method.reconstruct(part) for part in torch.split(sinograms, 8)]).double().numpy() * HU
    size = geometry.image_shape[0]
    mean, pixel_mm = images.mean(0), geometry.pixel_size * 1000
    side = int(0.3 * size) // 2 * 2
    middle = slice((size - side) // 2, (size + side) // 2)
    noise = (images - mean)[:, middle, middle] * np.sqrt(SCANS / (SCANS - 1))
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
def _scans(geometry: ParallelBeam, photons: float) -> torch.Tensor:
    """Scans of the disc with noise of their own, (SCANS, A, D)."""
    line_integrals = project_rays(disc(geometry)[None] / MU_MAX, geometry)[0]
    random = np.random.default_rng(0)
    return torch.from_numpy(np.stack([observe(line_integrals, photons, random) for _ in range(SCANS)]))


def disc(geometry: ParallelBeam) -> NDArray[np.float32]:
    """The attenuation of the disc with its inserts in 1/m, finer than the image by FINER."""
    rows, columns = (FINER * size for size in geometry.image_shape)
    x = (np.arange(rows)[:, None] + 0.5) * 2 / rows - 1
    y = ((np.arange(columns)[None, :] + 0.5) * 2 / columns - 1) * columns / rows
    image = np.where(np.hypot(x, y) < BODY, MU_WATER, 0.0)
    for place, hounsfield in INSERTS.values():
        image[np.hypot(x - place, y) < INSERT] += hounsfield * (MU_WATER - MU_AIR) / 1000
    return image.astype(np.float32)
