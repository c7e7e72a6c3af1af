"""The two operators on a CPU in Numba: float32, the samples of a batch innermost.

A batch is worked on in groups that fill 32, 16 or 8 lanes: with images or, where the scan is symmetric, with the mirror
images of fewer. Each group has three steps, each shared among torch's threads: the samples are laid side by side, the
kernel runs, and its result goes back to one sample after the other. Results do not depend on the number of threads and,
but for rounding, not on what else is in the batch.

The sinogram is laid out a few angles at a time, and a larger batch group by group: for four images of LoDoPaB-CT the
arrays in between take less than twice the memory of the sinograms.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fbp_ray.caches import cached
from fbp_ray.geometry import ParallelBeam
from fbp_ray.projector import reference
from fbp_ray.projector.kernels import (
    BAND_ANGLES,
    BAND_CELLS,
    BLOCK,
    PAD_CELLS,
    PAD_PIXELS,
    SIDE,
    TAPS,
    TILE,
    backprojector,
    projector,
)
from fbp_ray.projector.layout import Views, layout, mirror_views, plain_views, steep_views
from fbp_ray.threads import parallel_for

_LANES = (8, 16, 32)
_FARTHEST = 50  # cells that a pixel reaches: the backprojection looks for each, be it on the detector or not
_ANGLES = 128  # angles of the views that are laid out at a time, a multiple of LINES and of BAND_ANGLES
_ROWS = 16  # rows of a sinogram or an image that a task takes, where only the layout changes


def backproject(sinogram: Tensor, geometry: ParallelBeam, interpolate: bool = False) -> Tensor:
    """(B, A, D) -> (B, H, W), float32."""
    if not _fits(geometry, interpolate):
        return reference.backproject(sinogram, geometry, interpolate)
    sinogram = reference.over_reaches(sinogram, geometry, interpolate)
    image = sinogram.new_empty((sinogram.shape[0], *geometry.image_shape))
    for views, part, images in _groups(sinogram.shape[0], geometry):
        _backproject(sinogram[part].contiguous(), geometry, interpolate, views, images, image[part])
    return image


def project(image: Tensor, geometry: ParallelBeam, interpolate: bool = False) -> Tensor:
    """(B, H, W) -> (B, A, D), float32: the transpose of `backproject`."""
    if not _fits(geometry, interpolate):
        return reference.project(image, geometry, interpolate)
    sinogram = image.new_empty((image.shape[0], *geometry.sinogram_shape))
    for views, part, images in _groups(image.shape[0], geometry):
        for steep in steep_views(views):
            _project(image[part].contiguous(), geometry, interpolate, steep, images, sinogram[part])
    return reference.over_reaches(sinogram, geometry, interpolate)


def _fits(geometry: ParallelBeam, interpolate: bool) -> bool:
    """Whether positions fit 32-bit integers and pixels reach few cells, as in any scanner's geometry."""
    ratio = geometry.pixel_size / geometry.cell_size
    in_cells = max(geometry.image_shape) * ratio + geometry.cells
    return max(in_cells, in_cells / ratio) < 2**28 and (interpolate or ratio < _FARTHEST)


def _groups(batch: int, geometry: ParallelBeam) -> Iterator[tuple[Views, slice, int]]:
    """The views, the part of the batch and the number of images (the last may be missing) of each group."""
    done = 0
    while done < batch:
        left = batch - done
        views = min(_views(geometry), key=lambda views: _effort(views, left))
        images = _lanes(views, left) // views.maps.shape[0]
        yield views, slice(done, done + images), images
        done += images


@cached(32)
def _views(geometry: ParallelBeam) -> tuple[Views, ...]:
    mirrored = mirror_views(geometry)
    return (plain_views(geometry),) if mirrored is None else (mirrored, plain_views(geometry))


def _lanes(views: Views, left: int) -> int:
    """The fewest lanes that hold what is left of a batch; the most there are where none do."""
    return next((lanes for lanes in _LANES if lanes >= left * views.maps.shape[0]), _LANES[-1])


def _effort(views: Views, left: int) -> float:
    """What an image costs next: an update takes the time of 12 lanes, and that of the lanes it is made on."""
    lanes = _lanes(views, left)
    pixels = views.shape[0] * (views.shape[1] - views.begin)
    images = min(left, lanes // views.maps.shape[0])
    return float(views.theta.size * pixels * (lanes + 12) / images)


class _Positions(NamedTuple):
    """The pixel (i, j) of the views lies at `origin + i dx + j dy` on the detector, and reaches `reach` to either side.

    All in cells, each (A',).
    """

    dx: NDArray[np.float64]
    dy: NDArray[np.float64]
    origin: NDArray[np.float64]
    reach: NDArray[np.float64]


def _positions(geometry: ParallelBeam, interpolate: bool, views: Views) -> _Positions:
    ratio = geometry.pixel_size / geometry.cell_size
    dx, dy = np.cos(views.theta) * ratio, np.sin(views.theta) * ratio
    axis = geometry.axis_offset / geometry.cell_size + (geometry.cells - 1) / 2
    height, width = views.shape
    origin = axis - (height - 1) / 2 * dx - ((width - 1) / 2 - views.begin) * dy
    return _Positions(dx, dy, origin, reference.reaches(geometry, views.theta, interpolate))


def _backproject(
    sinogram: Tensor, geometry: ParallelBeam, interpolate: bool, views: Views, images: int, image: Tensor
) -> None:
    lanes = views.maps.shape[0] * images
    height, width = _up(views.shape[0], SIDE), _up(views.shape[1] - views.begin, SIDE)
    sums = np.zeros(height * width * lanes, dtype=np.float32)
    for some in _angles(views):
        rows = _scratch(some.theta.size * (geometry.cells + 2 * PAD_CELLS) * lanes)
        fold = functools.partial(
            layout().fold_sinogram, _flat(sinogram), tuple(sinogram.shape), some.angle_of, some.turned, images, rows
        )
        positions = _positions(geometry, interpolate, some)
        taps = 2 if np.all(positions.reach == 1) else TAPS
        gather = functools.partial(backprojector(lanes, taps), rows, *positions, geometry.cells, height, width, sums)
        parallel_for(fold, some.theta.size, _ROWS)
        parallel_for(gather, math.ceil(height / TILE) * math.ceil(width / TILE), 1)
    unfold = functools.partial(
        layout().unfold_image, sums, width * lanes, tuple(image.shape), views.maps, views.shape, views.begin, images,
        _scale(geometry), _flat(image),
    )  # fmt: skip
    parallel_for(unfold, image.shape[1], _ROWS)


def _project(
    image: Tensor, geometry: ParallelBeam, interpolate: bool, views: Views, images: int, sinogram: Tensor
) -> None:
    lanes = views.maps.shape[0] * images
    cells = _up(geometry.cells, BLOCK)
    length, num_lines = views.shape[0], views.shape[1] - views.begin
    lines = _scratch(num_lines * (length + 2 * PAD_PIXELS) * lanes)
    fold = functools.partial(
        layout().fold_image, _flat(image), tuple(image.shape), views.maps, views.shape, views.begin, images, lines
    )
    parallel_for(fold, num_lines, _ROWS)
    for some in _angles(views):
        sums = _scratch(some.theta.size * cells * lanes)
        positions = _positions(geometry, interpolate, some)
        gather = functools.partial(projector(lanes), lines, length, *positions, cells, sums)
        unfold = functools.partial(
            layout().unfold_sinogram, sums, tuple(sinogram.shape), some.angle_of, some.turned, images,
            _scale(geometry), _flat(sinogram),
        )  # fmt: skip
        parallel_for(gather, math.ceil(some.theta.size / BAND_ANGLES) * math.ceil(cells / BAND_CELLS), 1)
        parallel_for(unfold, some.theta.size, _ROWS)


def _angles(views: Views) -> Iterator[Views]:
    """The views at a few of their angles at a time."""
    for first in range(0, views.theta.size, _ANGLES):
        part = slice(first, first + _ANGLES)
        yield views._replace(theta=views.theta[part], angle_of=views.angle_of[part], turned=views.turned[part])


def _scale(geometry: ParallelBeam) -> np.float32:
    return np.float32(geometry.pixel_size**2 / geometry.cell_size)


def _flat(array: Tensor) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = array.detach().view(-1).numpy()
    return flat


def _scratch(size: int) -> NDArray[np.float32]:
    """Memory from torch, which keeps it for the next call, whatever torch's defaults are."""
    memory: NDArray[np.float32] = torch.empty(size, dtype=torch.float32, device="cpu").numpy()
    return memory


def _up(count: int, multiple: int) -> int:
    return math.ceil(count / multiple) * multiple
