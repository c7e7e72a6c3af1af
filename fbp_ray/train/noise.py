"""Noise drawn anew, as `data.photons` asks for it: one window can be trained for a range of photon counts.

Where no more photons are asked for than were measured, some of those are left out: each is kept with the same
probability, which gives exactly the counts of a scan with fewer (binomial thinning); electronic noise, where the data
say that they have it, is made up to what it was. Otherwise the ground truth is
projected and gets the Poisson noise of `fbp_ray.simulate.protocol`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from fbp_ray.config import DataConfig
from fbp_ray.data.hdf5_reader import Array
from fbp_ray.data.layout import MU_MAX, electronic_noise_of, photons_of, thins, unit_of
from fbp_ray.data.lodopab import LoDoPaB
from fbp_ray.geometry import Geometry
from fbp_ray.projector import project

FINER, THINNER = 2, 3  # parts of a pixel and of a cell: the projector spreads a pixel over two cells, a ray does not
COUNTS = 4  # of photons, evenly spaced in their logarithm, that the samples of a validation part have in turn
_TRAINING, _VALIDATION = 1, 2  # tell their random numbers apart, and from those of the order of the samples


class Noise:
    """Draws the noise of a sample.

    Args:
        data: its `photons` are the range; the folder says how many were measured.
        geometry: the scan of the samples.
        seed: of the noise of the training part.
    """

    def __init__(self, data: DataConfig, geometry: Geometry, seed: int = 0) -> None:
        assert data.photons is not None
        self.low, self.high = data.photons
        self.stored = photons_of(data.dir) if data.dir and thins(data) else None
        self.unit = unit_of(data.dir) if data.dir else MU_MAX
        self.electronic = electronic_noise_of(data.dir) if data.dir else 0.0
        height, width = geometry.image_shape
        fine = {"image_shape": (FINER * height, FINER * width), "pixel_size": geometry.pixel_size / FINER}
        thin = {"cells": THINNER * geometry.cells, "cell_size": geometry.cell_size / THINNER}
        self.geometry = geometry.model_copy(update=fine | thin)
        self.seed = seed

    def draw(self, sample: int, epoch: int, observation: Array, truth: Array) -> None:
        """Noise of a number of photons between `low` and `high`, evenly in its logarithm; both differ by the epoch.

        Args:
            sample: its number.
            epoch: the epoch's.
            observation: (A, D), of which it takes the place.
            truth: (H, W), or (0, 0) where photons are left out.
        """
        random = np.random.default_rng([self.seed, epoch, sample, _TRAINING])
        self._replace(observation, truth, self.low * (self.high / self.low) ** random.random(), random)

    def fixed(self, sample: int, observation: Array, truth: Array) -> None:
        """The same noise always, of one of `COUNTS` numbers of photons."""
        share = (sample % COUNTS) / (COUNTS - 1)
        random = np.random.default_rng([sample, _VALIDATION])
        self._replace(observation, truth, self.low * (self.high / self.low) ** share, random)

    def _replace(self, observation: Array, truth: Array, photons: float, random: np.random.Generator) -> None:
        from fbp_ray.simulate.protocol import LEAST_COUNT, observe  # here, not above: it needs Numba

        if self.stored is None:
            fine = functional.interpolate(torch.from_numpy(truth)[None, None], scale_factor=FINER, mode="bilinear")[
                0, 0
            ]
            integrals = project(fine, self.geometry)[:, THINNER // 2 :: THINNER]  # in the middle of each cell
            observation[:] = observe(integrals.numpy(), photons, random, self.electronic)
            return
        measured = np.rint(self.stored * np.exp(-self.unit * observation.astype(np.float64))).astype(np.int64)
        share = min(1.0, photons / self.stored)
        counts: NDArray[np.float64] = random.binomial(measured, share).astype(np.float64)
        if self.electronic:  # the readout's does not become less with the photons
            counts += self.electronic * np.sqrt(1 - share**2) * random.standard_normal(counts.shape)
        observation[:] = -np.log(np.maximum(counts, LEAST_COUNT) / photons) / self.unit


class FixedNoise(LoDoPaB):
    """A part of the data whose noise is drawn anew, the same at each reading: what a training validates on.

    Args:
        noise: draws it.
        folder, part, rest: as for `LoDoPaB`.
    """

    def __init__(self, noise: Noise, folder: Path, part: str, *rest: Any, **named: Any) -> None:
        super().__init__(folder, part, *rest, **named)
        self.noise = noise

    def read(self, first: int, observations: Array, ground_truths: Array) -> None:
        """As `LoDoPaB.read`."""
        super().read(first, observations, ground_truths)
        for number, (observation, truth) in enumerate(zip(observations, ground_truths, strict=True)):
            self.noise.fixed(first + number, observation, truth)
