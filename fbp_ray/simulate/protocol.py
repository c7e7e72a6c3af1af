"""From Hounsfield units to a low-dose observation, step by step as LoDoPaB-CT was made.

    HU -> dither, crop, attenuation -> ground truth -> finer grid -> line integrals -> photon counts -> observation

The line integrals are those of the image interpolated to 1000 x 1000 pixels, so that the observation and a
reconstruction from it do not share a discretisation. Source: Leuschner et al., "LoDoPaB-CT, a benchmark dataset for
low-dose computed tomography reconstruction", Scientific Data 8 (2021) 109, and its generator.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fbp_ray.data.layout import MU_AIR, MU_MAX, MU_WATER
from fbp_ray.errors import DataError
from fbp_ray.geometry import ParallelBeam

PHOTONS = 4096.0
"""Photons per detector cell without attenuation in LoDoPaB-CT."""

AIR_HU = -1000.0
LEAST_COUNT = 0.1  # what a cell without a photon counts as: the logarithm stays finite


def generator(seed: int, name: str) -> np.random.Generator:
    """The random numbers of one slice: they depend on the seed and on the slice's name, on nothing else."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, int.from_bytes(digest[:16])])))


def ground_truth(
    hounsfield: NDArray[np.generic], geometry: ParallelBeam, random: np.random.Generator, name: str
) -> NDArray[np.float32]:
    """The attenuation image of a slice.

    Args:
        hounsfield: (rows, columns) in HU as a scanner writes it, of any size: the centre is cropped, without
            resampling, and air put around where it is smaller than the image.
        geometry: says H and W. Axis 0 of the image is along the slice's columns: the image is the slice transposed.
        random: draws the dither of U(0, 1) HU that makes whole numbers continuous.
        name: of the slice, for messages.

    Returns:
        (H, W) float32, attenuation / MU_MAX clipped to [0, 1].

    Raises:
        DataError: the slice is not a two-dimensional array of finite numbers.
    """
    if hounsfield.ndim != 2:
        raise DataError(f"{name} should be one slice (rows, columns), but its shape is {hounsfield.shape}")
    image = _centre(hounsfield.T.astype(np.float32), geometry.image_shape)
    if not np.isfinite(image).all():
        raise DataError(f"{name} has values that are NaN or infinite; take it out, or put -1000 HU (air) there")
    image += random.random(image.shape)
    image *= (MU_WATER - MU_AIR) / 1000
    image += MU_WATER
    image /= MU_MAX
    return np.clip(image, 0, 1)


def _centre(image: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    centred = np.full(shape, AIR_HU, np.float32)
    inner, outer = [], []
    for there, wanted in zip(image.shape, shape, strict=True):
        size = min(there, wanted)
        outer.append(slice((there - size) // 2, (there - size) // 2 + size))
        inner.append(slice((wanted - size) // 2, (wanted - size) // 2 + size))
    centred[tuple(inner)] = image[tuple(outer)]
    return centred


def finer(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W) interpolated linearly to the grid that is projected: 1000 / 362 times as fine, 1000 x 1000 for LoDoPaB-CT.

    Samples lie at pixel centres and mirror at the border, as `skimage.transform.resize(image, ..., order=1)` has them.
    """
    for axis, size in enumerate(image.shape):
        count = round(size * 1000 / 362)
        position = np.abs((np.arange(count) + 0.5) * size / count - 0.5)
        position = np.minimum(position, 2 * (size - 1) - position)
        left = np.clip(position.astype(np.int64), 0, max(size - 2, 0))
        weight = np.expand_dims((position - left).astype(np.float32), 1 - axis)
        right = np.minimum(left + 1, size - 1)
        image = image.take(left, axis) * (1 - weight) + image.take(right, axis) * weight
    return image


def observe(line_integrals: NDArray[np.float32], photons: float, random: np.random.Generator) -> NDArray[np.float32]:
    """What a low-dose scan measures.

    Args:
        line_integrals: of attenuation / MU_MAX, any shape, in metres.
        photons: per detector cell without attenuation.
        random: draws the photon counts.

    Returns:
        float32 of the same shape, -log(counts / photons) / MU_MAX with at least 0.1 counts; for 4096 photons at most
        0.1305376.
    """
    expected = photons * np.exp(-MU_MAX * line_integrals.astype(np.float64))
    counts = np.maximum(random.poisson(expected), LEAST_COUNT)
    observation: NDArray[np.float32] = (-np.log(counts / photons) / MU_MAX).astype(np.float32)
    return observation
