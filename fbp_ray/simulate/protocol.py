"""From Hounsfield units to a low-dose observation, step by step as LoDoPaB-CT was made.

    HU -> dither, crop, attenuation -> ground truth -> finer grid -> line integrals -> photon counts -> observation

The line integrals are those of the image interpolated to 1000 x 1000 pixels, so that the observation and a
reconstruction from it do not share a discretisation. Source: Leuschner et al., "LoDoPaB-CT, a benchmark dataset for
low-dose computed tomography reconstruction", Scientific Data 8 (2021) 109, and its generator.

Rays are followed by Joseph's method, row by row (or column by column where a ray runs more along those); the image is
interpolated linearly between the two pixels that a ray passes between. It shares no code and no discretisation with the
projector that reconstructs, so that simulated data do not favour it. Source: P. M. Joseph, "An improved algorithm for
reprojecting rays through pixel images", IEEE Trans. Med. Imaging 1 (1982) 192.

Why it is fast: index and weight of a ray's crossing are computed once for 32 images, which lie side by side in memory
([row][column][image]), so that an update is a few vector instructions; and a strip of a few rows stays in the cache
while all angles pass over it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from fbp_ray.data.layout import MU_AIR, MU_MAX, MU_WATER
from fbp_ray.errors import DataError, GeometryError
from fbp_ray.geometry import FanBeam, Geometry

AIR_HU = -1000.0
LEAST_COUNT = 0.1  # what a cell without a photon counts as: the logarithm stays finite

LANES = 32
"""Images that are projected at once. With 16, the compiler's run-time checks cost three times as much an image."""

_STRIP = 4  # rows that stay in the cache: 4 x 1000 x 32 float32 are 0.5 MB
_PAD = 2  # columns of air on either side: rays that graze the image need no test


def generator(seed: int, name: str) -> np.random.Generator:
    """The random numbers of one slice: they depend on the seed and on the slice's name, on nothing else."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, int.from_bytes(digest[:16])])))


def ground_truth(
    hounsfield: NDArray[np.generic], geometry: Geometry, random: np.random.Generator, name: str
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
    image = centre(hounsfield.T.astype(np.float32), geometry.image_shape)
    if not np.isfinite(image).all():
        raise DataError(f"{name} has values that are NaN or infinite; take it out, or put -1000 HU (air) there")
    image += random.random(image.shape)
    image *= (MU_WATER - MU_AIR) / 1000
    image += MU_WATER
    image /= MU_MAX
    return np.clip(image, 0, 1)


def centre(image: NDArray[np.generic], shape: tuple[int, int]) -> NDArray[np.float32]:
    """The middle of an image, with air around where it is smaller than `shape`."""
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


def project_rays(images: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    """Line integrals of images by Joseph's method.

    Args:
        images: (B, H', W') float32 in 1/m, sampled at pixel centres, any number of pixels: they cover the rectangle of
            the geometry's own image.
        geometry: the scan.

    Returns:
        (B, A, D) float32, without unit. Outside the rectangle is nothing. Uses as many threads as torch does; the
        result does not depend on their number, nor on what else is in the batch.

    Raises:
        GeometryError: `images` is not a float32 array of three dimensions.
    """
    if images.ndim != 3 or images.dtype != np.float32:
        raise GeometryError(f"images should be float32 (B, H', W'); got {images.dtype} {images.shape}")
    sinograms = np.empty((len(images), *geometry.sinogram_shape), np.float32)
    for first in range(0, len(images), LANES):
        batch = slice(first, first + LANES)
        sinograms[batch] = _project_lanes(images[batch], geometry)
    return sinograms


def _project_lanes(images: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    pixel = np.asarray(geometry.image_shape) * geometry.pixel_size / images.shape[1:]
    theta, first, cell_size, cells = _bundles(geometry)
    cosine, sine = np.cos(theta), np.sin(theta)
    along_x = np.abs(sine) >= np.abs(cosine)
    sinogram = np.zeros((theta.size, cells, LANES), np.float32)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        lines = first, cell_size
        _follow(pool, images, sinogram, lines, np.flatnonzero(along_x), (cosine, sine), *pixel)
        _follow(pool, images.swapaxes(1, 2), sinogram, lines, np.flatnonzero(~along_x), (sine, cosine), *pixel[::-1])
    return np.moveaxis(sinogram.reshape(*geometry.sinogram_shape, LANES), -1, 0)[: len(images)]


def _bundles(geometry: Geometry) -> tuple[NDArray[np.float64], NDArray[np.float64], float, int]:
    """Parallel rays that are followed together: theta and the first s of each bundle, the next one's way, how many."""
    if isinstance(geometry, FanBeam):  # each ray on its own
        theta, s = np.broadcast_arrays(*geometry.rays)
        return theta.ravel(), s.ravel(), 1.0, 1
    first = np.full(geometry.num_angles, geometry.detector[0] - geometry.axis_offset)
    return geometry.theta, first, geometry.cell_size, geometry.cells


def _follow(
    pool: ThreadPoolExecutor,
    images: NDArray[np.float32],
    sinogram: NDArray[np.float32],
    bundles: tuple[NDArray[np.float64], float],
    angles: NDArray[np.int64],
    direction: tuple[NDArray[np.float64], NDArray[np.float64]],
    row_size: float,
    column_size: float,
) -> None:
    """Follows the rays of some angles, `row * across + column * along = s`, through the rows of the images."""
    across, along = direction[0][angles], direction[1][angles]
    rows, columns = images.shape[1:]
    lanes = np.zeros((rows, columns + 2 * _PAD, LANES), np.float32)
    lanes[:, _PAD:-_PAD, : len(images)] = np.moveaxis(images, 0, -1)
    # A ray crosses a row at the column u = first + row * per_row + cell * per_cell.
    first = bundles[0][angles] + (rows - 1) / 2 * row_size * across
    first = first / along / column_size + (columns - 1) / 2
    per_row = -across / along * row_size / column_size
    per_cell = bundles[1] / along / column_size
    length = row_size / np.abs(along)
    lines = np.stack([first, per_row, per_cell, length], axis=1)
    groups = np.array_split(np.arange(len(angles)), 4 * torch.get_num_threads())  # four each: a core may be held up
    jobs = [pool.submit(_sweep, lanes, sinogram, angles[group], lines[group]) for group in groups]
    for job in jobs:
        job.result()


def _compiled(function: Callable[..., None]) -> Any:
    # Of fast-math only the fused multiply-add: the order of the sums is part of the result.
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no folder that the compiled code can be kept in
        return numba.njit(**options)(function)


@_compiled
def _sweep(
    lanes: NDArray[np.float32],
    sinogram: NDArray[np.float32],
    angles: NDArray[np.int64],
    lines: NDArray[np.float64],
) -> None:
    """Adds what the rays of some angles collect in [row][column][lane] to [angle][cell][lane]."""
    rows, padded, _ = lanes.shape
    columns, cells = padded - 2 * _PAD, sinogram.shape[1]
    image, collected = lanes.reshape(-1), sinogram.reshape(-1)
    for top in range(0, rows, _STRIP):
        for k in range(len(angles)):
            first, per_row, per_cell, length = lines[k]
            for row in range(top, min(top + _STRIP, rows)):
                at_row = first + row * per_row
                # The cells whose rays cross this row between -1 and `columns`: beyond is air.
                one, other = (-1 - at_row) / per_cell, (columns - at_row) / per_cell
                begin = max(0, math.ceil(min(one, other)))
                end = min(cells, math.floor(max(one, other)) + 1)
                for cell in range(begin, end):
                    u = at_row + cell * per_cell + _PAD
                    column = int(u)
                    right = np.float32((u - column) * length)
                    left = np.float32(length) - right
                    # Unsigned: no test for negative indices, which would keep the loop from being vectorised.
                    source = np.uint64((row * padded + column) * LANES)
                    target = np.uint64((angles[k] * cells + cell) * LANES)
                    for lane in range(np.uint64(LANES)):
                        collected[target + lane] += (
                            left * image[source + lane] + right * image[source + lane + np.uint64(LANES)]
                        )


def observe(
    line_integrals: NDArray[np.float32], photons: float, random: np.random.Generator, electronic_noise: float = 0.0
) -> NDArray[np.float32]:
    """What a low-dose scan measures.

    Args:
        line_integrals: of attenuation / MU_MAX, any shape, in metres.
        photons: per detector cell without attenuation.
        random: draws the photon counts.
        electronic_noise: standard deviation of what the readout adds to each count, whether photons came or not.

    Returns:
        float32 of the same shape, -log(counts / photons) / MU_MAX with at least 0.1 counts; for 4096 photons at most
        0.1305376.
    """
    expected = photons * np.exp(-MU_MAX * line_integrals.astype(np.float64))
    counts: NDArray[np.float64] = random.poisson(expected).astype(np.float64)
    if electronic_noise:
        counts = counts + electronic_noise * random.standard_normal(counts.shape)
    counts = np.maximum(counts, LEAST_COUNT)
    observation: NDArray[np.float32] = (-np.log(counts / photons) / MU_MAX).astype(np.float32)
    return observation
