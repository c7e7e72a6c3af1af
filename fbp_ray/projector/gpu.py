"""The two operators on a GPU in Triton: float32 sums, the samples of a batch innermost, the same result every time.

Nothing is built when the package is installed: Triton compiles a kernel at its first call and keeps it on disk. As on a
CPU a batch is worked on in groups that fill lanes: with images or, where the scan is symmetric, with the eight mirror
images of each (see `fbp_ray.projector.layout`), for which a quarter of the angles and half of the pixels are left. Each
group is laid side by side (`gpu_layout`), the kernel runs (`gpu_kernels`), and its result goes back.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fbp_ray.caches import cached
from fbp_ray.geometry import ParallelBeam
from fbp_ray.gpus import FUSED, has_products
from fbp_ray.projector import reference
from fbp_ray.projector.gpu_kernels import backproject_kernel, multiply_kernel, project_kernel
from fbp_ray.projector.gpu_layout import (
    fold_image_kernel,
    fold_sinogram_kernel,
    unfold_image_kernel,
    unfold_sinogram_kernel,
)
from fbp_ray.projector.layout import Views, mirror_views, plain_views, steep_views

_LANES = 128  # of a group at most; 256 of mirror images
_BLOCK, _PIXELS = 4096, 128  # elements whose layout a program changes, and pixels at most
_MANY = 64  # angles that are shared among programs
_SHARE = 512  # angles that the tensor cores add up; of a thousand they would make an error of 6e-5
_PAD = 16  # zero cells on either side of a row, as many as the SPAN of a product
_TAPS = 3  # pixels of a line that a cell gathers from at a time
_HIGHEST = 32768.0  # what the largest value of a sample becomes in float16
_LEAST = 1e-30  # that a largest value is taken for: a blank sample must not be multiplied by infinity


class _Tuning(NamedTuple):
    """How a kernel is started; found by measurement."""

    lanes: int
    tile: tuple[int, int]
    warps: int
    parts: int = 1
    angles: int = 4
    registers: int | None = None


def backproject(
    sinogram: Tensor, geometry: ParallelBeam, interpolate: bool = False, storage_dtype: torch.dtype | None = None
) -> Tensor:
    """(B, A, D) -> (B, H, W) of the same dtype, float32 or float16; summed in float32.

    `storage_dtype` is what the sinogram is kept as while it is read, its own dtype unless said. In float16 each sample
    is scaled by its largest value, so that neither units nor noise can leave float16's range.
    """
    batch, (height, width) = sinogram.shape[0], geometry.image_shape
    image = sinogram.new_empty((batch, height, width))
    if batch == 0:
        return image
    half = (storage_dtype or sinogram.dtype) == torch.float16
    table = _backprojection(geometry, interpolate, _rounded(batch), sinogram.device)
    views, images, lanes = table.views, table.images, table.lanes
    groups = math.ceil(batch / images)
    products, tuning = _tuning(lanes, half, table.narrow)
    split = products and not half
    scaled = half or split
    sinogram = sinogram.contiguous()
    largest = _largest(sinogram) if scaled else sinogram
    padded = geometry.cells + 2 * _PAD
    lines, across = table.dx.numel(), views.shape[1] - views.begin
    rows = sinogram.new_empty(
        (groups, lines, 2 if split else 1, padded, lanes), dtype=torch.float16 if scaled else torch.float32
    )
    parts = math.ceil(lines / _SHARE) if products else tuning.parts if lines >= _MANY else 1
    sums = sinogram.new_empty((parts, groups, views.shape[0], across, lanes), dtype=torch.float32)
    block = max(16, _BLOCK // lanes)
    tile = tuning.tile
    grid = (math.ceil(views.shape[0] / tile[0]) * math.ceil(across / tile[1]), lanes // tuning.lanes, parts * groups)
    scan = (geometry.num_angles, geometry.cells)
    shape = (*views.shape, views.begin)
    shared: dict[str, Any] = {
        "LANES": tuning.lanes, "TILE_X": tile[0], "TILE_Y": tile[1], "ANGLES": tuning.angles, "num_warps": tuning.warps,
        "maxnreg": tuning.registers, **FUSED,
    }  # fmt: skip
    with torch.cuda.device_of(sinogram):  # type: ignore[no-untyped-call]
        fold_sinogram_kernel[(math.ceil(padded / block), lines, groups)](
            sinogram, largest, rows, table.angle_of, table.turned, batch, *scan, padded, _HIGHEST,
            IMAGES=images, LANES=lanes, CELLS=block, PAD=_PAD, HALF=scaled, SPLIT=split, **FUSED,
        )  # fmt: skip
        if products:
            multiply_kernel[grid](
                rows, sums, table.dx, table.dy, table.axis, groups, lines, _SHARE, padded, *shape, lanes,
                SPAN=_PAD, SPLIT=split, **shared,
            )  # fmt: skip
        else:
            backproject_kernel[grid](
                rows, sums, table.dx, table.dy, table.reach, table.axis, groups, lines // parts, padded, *shape,
                table.reached, lanes,
                INTERPOLATE=table.reached == 2, **shared,
            )  # fmt: skip
        pixels = min(_PIXELS, _BLOCK // images)
        unfold_image_kernel[(math.ceil(height * width / pixels), groups)](
            sums, largest, image, table.maps, batch, height, width, *shape,
            _scale(geometry) / (_HIGHEST if scaled else 1),
            VIEWS=views.maps.shape[0], IMAGES=images, PIXELS=pixels, PARTS=parts, SCALED=scaled, **FUSED,
        )  # fmt: skip
    return image


def project(image: Tensor, geometry: ParallelBeam, interpolate: bool = False) -> Tensor:
    """(B, H, W) -> (B, A, D) of the same dtype, float32 or float16; read and summed in float32."""
    batch = image.shape[0]
    sinogram = image.new_empty((batch, *geometry.sinogram_shape))
    if batch == 0:
        return sinogram
    image = image.contiguous()
    images, crossings = _projection(geometry, interpolate, _rounded(batch), image.device)
    groups = math.ceil(batch / images)
    for crossing in crossings:
        views = crossing.views
        lanes = views.maps.shape[0] * images
        length, num_lines = views.shape[0], views.shape[1] - views.begin
        lines = image.new_empty((groups, num_lines, length + crossing.pixels, lanes), dtype=torch.float32)
        sums = image.new_empty((groups, views.theta.size, geometry.cells, lanes), dtype=torch.float32)
        block, many = max(16, _BLOCK // lanes), min(lanes, 64)
        cells = 512 // many
        kind: dict[str, Any] = {"VIEWS": views.maps.shape[0], "IMAGES": images, **FUSED}
        with torch.cuda.device_of(image):  # type: ignore[no-untyped-call]
            fold_image_kernel[(math.ceil((length + crossing.pixels) / block), num_lines, groups)](
                image, lines, crossing.maps, batch, *geometry.image_shape, *views.shape, views.begin,
                LANES=lanes, PIXELS=block, PAD=crossing.pixels, **kind,
            )  # fmt: skip
            project_kernel[(math.ceil(geometry.cells / cells) * views.theta.size, lanes // many, groups)](
                lines, sums, crossing.along, crossing.across, crossing.reach, crossing.axis, num_lines, length,
                views.begin, views.shape[1], geometry.cells, lanes,
                LANES=many, CELLS=cells, PIXELS=crossing.pixels, TAPS=_TAPS, num_warps=4, **FUSED,
            )  # fmt: skip
            block = max(16, _BLOCK // images)
            unfold_sinogram_kernel[(math.ceil(geometry.cells / block), crossing.angles.numel(), groups)](
                sums, sinogram, crossing.angles, crossing.line_of, crossing.view_of, crossing.turned, batch,
                geometry.num_angles, views.theta.size, geometry.cells, _scale(geometry), CELLS=block, **kind,
            )  # fmt: skip
    return sinogram


def _tuning(lanes: int, half: bool, narrow: bool) -> tuple[bool, _Tuning]:
    """Whether to multiply matrices, and how the kernel is started."""
    if narrow and lanes >= (32 if half else 64):
        angles, registers = (8, 168) if half else (2, 128)  # three or four programs on a multiprocessor, not two
        return True, _Tuning(min(lanes, 128), (8, 8), 4, angles=angles, registers=registers)
    if lanes >= 32:
        return False, _Tuning(32, (4, 8), 4)
    return False, _Tuning(lanes, (4, 8), 1, parts=4)


class _Backprojection(NamedTuple):
    """Where pixels lie on the detector and how far they reach, in cells; the tensors on the device.

    `dx`, `dy` and `reach` are (A',), A' rounded up to a multiple of 8 or 16 with angles that are nobody's; `angle_of`
    and `turned` are (A', V). `reached` is the most cells that a pixel reaches; 2 says that every reach is 1. `narrow`
    says that matrices can be multiplied: the GPU has tensor cores that Triton knows, and a tile of 8 x 8 pixels reaches
    few cells.
    """

    views: Views
    images: int
    lanes: int
    dx: Tensor
    dy: Tensor
    reach: Tensor
    reached: int
    narrow: bool
    axis: float
    angle_of: Tensor
    turned: Tensor
    maps: Tensor


@cached(32)
def _backprojection(geometry: ParallelBeam, interpolate: bool, batch: int, device: torch.device) -> _Backprojection:
    """Computed in float64; float32 then places a pixel to about 1e-7 of the detector's width."""
    views = _views(geometry)
    images = _images(batch, views)
    lanes = views.maps.shape[0] * images
    ratio = geometry.pixel_size / geometry.cell_size
    reach = reference.reaches(geometry, views.theta, interpolate)
    missing = -views.theta.size % (16 if views.theta.size >= _MANY else 8)

    def on_device(array: np.ndarray, dtype: Any, fill: float = 0) -> Tensor:
        filled = np.concatenate([array, np.full((missing, *array.shape[1:]), fill)])
        return torch.as_tensor(filled.astype(dtype), device=device)

    return _Backprojection(
        views=views,
        images=images,
        lanes=lanes,
        dx=on_device(np.cos(views.theta) * ratio, np.float32),
        dy=on_device(np.sin(views.theta) * ratio, np.float32),
        reach=on_device(reach, np.float32, 1),
        reached=2 if np.all(reach == 1) else max(3, min(math.ceil(2 * reach.max()), geometry.cells + _PAD)),
        narrow=bool(np.all(reach == 1)) and math.ceil(7 * math.sqrt(2) * ratio) + 3 <= _PAD and has_products(device),
        axis=_axis(geometry) + _PAD,
        angle_of=on_device(views.angle_of, np.int32, -1),
        turned=on_device(views.turned, np.int32),
        maps=torch.as_tensor(views.maps.astype(np.int32), device=device),
    )


class _Crossing(NamedTuple):
    """The angles whose rays are best followed along lines of the views; the tensors on the device.

    `along`, `across` and `reach` are (A',); `angles`, those of the scan that are in the first half of the views, and
    where they are, `line_of`, `view_of` and `turned`, are each of one length.
    """

    views: Views
    along: Tensor
    across: Tensor
    reach: Tensor
    axis: float
    pixels: int
    angles: Tensor
    line_of: Tensor
    view_of: Tensor
    turned: Tensor
    maps: Tensor


@cached(32)
def _projection(
    geometry: ParallelBeam, interpolate: bool, batch: int, device: torch.device
) -> tuple[int, tuple[_Crossing, ...]]:
    ratio = geometry.pixel_size / geometry.cell_size

    def on_device(array: np.ndarray, dtype: Any) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array).astype(dtype), device=device)

    crossings = []
    for views in steep_views(_views(geometry)):
        along, across = np.cos(views.theta) * ratio, np.sin(views.theta) * ratio
        reach = reference.reaches(geometry, views.theta, interpolate)
        # Pixels that reach a ray: an open interval of 2 reach / |along| pixels, at most all of them.
        pixels = min(math.ceil((2 * reach / np.abs(along)).max()), views.shape[0])
        first = views.angle_of[:, : max(views.maps.shape[0] // 2, 1)]
        line_of, view_of = np.nonzero(first >= 0)
        crossings.append(
            _Crossing(
                views=views,
                along=on_device(along, np.float32),
                across=on_device(across, np.float32),
                reach=on_device(reach, np.float32),
                axis=_axis(geometry),
                pixels=math.ceil(pixels / _TAPS) * _TAPS,
                angles=on_device(first[line_of, view_of], np.int32),
                line_of=on_device(line_of, np.int32),
                view_of=on_device(view_of, np.int32),
                turned=on_device(views.turned[line_of, view_of], np.int32),
                maps=on_device(views.maps, np.int32),
            )
        )
    return _images(batch, _views(geometry)), tuple(crossings)


@cached(32)
def _views(geometry: ParallelBeam) -> Views:
    """The mirror images where most angles of the scan share theirs with others, else the image itself."""
    mirrored = mirror_views(geometry)
    if mirrored is None or (mirrored.angle_of >= 0).mean() < 0.75:
        return plain_views(geometry)
    return mirrored


def _rounded(batch: int) -> int:
    """The next power of two: that many samples have their tables and kernels together."""
    return 1 << (batch - 1).bit_length()


def _images(batch: int, views: Views) -> int:
    """The images of a group, for a batch of a power of two."""
    return min(_LANES if len(views.maps) == 1 else 2 * _LANES // len(views.maps), batch)


def _scale(geometry: ParallelBeam) -> float:
    return geometry.pixel_size**2 / geometry.cell_size


def _largest(sinogram: Tensor) -> Tensor:
    """(B,) float32: each sample's largest value, of whichever sign; above 0."""
    largest: Tensor = torch.linalg.vector_norm(sinogram, math.inf, dim=(1, 2), dtype=torch.float32)
    return largest.clamp_min(_LEAST)


def _axis(geometry: ParallelBeam) -> float:
    """The cell that the axis of rotation falls on."""
    return geometry.axis_offset / geometry.cell_size + (geometry.cells - 1) / 2
