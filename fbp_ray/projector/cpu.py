"""The two operators on a CPU in Numba: float32, the samples of a batch innermost.

A batch is worked on in groups that fill 32, 16 or 8 lanes: with images, or with the mirror images of fewer where the
scan is symmetric and the batch small. Each group has three steps, each shared among torch's threads: the samples are
laid side by side, the kernel runs, and its result goes back to one sample after the other. Results do not depend on the
number of threads, nor on what else is in the batch beyond rounding.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fbp_ray.geometry import ParallelBeam
from fbp_ray.projector import reference
from fbp_ray.projector.kernels import backprojector, projector
from fbp_ray.projector.lanes import BLOCK, PAD_CELLS, PAD_PIXELS, SIDE, TILE
from fbp_ray.projector.layout import layout
from fbp_ray.projector.symmetry import Views, mirror_views, plain_views, swapped
from fbp_ray.projector.threads import share

_LANES = (8, 16, 32)
_ANGLES = 16  # angles a task: enough for them to share what the first-level cache holds of the image
_ROWS = 16  # rows or lines of an image a task, where only the layout changes
_LARGEST = 2**30  # positions are kept in 32-bit integers


def backproject(sinogram: Tensor, geometry: ParallelBeam) -> Tensor:
    """(B, A, D) -> (B, H, W), float32."""
    if not _fits(geometry):
        return reference.backproject(sinogram, geometry)
    image = sinogram.new_empty((sinogram.shape[0], *geometry.image_shape))
    for views, part, images in _groups(sinogram.shape[0], geometry):
        _backproject(sinogram[part].contiguous(), geometry, views, images, image[part])
    return image


def project(image: Tensor, geometry: ParallelBeam) -> Tensor:
    """(B, H, W) -> (B, A, D), float32: the transpose of `backproject`."""
    if not _fits(geometry):
        return reference.project(image, geometry)
    sinogram = image.new_zeros((image.shape[0], *geometry.sinogram_shape))
    for views, part, images in _groups(image.shape[0], geometry):
        _project(image[part].contiguous(), geometry, views, images, sinogram[part])
    return sinogram


def _fits(geometry: ParallelBeam) -> bool:
    """Whether positions, in cells and in pixels, fit 32-bit integers, as those of any scanner's geometry do."""
    ratio = geometry.pixel_size / geometry.cell_size
    return max(geometry.image_shape) * ratio + geometry.cells < _LARGEST > 4 * (geometry.cells + 32) / ratio


def _groups(batch: int, geometry: ParallelBeam) -> Iterator[tuple[Views, slice, int]]:
    """The views, the part of the batch and the number of images (the last may be missing) of each group."""
    plain, mirrored = _views(geometry)
    done = 0
    while done < batch:
        left = batch - done
        views = plain if mirrored is None or left > _LANES[-1] // 2 else mirrored
        wanted = left * views.maps.shape[0]
        lanes = next((lanes for lanes in _LANES if lanes >= wanted), _LANES[-1])
        images = lanes // views.maps.shape[0]
        yield views, slice(done, done + images), images
        done += images


@functools.lru_cache(maxsize=32)
def _views(geometry: ParallelBeam) -> tuple[Views, Views | None]:
    return plain_views(geometry), mirror_views(geometry)


class _Positions(NamedTuple):
    """The pixel (i, j) of the views lies at `origin + i dx + j dy` on the detector, in cells; each (A',)."""

    dx: NDArray[np.float64]
    dy: NDArray[np.float64]
    origin: NDArray[np.float64]


def _positions(geometry: ParallelBeam, views: Views) -> _Positions:
    ratio = geometry.pixel_size / geometry.cell_size
    dx, dy = np.cos(views.theta) * ratio, np.sin(views.theta) * ratio
    axis = geometry.axis_offset / geometry.cell_size + (geometry.cells - 1) / 2
    height, width = views.shape
    return _Positions(dx, dy, axis - (height - 1) / 2 * dx - ((width - 1) / 2 - views.begin) * dy)


def _backproject(sinogram: Tensor, geometry: ParallelBeam, views: Views, images: int, image: Tensor) -> None:
    lanes = views.maps.shape[0] * images
    num_angles, cells = views.theta.size, geometry.cells
    height = _up(views.shape[0], SIDE)
    width = _up(views.shape[1] - views.begin, SIDE)
    dx, dy, origin = _positions(geometry, views)
    rows = torch.empty(num_angles * (cells + 2 * PAD_CELLS) * lanes).numpy()
    sums = torch.empty(height * width * lanes).numpy()
    source, target = _flat(sinogram), _flat(image)
    kernel, change = backprojector(lanes), layout()

    def fold(task: int) -> None:
        first = task * _ANGLES
        last = min(first + _ANGLES, num_angles)
        change.fold_sinogram(
            source, tuple(sinogram.shape), views.angle_of, views.turned, images, first, last, rows
        )  # fmt: skip

    def gather(task: int) -> None:
        kernel(rows, dx, dy, origin, cells, height, width, task, sums)

    def unfold(task: int) -> None:
        first = task * _ROWS
        last = min(first + _ROWS, image.shape[1])
        change.unfold_image(
            sums, width * lanes, tuple(image.shape), views.maps, views.shape, views.begin, images, _scale(geometry),
            first, last, target,
        )  # fmt: skip

    share(fold, math.ceil(num_angles / _ANGLES))
    share(gather, math.ceil(height / TILE) * math.ceil(width / TILE))
    share(unfold, math.ceil(image.shape[1] / _ROWS))


def _project(image: Tensor, geometry: ParallelBeam, views: Views, images: int, sinogram: Tensor) -> None:
    lanes = views.maps.shape[0] * images
    num_angles, cells = views.theta.size, _up(geometry.cells, BLOCK)
    sums = torch.empty(num_angles * cells * lanes).numpy()
    source, target = _flat(image), _flat(sinogram)
    kernel, change = projector(lanes), layout()
    crosses_axis_0 = np.abs(np.cos(views.theta)) >= np.abs(np.sin(views.theta))

    for along, chosen in ((views, crosses_axis_0), (swapped(views), ~crosses_axis_0)):
        angles = np.flatnonzero(chosen)
        if angles.size == 0:
            continue
        steep, shallow, origin = _positions(geometry, along)
        length, num_lines = along.shape[0], along.shape[1] - along.begin
        lines = torch.empty(num_lines * (length + 2 * PAD_PIXELS) * lanes).numpy()

        def fold(task: int, along: Views = along, num_lines: int = num_lines, lines: Any = lines) -> None:
            first = task * _ROWS
            change.fold_image(
                source, tuple(image.shape), along.maps, along.shape, along.begin, images, first,
                min(first + _ROWS, num_lines), lines,
            )  # fmt: skip

        def gather(task: int) -> None:
            first = task * _ANGLES
            kernel(lines, length, steep, shallow, origin, angles, first, min(first + _ANGLES, angles.size), cells, sums)

        share(fold, math.ceil(num_lines / _ROWS))
        share(gather, math.ceil(angles.size / _ANGLES))

    def unfold(task: int) -> None:
        first = task * _ANGLES
        last = min(first + _ANGLES, num_angles)
        change.unfold_sinogram(
            sums, tuple(sinogram.shape), views.angle_of, views.turned, images, _scale(geometry), first, last, target
        )

    share(unfold, math.ceil(num_angles / _ANGLES))


def _scale(geometry: ParallelBeam) -> np.float32:
    return np.float32(geometry.pixel_size**2 / geometry.cell_size)


def _flat(array: Tensor) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = array.detach().view(-1).numpy()
    return flat


def _up(count: int, multiple: int) -> int:
    return math.ceil(count / multiple) * multiple
