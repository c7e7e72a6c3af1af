"""The two operators on a GPU in Triton: float32 sums, the samples of a batch innermost, the same result every time.

Nothing is built when the package is installed: Triton compiles a kernel at its first call and keeps it on disk. Both
kernels gather, hence they are deterministic and need no atomic additions.

Positions on the detector are counted in cells. With a pixel's place (x, y) counted in pixels from the image's centre,
it lies at `x dx + y dy + axis`, where `dx = cos(theta) pixel_size / cell_size` and `dy` likewise with the sine. Arrays
have their samples innermost: a group of LANES samples lies side by side, so that one index and one weight serve all of
them and what they read is contiguous.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from fbp_ray.caches import cached
from fbp_ray.geometry import ParallelBeam
from fbp_ray.projector.reference import reaches

_LANES = 32  # samples side by side at most: 32 float32 are one memory transaction
_BLOCK = 512  # sums that a program keeps: pixels x lanes, or cells x lanes

# Said rather than left to Triton, whose default differs between versions.
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}


def backproject(
    sinogram: Tensor, geometry: ParallelBeam, interpolate: bool = False, storage_dtype: torch.dtype | None = None
) -> Tensor:
    """(B, A, D) -> (B, H, W) of the same dtype, float32 or float16; summed in float32.

    `storage_dtype` is what the sinogram is kept as while it is read, its own dtype unless said. In float16 each sample
    is scaled by its largest value, so that neither units nor noise can leave float16's range.
    """
    storage_dtype = storage_dtype or sinogram.dtype
    batch, (height, width) = sinogram.shape[0], geometry.image_shape
    if batch == 0:
        return sinogram.new_empty((0, height, width))
    largest = None
    if storage_dtype == torch.float16 != sinogram.dtype:
        largest = sinogram.abs().amax((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        sinogram = sinogram / largest
    dtype, table = sinogram.dtype, _table(geometry, interpolate, sinogram.device)
    rows = torch.nn.functional.pad(_side_by_side(sinogram.to(storage_dtype)), (0, 0, 1, 1))
    groups, lanes = rows.shape[0], rows.shape[-1]
    sums = rows.new_empty((groups, height, width, lanes), dtype=torch.float32)
    tile_x, tile_y = _tile(_BLOCK // lanes)
    with torch.cuda.device_of(sinogram):  # type: ignore[no-untyped-call]
        backproject_kernel[(math.ceil(height / tile_x) * math.ceil(width / tile_y), groups)](
            rows, sums, table.dx, table.dy, table.reach, table.axis, geometry.num_angles, geometry.cells, height,
            width, table.reached, _scale(geometry), LANES=lanes, TILE_X=tile_x, TILE_Y=tile_y,
            INTERPOLATE=table.reached == 2, **_OPTIONS,
        )  # fmt: skip
    image = _one_by_one(sums, batch)
    return (image if largest is None else image * largest).to(dtype)


def project(image: Tensor, geometry: ParallelBeam, interpolate: bool = False) -> Tensor:
    """(B, H, W) -> (B, A, D) of the same dtype, float32 or float16; read and summed in float32."""
    batch = image.shape[0]
    if batch == 0:
        return image.new_empty((0, *geometry.sinogram_shape))
    table = _table(geometry, interpolate, image.device)
    sums: Tensor | None = None
    for crossing in table.crossings:
        lines = _side_by_side(image.float() if crossing.along_y else image.float().mT)
        groups, num_lines, length, lanes = lines.shape
        if sums is None:
            sums = lines.new_empty((groups, *geometry.sinogram_shape, lanes))
        block = _BLOCK // lanes
        with torch.cuda.device_of(image):  # type: ignore[no-untyped-call]
            project_kernel[(math.ceil(geometry.cells / block) * crossing.angles.numel(), groups)](
                lines, sums, crossing.angles, crossing.along, crossing.across, table.reach, table.axis,
                geometry.num_angles, geometry.cells, num_lines, length, _scale(geometry),
                LANES=lanes, CELLS=block, PIXELS=crossing.pixels, **_OPTIONS,
            )  # fmt: skip
    assert sums is not None  # there is at least one angle, and each crosses the image one way or the other
    return _one_by_one(sums, batch).to(image.dtype)


class _Crossing(NamedTuple):
    """The angles whose rays are best followed along lines of x (or of y): on the device, each (A',)."""

    along_y: bool
    angles: Tensor
    along: Tensor
    across: Tensor
    pixels: int


class _Table(NamedTuple):
    """Where pixels lie on the detector and how far they reach, in cells; the tensors on the device, each (A,).

    `reached` is the most cells that a pixel reaches; 2 says that every reach is 1.
    """

    dx: Tensor
    dy: Tensor
    reach: Tensor
    reached: int
    axis: float
    crossings: tuple[_Crossing, ...]


@cached(32)
def _table(geometry: ParallelBeam, interpolate: bool, device: torch.device) -> _Table:
    """Computed in float64; float32 then places a pixel to about 1e-7 of the detector's width."""
    ratio = geometry.pixel_size / geometry.cell_size
    dx, dy = np.cos(geometry.theta) * ratio, np.sin(geometry.theta) * ratio
    reach = reaches(geometry, geometry.theta, interpolate)
    reached = 2 if np.all(reach == 1) else max(3, min(math.ceil(2 * reach.max()), geometry.cells))

    def on_device(array: np.ndarray) -> Tensor:
        return torch.as_tensor(array.astype(np.float32), device=device)

    along_y = np.abs(dy) > np.abs(dx)
    crossings = []
    for flag, along, across, length in (
        (False, dx, dy, geometry.image_shape[0]),
        (True, dy, dx, geometry.image_shape[1]),
    ):
        chosen = np.flatnonzero(along_y == flag)
        if chosen.size:
            # Pixels that reach a ray: an open interval of 2 reach / |along| pixels, at most all of them.
            pixels = min(math.ceil((2 * reach[chosen] / np.abs(along[chosen])).max()), length)
            angles = torch.as_tensor(chosen, device=device)
            crossings.append(_Crossing(flag, angles, on_device(along[chosen]), on_device(across[chosen]), pixels))
    axis = geometry.axis_offset / geometry.cell_size + (geometry.cells - 1) / 2
    return _Table(on_device(dx), on_device(dy), on_device(reach), reached, axis, tuple(crossings))


def _side_by_side(array: Tensor) -> Tensor:
    """(B, M, N) -> (groups, M, N, lanes), contiguous: a power of two lanes, the missing samples 0."""
    batch = array.shape[0]
    lanes = min(_LANES, 1 << (batch - 1).bit_length())
    groups = math.ceil(batch / lanes)
    full = torch.nn.functional.pad(array, (0, 0, 0, 0, 0, groups * lanes - batch))
    return full.reshape(groups, lanes, *array.shape[1:]).permute(0, 2, 3, 1).contiguous()


def _one_by_one(array: Tensor, batch: int) -> Tensor:
    """The way back: (groups, M, N, lanes) -> (B, M, N), contiguous."""
    return array.permute(0, 3, 1, 2).reshape(-1, *array.shape[1:3])[:batch]


def _tile(pixels: int) -> tuple[int, int]:
    """A power of two of pixels as a tile, the longer side, if any, along y."""
    bits = pixels.bit_length() - 1
    return 1 << bits // 2, 1 << (bits - bits // 2)


def _scale(geometry: ParallelBeam) -> float:
    return geometry.pixel_size**2 / geometry.cell_size


@triton.jit
def backproject_kernel(
    rows, image, dx, dy, reach, axis, num_angles, cells, height, width, reached, scale,
    LANES: tl.constexpr, TILE_X: tl.constexpr, TILE_Y: tl.constexpr, INTERPOLATE: tl.constexpr,
):  # fmt: skip
    """A tile of pixels of one group: `rows` (G, A, D + 2, LANES), 0 in its outer cells, to `image` (G, H, W, LANES).

    A pixel gathers from the `reached` cells from the first one that it reaches on; where every reach is 1, INTERPOLATE
    does the same faster. The grid is (tiles, groups). The sum is float32, whatever `rows` is stored in.
    """
    tiles_along_y = tl.cdiv(width, TILE_Y)
    tile, group = tl.program_id(0), tl.program_id(1).to(tl.int64)
    pixel = tl.arange(0, TILE_X * TILE_Y)
    i = tile // tiles_along_y * TILE_X + pixel // TILE_Y
    j = tile % tiles_along_y * TILE_Y + pixel % TILE_Y
    x = i - (height - 1) * 0.5
    y = j - (width - 1) * 0.5
    lane = tl.arange(0, LANES)
    row = rows + group * num_angles * (cells + 2) * LANES
    total = tl.zeros((TILE_X * TILE_Y, LANES), tl.float32)
    for angle in range(num_angles):
        position = x * tl.load(dx + angle) + (y * tl.load(dy + angle) + axis) + 1  # 1: the cell of zeros before
        if INTERPOLATE:
            position = tl.minimum(tl.maximum(position, 0.0), cells + 1.0)
            cell = tl.minimum(position.to(tl.int32), cells)
            weight = (position - cell)[:, None]
            offset = cell[:, None] * LANES + lane[None, :]
            left = tl.load(row + offset).to(tl.float32)
            right = tl.load(row + offset + LANES).to(tl.float32)
            total += left + weight * (right - left)
        else:
            far = tl.load(reach + angle)
            slope = 1.0 / far
            first = tl.minimum(tl.maximum(tl.floor(position - far) + 1, 1.0), cells + 1.0).to(tl.int32)
            for neighbour in range(reached):
                cell = tl.minimum(first + neighbour, cells + 1)
                weight = tl.maximum(1.0 - tl.abs(position - cell) * slope, 0.0) * slope
                value = tl.load(row + cell[:, None] * LANES + lane[None, :]).to(tl.float32)
                total += weight[:, None] * value
        row += (cells + 2) * LANES
    seen = (i < height) & (j < width)
    target = ((group * height + i) * width + j)[:, None] * LANES + lane[None, :]
    tl.store(image + target, total * scale, mask=seen[:, None])


@triton.jit
def project_kernel(
    lines, sinogram, angles, along, across, reach, axis, num_angles, cells, num_lines, length, scale,
    LANES: tl.constexpr, CELLS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """A block of cells of one angle and group: `lines` (G, N, M, LANES) to `sinogram` (G, A, D, LANES).

    A line is what the rays of an angle cross: M pixels, `along` cells apart on the detector, where neighbouring lines
    are `across` cells apart. A pixel reaches the cells less than `reach` away, its weight falling linearly to 0 there,
    so that at most PIXELS neighbouring pixels of a line reach one cell. `angles` are those whose rays cross the image
    this way; the grid is (blocks of cells x those angles, groups).
    """
    blocks = tl.cdiv(cells, CELLS)
    which, group = tl.program_id(0) // blocks, tl.program_id(1).to(tl.int64)
    angle = tl.load(angles + which)
    step, pitch, far = tl.load(along + which), tl.load(across + which), tl.load(reach + angle)
    slope = 1.0 / far
    cell = tl.program_id(0) % blocks * CELLS + tl.arange(0, CELLS)
    lane = tl.arange(0, LANES)
    half_length = (length - 1) * 0.5
    line = lines + group * num_lines * length * LANES
    total = tl.zeros((CELLS, LANES), tl.float32)
    for number in range(num_lines):
        middle = (number - (num_lines - 1) * 0.5) * pitch + axis
        below = (cell - middle) / step - tl.abs(far / step) + half_length
        first = tl.minimum(tl.maximum(tl.floor(below) + 1, 0.0), length).to(tl.int32)
        for neighbour in range(PIXELS):
            pixel = first + neighbour
            distance = tl.abs((pixel - half_length) * step + middle - cell)
            weight = tl.maximum(1.0 - distance * slope, 0.0)
            source = line + pixel[:, None] * LANES + lane[None, :]
            total += weight[:, None] * tl.load(source, mask=(pixel < length)[:, None], other=0.0)
        line += length * LANES
    target = ((group * num_angles + angle) * cells + cell)[:, None] * LANES + lane[None, :]
    tl.store(sinogram + target, total * (scale * slope), mask=(cell < cells)[:, None])
