"""The CPU kernels: backprojection onto a tile of the image, projection onto a band of a few angles and cells.

Arrays are flat, float32, samples innermost (see `lanes`):

    rows    (A, D + 2 PAD_CELLS, L)         the sinogram, every row between zero cells
    lines   (W, H + 2 PAD_PIXELS, L)        the image, for angles at which a step along its axis 0 is the longer one on
                                            the detector; for the others W and H change places
    sums    the output: (H, W, L), H and W rounded up to SIDE, or (A, D, L), D rounded up to BLOCK
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from fbp_ray.projector.compiler import Kernel
from fbp_ray.projector.lanes import (
    BAND_ANGLES,
    BAND_CELLS,
    BAND_LINES,
    BLOCK,
    LINES,
    PAD_CELLS,
    PAD_PIXELS,
    SIDE,
    TAPS,
    TILE,
    footprint,
    gather,
    positions,
    sums_in_registers,
)


@functools.cache
def backprojector(lanes: int) -> Any:
    """The kernel `(rows, dx, dy, origin, cells, height, width, sums, first, last)` for L lanes.

    It adds to the tiles `first:last`, numbered row by row, of (height, width, L). The pixel (i, j) lies at `origin[a] +
    i dx[a] + j dy[a]` on the detector, in cells.
    """
    together = sums_in_registers(lanes)

    def backproject_tiles(
        rows: Any, dx: Any, dy: Any, origin: Any, cells: int, height: int, width: int, sums: Any, first: int, last: int
    ) -> None:
        row_length = (cells + 2 * PAD_CELLS) * lanes
        down = width * lanes
        tiles_across = (width + TILE - 1) // TILE
        starts = np.empty(LINES, np.int64)
        offset_whole, offset_part = np.empty(LINES * BLOCK, np.int32), np.empty(LINES * BLOCK, np.float32)
        first_cell, weights = np.empty(LINES * BLOCK, np.int32), np.empty(LINES * BLOCK, np.float32)
        corner, along, across = np.zeros(LINES), np.zeros(LINES), np.zeros(LINES)
        whole, part = np.empty(LINES, np.int32), np.empty(LINES, np.float32)
        for tile in range(first, last):
            top, left = tile // tiles_across * TILE, tile % tiles_across * TILE
            bottom, right = min(top + TILE, height), min(left + TILE, width)
            for first_angle in range(0, dx.size, LINES):
                count = min(LINES, dx.size - first_angle)
                for t in range(count):
                    a = first_angle + t
                    starts[t] = a * row_length
                    corner[t], along[t], across[t] = origin[a] + PAD_CELLS, dx[a], dy[a]
                    for p in range(BLOCK):
                        offset = p // SIDE * dx[a] + p % SIDE * dy[a]
                        offset_whole[t * BLOCK + p] = np.int32(math.floor(offset))
                        offset_part[t * BLOCK + p] = np.float32(offset - math.floor(offset))
                for i in range(top, bottom, SIDE):
                    for j in range(left, right, SIDE):
                        positions(LINES, corner, along, across, float(i), float(j), whole, part)
                        for t in range(count):
                            footprint(
                                lanes, 2, whole[t], part[t], np.float32(0), np.float32(1), np.int32(cells + PAD_CELLS),
                                offset_whole, offset_part, t * BLOCK, t * BLOCK, first_cell, weights,
                            )  # fmt: skip
                        gather(
                            lanes, 2, SIDE, together, sums, i * down + j * lanes, down, rows, starts, first_cell,
                            weights, count,
                        )  # fmt: skip

    return Kernel(backproject_tiles)


@functools.cache
def projector(lanes: int) -> Any:
    """The kernel `(lines, length, dx, dy, origin, cells, sums, first, last)` for L lanes.

    It writes the bands `first:last` of (A', cells, L), each `BAND_ANGLES` angles by `BAND_CELLS` cells and numbered
    angle by angle, from lines of `length` pixels. The pixel i of line j lies at `origin[a] + i dx[a] + j dy[a]` on the
    detector, in cells, where `|dx| >= |dy|`, so that few pixels of a line lie within a cell of a ray.
    """
    together = sums_in_registers(lanes)

    def project_bands(
        lines: Any, length: int, dx: Any, dy: Any, origin: Any, cells: int, sums: Any, first: int, last: int
    ) -> None:
        line_length = (length + 2 * PAD_PIXELS) * lanes
        num_lines = lines.size // line_length
        bands_across = (cells + BAND_CELLS - 1) // BAND_CELLS
        pixels_per_cell = 1 / dx
        starts = np.empty(LINES, np.int64)
        offset_whole = np.empty(BAND_ANGLES * BLOCK, np.int32)
        offset_part = np.empty(BAND_ANGLES * BLOCK, np.float32)
        first_pixel, weights = np.empty(LINES * BLOCK, np.int32), np.empty(TAPS * LINES * BLOCK, np.float32)
        nothing, ones, numbers = np.zeros(BAND_LINES), np.ones(BAND_LINES), np.arange(float(BAND_LINES))
        whole, part = np.empty(BAND_LINES, np.int32), np.empty(BAND_LINES, np.float32)
        for band in range(first, last):
            left, top = band % bands_across * BAND_CELLS, band // bands_across * BAND_ANGLES
            right, bottom = min(left + BAND_CELLS, cells), min(top + BAND_ANGLES, dx.size)
            for a in range(top, bottom):
                sums[(a * cells + left) * lanes : (a * cells + right) * lanes] = np.float32(0)
                for p in range(BLOCK):
                    offset = p * pixels_per_cell[a]
                    offset_whole[(a - top) * BLOCK + p] = np.int32(math.floor(offset))
                    offset_part[(a - top) * BLOCK + p] = np.float32(offset - math.floor(offset))
            for first_line in range(0, num_lines, BAND_LINES):
                count = min(BAND_LINES, num_lines - first_line)
                for t in range(count):
                    starts[t] = (first_line + t) * line_length
                for cell in range(left, right, BLOCK):
                    for a in range(top, bottom):
                        # the pixels whose centres lie within one cell of a cell's ray fill the 2 * reach after `low`
                        per_cell, step = pixels_per_cell[a], np.float32(abs(dx[a]))
                        per_line, reach = -dy[a] * per_cell, abs(per_cell)
                        low = (cell - origin[a] - first_line * dy[a]) * per_cell - reach
                        across, down = (BLOCK - 1) * per_cell, (count - 1) * per_line
                        lowest = low + min(across, 0.0) + min(down, 0.0)
                        highest = low + max(across, 0.0) + max(down, 0.0)
                        if lowest > length or highest + 2 * reach < -1:
                            continue
                        begin = max(0, (-math.floor(highest) - 1) // TAPS * TAPS - TAPS)
                        end = min(math.floor(2 * reach) + 1, length - math.floor(lowest))
                        # on line t it is `low + t per_line`
                        positions(BAND_LINES, nothing, ones, numbers, low, per_line, whole, part)
                        for skipped in range(begin, end, TAPS):
                            for t in range(count):
                                footprint(
                                    lanes, TAPS, np.int32(whole[t] + skipped + 1 + PAD_PIXELS), part[t],
                                    np.float32(skipped), step, np.int32(length + PAD_PIXELS), offset_whole,
                                    offset_part, (a - top) * BLOCK, t * BLOCK, first_pixel, weights,
                                )  # fmt: skip
                            gather(
                                lanes, TAPS, BLOCK, together, sums, (a * cells + cell) * lanes, 0, lines, starts,
                                first_pixel, weights, count,
                            )  # fmt: skip

    return Kernel(project_bands)
