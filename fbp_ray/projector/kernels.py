"""The CPU kernels: backprojection of one tile of the image, projection onto a few angles, each as one task.

Arrays are flat, float32, samples innermost (see `lanes`):

    rows    (A, D + 2 PAD_CELLS, L)         the sinogram, every row between zero cells
    lines   (W, H + 2 PAD_PIXELS, L)        the image, for the angles whose rays cross its axis 0 steeply; W and H
                                            change places for the others
    sums    the output: (H, W, L), H and W rounded up to SIDE, or (A, D, L), D rounded up to BLOCK
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from fbp_ray.projector.jit import compiled
from fbp_ray.projector.lanes import (
    BLOCK,
    LINES,
    PAD_CELLS,
    PAD_PIXELS,
    SIDE,
    SUBTILE,
    TAPS,
    TILE,
    footprint,
    gather,
    sums_in_registers,
)


@functools.cache
def backprojector(lanes: int) -> Any:
    """The kernel `(rows, dx, dy, origin, cells, height, width, tile, sums)` for L lanes.

    The pixel (i, j) lies at `origin[a] + i dx[a] + j dy[a]`, in cells, at the angle a. Tiles are numbered row by row.
    """
    together = sums_in_registers(lanes)

    def backproject_tile(
        rows: Any, dx: Any, dy: Any, origin: Any, cells: int, height: int, width: int, tile: int, sums: Any
    ) -> None:
        row_length = (cells + 2 * PAD_CELLS) * lanes
        down = width * lanes
        tiles_across = (width + TILE - 1) // TILE
        top, left = tile // tiles_across * TILE, tile % tiles_across * TILE
        bottom, right = min(top + TILE, height), min(left + TILE, width)
        for i in range(top, bottom):
            sums[i * down + left * lanes : i * down + right * lanes] = np.float32(0)
        starts = np.empty(LINES, np.int64)
        offset_whole, offset_part = np.empty(LINES * BLOCK, np.int32), np.empty(LINES * BLOCK, np.float32)
        first_cell, weights = np.empty(LINES * BLOCK, np.int32), np.empty(LINES * BLOCK, np.float32)
        for first in range(0, dx.size, LINES):
            count = min(LINES, dx.size - first)
            for t in range(count):
                starts[t] = (first + t) * row_length
                for p in range(BLOCK):
                    offset = p // SIDE * dx[first + t] + p % SIDE * dy[first + t]
                    offset_whole[t * BLOCK + p] = np.int32(math.floor(offset))
                    offset_part[t * BLOCK + p] = np.float32(offset - math.floor(offset))
            for near_top in range(top, bottom, SUBTILE):
                for near_left in range(left, right, SUBTILE):
                    for i in range(near_top, min(near_top + SUBTILE, bottom), SIDE):
                        for j in range(near_left, min(near_left + SUBTILE, right), SIDE):
                            for t in range(count):
                                a = first + t
                                position = origin[a] + PAD_CELLS + i * dx[a] + j * dy[a]
                                whole = math.floor(position)
                                footprint(
                                    lanes, 2, np.int32(whole), np.float32(position - whole), np.float32(0),
                                    np.float32(1), np.int32(cells + PAD_CELLS), offset_whole, offset_part, t * BLOCK,
                                    t * BLOCK, first_cell, weights,
                                )  # fmt: skip
                            gather(
                                lanes, 2, SIDE, together, sums, i * down + j * lanes, down, rows, starts, first_cell,
                                weights, count,
                            )  # fmt: skip

    return compiled(backproject_tile)


@functools.cache
def projector(lanes: int) -> Any:
    """The kernel `(lines, length, steep, shallow, origin, angles, first, last, cells, sums)` for L lanes.

    It works on the angles `angles[first:last]`. The pixel i of line j, of `length` pixels, lies at `origin[a] +
    i steep[a] + j shallow[a]`, in cells, where `|steep| >= |shallow|`.
    """
    together = sums_in_registers(lanes)

    def project_angles(
        lines: Any, length: int, steep: Any, shallow: Any, origin: Any, angles: Any, first: int, last: int,
        cells: int, sums: Any,
    ) -> None:  # fmt: skip
        line_length = (length + 2 * PAD_PIXELS) * lanes
        num_lines = lines.size // line_length
        starts = np.empty(LINES, np.int64)
        offset_whole, offset_part = (
            np.empty((last - first) * BLOCK, np.int32),
            np.empty((last - first) * BLOCK, np.float32),
        )
        first_pixel, weights = np.empty(LINES * BLOCK, np.int32), np.empty(TAPS * LINES * BLOCK, np.float32)
        for n in range(first, last):
            a = angles[n]
            sums[a * cells * lanes : (a + 1) * cells * lanes] = np.float32(0)
            for p in range(BLOCK):
                offset = p / steep[a]
                offset_whole[(n - first) * BLOCK + p] = np.int32(math.floor(offset))
                offset_part[(n - first) * BLOCK + p] = np.float32(offset - math.floor(offset))
        for first_line in range(0, num_lines, LINES):
            count = min(LINES, num_lines - first_line)
            for t in range(count):
                starts[t] = (first_line + t) * line_length
            for cell in range(0, cells, BLOCK):
                for n in range(first, last):
                    a = angles[n]
                    # the pixels whose centres lie within one cell of a cell's ray fill the 2 * reach after `low`
                    reach = 1 / abs(steep[a])
                    per_cell, per_line = 1 / steep[a], -shallow[a] / steep[a]
                    low = (cell - origin[a] - first_line * shallow[a]) / steep[a] - reach
                    across, down = (BLOCK - 1) * per_cell, (count - 1) * per_line
                    lowest = low + min(across, 0.0) + min(down, 0.0)
                    highest = low + max(across, 0.0) + max(down, 0.0)
                    if lowest > length or highest + 2 * reach < -1:
                        continue
                    begin = max(0, (-math.floor(highest) - 1) // TAPS * TAPS - TAPS)
                    end = min(math.floor(2 * reach) + 1, length - math.floor(lowest))
                    for skipped in range(begin, end, TAPS):
                        for t in range(count):
                            position = low + t * per_line
                            whole = math.floor(position)
                            footprint(
                                lanes, TAPS, np.int32(whole + skipped + 1 + PAD_PIXELS), np.float32(position - whole),
                                np.float32(skipped), np.float32(abs(steep[a])), np.int32(length + PAD_PIXELS),
                                offset_whole, offset_part, (n - first) * BLOCK, t * BLOCK, first_pixel, weights,
                            )  # fmt: skip
                        gather(
                            lanes, TAPS, BLOCK, together, sums, (a * cells + cell) * lanes, 0, lines, starts,
                            first_pixel, weights, count,
                        )  # fmt: skip

    return compiled(project_angles)
