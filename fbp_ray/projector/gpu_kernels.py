"""The two operators as Triton kernels: gathers, hence deterministic and without atomic additions.

Positions on the detector are counted in cells. With a pixel's place (x, y) counted in pixels from the image's centre,
it lies at `x dx + y dy + axis`, where `dx = cos(theta) pixel_size / cell_size` and `dy` likewise with the sine. Arrays
have their samples innermost: a group of LANES samples lies side by side, so that one index and one weight serve all of
them and what they read is contiguous.
"""

import triton
import triton.language as tl


@triton.jit
def backproject_kernel(
    rows, image, dx, dy, axis, num_angles, cells, height, width, scale,
    LANES: tl.constexpr, TILE_X: tl.constexpr, TILE_Y: tl.constexpr,
):  # fmt: skip
    """A tile of pixels of one group: `rows` (G, A, D + 2, LANES), 0 in its outer cells, to `image` (G, H, W, LANES).

    The grid is (tiles, groups). The sum is float32, whatever `rows` is stored in.
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
        position = tl.minimum(tl.maximum(position, 0.0), cells + 1.0)
        cell = tl.minimum(position.to(tl.int32), cells)
        weight = (position - cell)[:, None]
        offset = cell[:, None] * LANES + lane[None, :]
        left = tl.load(row + offset).to(tl.float32)
        right = tl.load(row + offset + LANES).to(tl.float32)
        total += left + weight * (right - left)
        row += (cells + 2) * LANES
    seen = (i < height) & (j < width)
    target = ((group * height + i) * width + j)[:, None] * LANES + lane[None, :]
    tl.store(image + target, total * scale, mask=seen[:, None])


@triton.jit
def project_kernel(
    lines, sinogram, angles, along, across, axis, num_angles, cells, num_lines, length, scale,
    LANES: tl.constexpr, CELLS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """A block of cells of one angle and group: `lines` (G, N, M, LANES) to `sinogram` (G, A, D, LANES).

    A line is what the rays of an angle cross: M pixels, `along` cells apart on the detector, where neighbouring lines
    are `across` cells apart. A pixel reaches the cells less than one cell away, its weight falling linearly to 0 there,
    so that at most PIXELS neighbouring pixels of a line reach one cell. `angles` are those whose rays cross the image
    this way; the grid is (blocks of cells x those angles, groups).
    """
    blocks = tl.cdiv(cells, CELLS)
    which, group = tl.program_id(0) // blocks, tl.program_id(1).to(tl.int64)
    step, pitch = tl.load(along + which), tl.load(across + which)
    cell = tl.program_id(0) % blocks * CELLS + tl.arange(0, CELLS)
    lane = tl.arange(0, LANES)
    half_length = (length - 1) * 0.5
    line = lines + group * num_lines * length * LANES
    total = tl.zeros((CELLS, LANES), tl.float32)
    for number in range(num_lines):
        middle = (number - (num_lines - 1) * 0.5) * pitch + axis
        below = (cell - middle) / step - tl.abs(1.0 / step) + half_length
        first = tl.minimum(tl.maximum(tl.floor(below) + 1, 0.0), length).to(tl.int32)
        for neighbour in range(PIXELS):
            pixel = first + neighbour
            distance = tl.abs((pixel - half_length) * step + middle - cell)
            weight = tl.maximum(1.0 - distance, 0.0)
            source = line + pixel[:, None] * LANES + lane[None, :]
            total += weight[:, None] * tl.load(source, mask=(pixel < length)[:, None], other=0.0)
        line += length * LANES
    angle = tl.load(angles + which)
    target = ((group * num_angles + angle) * cells + cell)[:, None] * LANES + lane[None, :]
    tl.store(sinogram + target, total * scale, mask=(cell < cells)[:, None])
