"""The GPU kernels in Triton: both operators as gathers over arrays whose samples lie innermost.

Positions on the detector are counted in cells. With a pixel's place (x, y) counted in pixels from the image's centre,
it lies at `x dx + y dy + axis`, where `dx = cos(theta) pixel_size / cell_size` and `dy` likewise with the sine. The
LANES of a program are neighbours in memory, so that one index and one weight serve all of them and what they read is
contiguous. All kernels gather, hence they are deterministic and need no atomic additions.

`backproject_kernel` reads, for each pixel and angle, the cells that the pixel reaches. Its limit is the first-level
cache, 128 bytes a cycle: two reads an update. `multiply_kernel` reads a cell once for a tile of 8 x 8 pixels. Seen
from one angle such a tile is at most 12 cells wide, so what it gathers from them is a product of matrices: of weights,
64 pixels x 16 cells, of which two in a row are not 0, and of samples, 16 cells x LANES. The tensor cores do eight
times the multiplications that are needed in an eighth of the time.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def backproject_kernel(
    rows, sums, dx, dy, reach, axis, groups, num_angles, padded, length, num_lines, begin, reached, lanes,
    LANES: tl.constexpr, TILE_X: tl.constexpr, TILE_Y: tl.constexpr, ANGLES: tl.constexpr, INTERPOLATE: tl.constexpr,
):  # fmt: skip
    """A tile of pixels: `rows` (G, A, D + 2 PAD, L) to `sums` (P, G, H, W - begin, L); the columns from `begin` on.

    Each of P parts has the sum over `num_angles` = A / P angles, so that few samples keep a GPU busy. A pixel gathers
    from the `reached` cells from the first one that it reaches on; where every reach is 1, INTERPOLATE does the same
    faster. `axis` counts from the first cell of the padding; A / P is a multiple of ANGLES, by angles at which all
    cells are 0. The grid is (tiles, L / LANES, P G). The sum is float32, whatever `rows` is stored in.
    """
    across = num_lines - begin
    tiles_across = tl.cdiv(across, TILE_Y)
    tile, group = tl.program_id(0), (tl.program_id(2) % groups).to(tl.int64)
    begin_angle = tl.program_id(2) // groups * num_angles
    all_angles = tl.num_programs(2) // groups * num_angles
    pixel = tl.arange(0, TILE_X * TILE_Y)
    i = tile // tiles_across * TILE_X + pixel // TILE_Y
    j = tile % tiles_across * TILE_Y + pixel % TILE_Y
    x = i - (length - 1) * 0.5
    y = j + begin - (num_lines - 1) * 0.5
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    row = rows + (group * all_angles + begin_angle) * padded * lanes
    total = tl.zeros((TILE_X * TILE_Y, LANES), tl.float32)
    for first in range(begin_angle, begin_angle + num_angles, ANGLES):
        for angle in tl.static_range(ANGLES):
            position = x * tl.load(dx + first + angle) + (y * tl.load(dy + first + angle) + axis)
            if INTERPOLATE:
                # Added to 2^23 a number is rounded, and its last bits are the cell.
                shifted = tl.minimum(tl.maximum(position, 0.5), padded - 1.5) + 8388607.5
                weight = (position - (shifted - 8388608.0))[:, None]
                cell = shifted.to(tl.int32, bitcast=True) & 0x7FFFFF
                offset = (cell * lanes)[:, None] + lane[None, :]
                left = tl.load(row + offset).to(tl.float32)
                right = tl.load(row + offset + lanes).to(tl.float32)
                total += left + weight * (right - left)
            else:
                far = tl.load(reach + first + angle)
                slope = 1.0 / far
                start = tl.minimum(tl.maximum(tl.floor(position - far) + 1, 0.0), padded - 1.0).to(tl.int32)
                for neighbour in range(reached):
                    cell = tl.minimum(start + neighbour, padded - 1)
                    weight = tl.maximum(1.0 - tl.abs(position - cell) * slope, 0.0) * slope
                    value = tl.load(row + (cell * lanes)[:, None] + lane[None, :]).to(tl.float32)
                    total += weight[:, None] * value
            row += padded * lanes
    seen = (i < length) & (j < across)
    target = ((tl.program_id(2).to(tl.int64) * length + i) * across + j)[:, None] * lanes + lane[None, :]
    tl.store(sums + target, total, mask=seen[:, None])


@triton.jit
def multiply_kernel(
    rows, sums, dx, dy, axis, groups, num_angles, share, padded, length, num_lines, begin, lanes,
    LANES: tl.constexpr, TILE_X: tl.constexpr, TILE_Y: tl.constexpr, SPAN: tl.constexpr, ANGLES: tl.constexpr,
    SPLIT: tl.constexpr,
):  # fmt: skip
    """As `backproject_kernel` where every reach is 1, by the tensor cores; `rows` (G, A, HALVES, D + 2 PAD, L).

    They are float16. SPAN cells hold all that a tile of pixels reaches at one angle, PAD is at least SPAN, and ANGLES
    angles go into one product. With SPLIT both weights and samples are sums of two float16, of which the product of the
    smaller ones is left out: as good as float32. The tensor cores cut sums off rather than round them, which adds up:
    so a part has no more than `share` angles, a multiple of ANGLES. The grid is (tiles, L / LANES, P G).
    """
    across = num_lines - begin
    tiles_across = tl.cdiv(across, TILE_Y)
    tile, group = tl.program_id(0), (tl.program_id(2) % groups).to(tl.int64)
    begin_angle = tl.program_id(2) // groups * share
    end_angle = tl.minimum(begin_angle + share, num_angles)
    pixel = tl.arange(0, TILE_X * TILE_Y)
    i = tile // tiles_across * TILE_X
    j = tile % tiles_across * TILE_Y
    middle_x = i + (TILE_X - length) * 0.5
    middle_y = j + begin + (TILE_Y - num_lines) * 0.5
    x = pixel // TILE_Y - (TILE_X - 1) * 0.5
    y = pixel % TILE_Y - (TILE_Y - 1) * 0.5
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    column = tl.arange(0, ANGLES * SPAN)
    angle, beyond = column // SPAN, column % SPAN
    HALVES: tl.constexpr = 2 if SPLIT else 1
    row = rows + (group * num_angles + begin_angle) * HALVES * padded * lanes
    total = tl.zeros((TILE_X * TILE_Y, LANES), tl.float32)
    for first in tl.range(begin_angle, end_angle, ANGLES, num_stages=2):
        cosine, sine = tl.load(dx + first + angle), tl.load(dy + first + angle)
        centre = middle_x * cosine + (middle_y * sine + axis)
        start = tl.floor(centre) - (SPAN // 2 - 1)
        start = tl.minimum(tl.maximum(start, 0.0), (padded - SPAN) * 1.0)
        source = (angle * (HALVES * padded) + start.to(tl.int32) + beyond) * lanes
        samples = tl.load(row + source[:, None] + lane[None, :])
        distance = x[:, None] * cosine[None, :] + (y[:, None] * sine[None, :] + ((centre - start) - beyond)[None, :])
        weight = tl.maximum(1.0 - tl.abs(distance), 0.0)
        rounded = weight.to(tl.float16)
        if SPLIT:
            rest = (weight - rounded.to(tl.float32)).to(tl.float16)
            small = tl.load(row + padded * lanes + source[:, None] + lane[None, :])
            total = tl.dot(rounded, small, total)
            total = tl.dot(rest, samples, total)
        total = tl.dot(rounded, samples, total)
        row += ANGLES * HALVES * padded * lanes
    i += pixel // TILE_Y
    j += pixel % TILE_Y
    target = ((tl.program_id(2).to(tl.int64) * length + i) * across + j)[:, None] * lanes + lane[None, :]
    tl.store(sums + target, total, mask=((i < length) & (j < across))[:, None])


@triton.jit
def project_kernel(
    lines, sums, along, across, reach, axis, num_lines, length, begin, all_lines, cells, lanes,
    LANES: tl.constexpr, CELLS: tl.constexpr, PIXELS: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """A block of cells of one angle: `lines` (G, W', H + PIXELS, L), 0 in its last pixels, to `sums` (G, A, D, L).

    A line is what the rays of an angle cross: H pixels, `along` cells apart on the detector, where neighbouring lines
    are `across` cells apart; the first line is the one `begin` of `all_lines`. A pixel reaches the cells less than
    `reach` away, its weight falling linearly to 0 there, so that at most PIXELS neighbouring pixels of a line, TAPS at
    a time, reach one cell. The grid is (blocks of cells x angles, L / LANES, groups).
    """
    blocks = tl.cdiv(cells, CELLS)
    angle, group = tl.program_id(0) // blocks, tl.program_id(2).to(tl.int64)
    num_angles = tl.num_programs(0) // blocks
    step, pitch, far = tl.load(along + angle), tl.load(across + angle), tl.load(reach + angle)
    cell = tl.program_id(0) % blocks * CELLS + tl.arange(0, CELLS)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    per_cell, fall = 1.0 / step, tl.abs(step) / far
    half_length, half_reach = (length - 1) * 0.5, tl.abs(far / step)
    line = lines + group * num_lines * (length + PIXELS) * lanes
    total = tl.zeros((CELLS, LANES), tl.float32)
    for number in range(num_lines):
        middle = (number + begin - (all_lines - 1) * 0.5) * pitch + axis
        centre = (cell - middle) * per_cell + half_length  # where on the line the cell's ray crosses it, in pixels
        first = tl.minimum(tl.maximum(tl.floor(centre - half_reach) + 1, 0.0), length * 1.0)
        offset = (first.to(tl.int32) * lanes)[:, None] + lane[None, :]
        distance = first - centre
        for skipped in range(0, PIXELS, TAPS):
            for tap in tl.static_range(TAPS):
                weight = tl.maximum(1.0 - tl.abs(distance + (skipped + tap)) * fall, 0.0)
                total += weight[:, None] * tl.load(line + offset + (skipped + tap) * lanes)
        line += (length + PIXELS) * lanes
    target = ((group * num_angles + angle) * cells + cell)[:, None] * lanes + lane[None, :]
    tl.store(sums + target, total * (1.0 / far), mask=(cell < cells)[:, None])
