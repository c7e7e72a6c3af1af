"""The CPU kernels: both operators as one gather over arrays whose samples lie innermost.

L lanes hold L samples side by side (images of a batch, or mirror images of one). Whatever is worked out for a pixel and
an angle, the cell it falls on and its weight, then serves L samples, and an update is one multiply-add of a vector.

Both operators gather, so neither writes to the same place twice and no result depends on the number of threads:

    backproject   a pixel gathers, over the angles, from the 2 cells that it lies between or, where its reach is another
                  than one cell, from all that it reaches, 3 at a time
    project       a cell gathers, over the lines of the image, from the pixels that reach its ray; on lines along the
                  axis whose steps on the detector are the longer ones they are few, and are taken 3 at a time

A block of 16 outputs (4 x 4 pixels, or 16 cells) is worked on at once. `positions` places its first output at several
angles, or on several lines; at each, `footprint` places all 16, and `gather` keeps the sums of as many of them as the
processor has registers for. All are written in LLVM's vector types, so that nothing depends on what a vectoriser
recognises. `backprojector` and `projector` are the kernels: loops over the blocks of a tile of the image, or of a band
of a few angles and cells.

Arrays are flat, float32, samples innermost:

    rows    (A, D + 2 PAD_CELLS, L)         the sinogram, every row between zero cells
    lines   (W, H + 2 PAD_PIXELS, L)        the image, for angles at which a step along its axis 0 is the longer one on
                                            the detector; for the others W and H change places
    sums    the output: (H, W, L), H and W rounded up to SIDE, or (A, D, L), D rounded up to BLOCK
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fbp_ray.projector.compiler import F32, I32, I64, Kernel, indices, load, processor, splat, splats, vector_at

LINES = 16  # the most angles (lines of the image) that a block takes up between loading its sums and storing them
BLOCK = 16  # outputs in a block: what one vector of 32-bit numbers holds on the widest processors
SIDE = 4  # a block of pixels is SIDE x SIDE
TILE = 48  # pixels along the side of a task of the backprojection: its sums fit the second-level cache
BAND_ANGLES, BAND_CELLS = 32, 64  # a task of the projection: so do its sums
BAND_LINES = 8  # lines of the image that it takes up at a stretch: what a block gathers from fits the first-level cache
TAPS = 3  # pixels that a cell gathers from at a time, and cells that a pixel does
PAD_CELLS = TAPS  # zero cells on either side of a row of the sinogram: a pixel beyond the detector is moved onto them
PAD_PIXELS = TAPS  # zero pixels on either side of a line of the image

_FUSED = ["contract"]
_vector_code: Callable[[Callable[..., Any]], Any] = intrinsic(prefer_literal=True)


def sums_in_registers(lanes: int) -> int:
    """How many outputs of `lanes` samples have their sums in vector registers at once; they get half of them."""
    return max(1, min(BLOCK, processor().registers // 2 * processor().floats // lanes))


def _data(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    """The arguments, an array as the pointer to its first element."""
    return [
        context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, args, strict=True)
    ]


@_vector_code
def positions(
    typingctx: Any, number: Any, origin: Any, along: Any, across: Any, i: Any, j: Any, whole: Any, part: Any
) -> Any:
    """`origin + i along + j across`, `number` of them at once, each split into an integer and a fraction in [0, 1)."""
    signature = types.void(number, origin, along, across, i, j, whole, part)
    count = number.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, origin, along, across, i, j, whole, part = _data(context, builder, signature, args)
        position = load(builder, origin, count)
        for step, times in ((along, i), (across, j)):
            moved = builder.fmul(load(builder, step, count), splat(builder, times, count), flags=_FUSED)
            position = builder.fadd(position, moved, flags=_FUSED)
        kind = ir.FunctionType(position.type, [position.type])
        floor = builder.module.declare_intrinsic(f"llvm.floor.v{count}f64", fnty=kind)
        below = builder.call(floor, [position])
        integer = builder.fptosi(below, ir.VectorType(I32, count))
        fraction = builder.fptrunc(builder.fsub(position, below), ir.VectorType(F32, count))
        for value, place in ((integer, whole), (fraction, part)):
            builder.store(value, vector_at(builder, place, count), align=4)
        return context.get_dummy_value()

    return signature, generate


@_vector_code
def footprint(
    typingctx: Any, lanes: Any, taps: Any, whole: Any, part: Any, skipped: Any, step: Any, last: Any,
    offset_whole: Any, offset_part: Any, offsets_at: Any, at: Any, cells: Any, weights: Any,
) -> Any:  # fmt: skip
    """Where the 16 outputs of a block gather from: the first element in `cells`, times L, and the taps' `weights`.

    An output's position is `whole + part` and its own offset from the block's first one, each split into an integer
    and a fraction in [0, 1): 32 bits then hold it to 1e-7 of an element however long the line is. An output's hat rises
    from there over the next `1 / step` elements to 1 and falls over as many; the taps are the elements `skipped + 1`,
    `skipped + 2`, ... on from the integer. With 2 taps the hat is that of linear interpolation, shifted by one: the
    taps are the integer's element and the next, and only the second's weight is stored.
    """
    signature = types.void(
        lanes, taps, whole, part, skipped, step, last, offset_whole, offset_part, offsets_at, at, cells, weights
    )  # fmt: skip
    num_lanes, num_taps = lanes.literal_value, taps.literal_value

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        *_, whole, part, skipped, step, last, offset_whole, offset_part, offsets_at, at, cells, weights = _data(
            context, builder, signature, args
        )
        floats, ints = ir.VectorType(F32, BLOCK), ir.VectorType(I32, BLOCK)
        zero, one, two = (ir.Constant(floats, [value] * BLOCK) for value in (0.0, 1.0, 2.0))
        offset_whole, offset_part = (builder.gep(array, [offsets_at]) for array in (offset_whole, offset_part))

        fraction = builder.fadd(load(builder, offset_part, BLOCK), splat(builder, part, BLOCK))
        carry = builder.fcmp_ordered(">=", fraction, one)
        fraction = builder.select(carry, builder.fsub(fraction, one), fraction)
        cell = builder.add(load(builder, offset_whole, BLOCK), splat(builder, whole, BLOCK))
        cell = builder.select(carry, builder.add(cell, ir.Constant(ints, [1] * BLOCK)), cell)
        # unsigned, a number below 0 is above the highest: both ends lead to the same zeros
        highest = splat(builder, last, BLOCK)
        cell = builder.select(builder.icmp_unsigned("<", cell, highest), cell, highest)
        cell = builder.mul(cell, ir.Constant(ints, [num_lanes] * BLOCK))
        builder.store(cell, vector_at(builder, builder.gep(cells, [at]), BLOCK), align=4)

        hats = [fraction]
        if num_taps > 2:
            rise = splat(builder, step, BLOCK)
            begin = splat(builder, builder.fmul(builder.fadd(skipped, F32(1.0)), step), BLOCK)
            along = builder.fsub(begin, builder.fmul(fraction, rise, flags=_FUSED), flags=_FUSED)
            hats = []
            for _ in range(num_taps):
                other = builder.fsub(two, along)
                hat = builder.select(builder.fcmp_ordered("<", along, other), along, other)
                hats.append(builder.select(builder.fcmp_ordered(">", hat, zero), hat, zero))
                along = builder.fadd(along, rise)
        for k, hat in enumerate(hats):
            pointer = builder.gep(weights, [builder.add(at, I64(k * LINES * BLOCK))])
            builder.store(hat, vector_at(builder, pointer, BLOCK), align=4)
        return context.get_dummy_value()

    return signature, generate


@_vector_code
def gather(
    typingctx: Any, lanes: Any, taps: Any, across: Any, together: Any, sums: Any, at: Any, down: Any,
    source: Any, starts: Any, cells: Any, weights: Any, count: Any,
) -> Any:  # fmt: skip
    """Adds to the sums of a block's outputs what `count` lines of the source hold for them.

    The block's outputs stand `across` to a row; their sums begin at `sums[at]`, with rows `down` floats apart, and
    `together` of them are kept in registers at a time. Line t begins at `source[starts[t]]`.
    """
    signature = types.void(lanes, taps, across, together, sums, at, down, source, starts, cells, weights, count)
    num_lanes, num_taps, row, group = (kind.literal_value for kind in (lanes, taps, across, together))

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        *_, sums, at, down, source, starts, cells, weights, count = _data(context, builder, signature, args)

        def gathered(total: Any, place: Any, factors: list[Any]) -> Any:
            """The sum `total` of one output, and what it gathers from one line, from `place` on."""
            if num_taps == 2:
                ones = ir.Constant(factors[0].type, [1.0] * num_lanes)
                factors = [builder.fsub(ones, factors[0]), factors[0]]
            for k, factor in enumerate(factors):
                value = load(builder, builder.gep(place, [I64(k * num_lanes)]), num_lanes)
                total = builder.fadd(total, builder.fmul(factor, value, flags=_FUSED), flags=_FUSED)
            return total

        for begin in range(0, BLOCK, group):
            points = range(begin, min(begin + group, BLOCK))
            offsets = [builder.add(builder.mul(down, I64(p // row)), I64(p % row * num_lanes)) for p in points]
            places = [builder.gep(sums, [builder.add(at, offset)]) for offset in offsets]
            before = [load(builder, place, num_lanes) for place in places]
            entry, loop, done = builder.block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)

            builder.position_at_end(loop)
            t = builder.phi(I64)
            running = [builder.phi(value.type) for value in before]
            line = builder.gep(source, [builder.load(builder.gep(starts, [t]))])
            here = builder.add(builder.mul(t, I64(BLOCK)), I64(begin))
            stored = [builder.add(here, I64(k * LINES * BLOCK)) for k in range(1 if num_taps == 2 else num_taps)]
            after = [
                gathered(total, builder.gep(line, [cell]), factors)
                for total, cell, *factors in zip(
                    running,
                    indices(builder, builder.gep(cells, [here]), len(points)),
                    *(splats(builder, builder.gep(weights, [at]), len(points), num_lanes) for at in stored),
                    strict=True,
                )
            ]
            following = builder.add(t, I64(1))
            for phi, first, later in zip([t, *running], [I64(0), *before], [following, *after], strict=True):
                phi.add_incoming(first, entry)
                phi.add_incoming(later, loop)
            builder.cbranch(builder.icmp_signed("<", following, count), loop, done)

            builder.position_at_end(done)
            for place, value in zip(places, after, strict=True):
                builder.store(value, vector_at(builder, place, num_lanes), align=4)
        return context.get_dummy_value()

    return signature, generate


@functools.cache
def backprojector(lanes: int, taps: int) -> Any:
    """The kernel `(rows, dx, dy, origin, reach, cells, height, width, sums, first, last)` for L lanes.

    It adds to the tiles `first:last`, numbered row by row, of (height, width, L). The pixel (i, j) lies at `origin[a] +
    i dx[a] + j dy[a]` on the detector and reaches `reach[a]` to either side, both in cells. `taps` is TAPS, or 2 where
    every reach is 1.
    """
    together = sums_in_registers(lanes)

    def backproject_tiles(
        rows: Any, dx: Any, dy: Any, origin: Any, reach: Any, cells: int, height: int, width: int, sums: Any,
        first: int, last: int,
    ) -> None:  # fmt: skip
        row_length = (cells + 2 * PAD_CELLS) * lanes
        down = width * lanes
        tiles_across = (width + TILE - 1) // TILE
        starts = np.empty(LINES, np.int64)
        offset_whole, offset_part = np.empty(LINES * BLOCK, np.int32), np.empty(LINES * BLOCK, np.float32)
        first_cell, weights = np.empty(LINES * BLOCK, np.int32), np.empty(taps * LINES * BLOCK, np.float32)
        corner, along, across = np.zeros(LINES), np.zeros(LINES), np.zeros(LINES)
        whole, part = np.empty(LINES, np.int32), np.empty(LINES, np.float32)
        for tile in range(first, last):
            top, left = tile // tiles_across * TILE, tile % tiles_across * TILE
            bottom, right = min(top + TILE, height), min(left + TILE, width)
            for first_angle in range(0, dx.size, LINES):
                count = min(LINES, dx.size - first_angle)
                end = math.floor(2 * reach[first_angle : first_angle + count].max()) + 1 if taps > 2 else 2
                for t in range(count):
                    a = first_angle + t
                    starts[t] = a * row_length
                    corner[t], along[t], across[t] = origin[a] + PAD_CELLS, dx[a], dy[a]
                    if taps > 2:  # the 2 * reach cells after here
                        corner[t] += 1 - reach[a]
                    for p in range(BLOCK):
                        offset = p // SIDE * dx[a] + p % SIDE * dy[a]
                        offset_whole[t * BLOCK + p] = np.int32(math.floor(offset))
                        offset_part[t * BLOCK + p] = np.float32(offset - math.floor(offset))
                for i in range(top, bottom, SIDE):
                    for j in range(left, right, SIDE):
                        positions(LINES, corner, along, across, float(i), float(j), whole, part)
                        for skipped in range(0, end, taps):
                            for t in range(count):
                                footprint(
                                    lanes, taps, np.int32(whole[t] + skipped), part[t], np.float32(skipped),
                                    np.float32(1 / reach[first_angle + t]), np.int32(cells + PAD_CELLS), offset_whole,
                                    offset_part, t * BLOCK, t * BLOCK, first_cell, weights,
                                )  # fmt: skip
                            gather(
                                lanes, taps, SIDE, together, sums, i * down + j * lanes, down, rows, starts,
                                first_cell, weights, count,
                            )  # fmt: skip

    return Kernel(backproject_tiles)


@functools.cache
def projector(lanes: int) -> Any:
    """The kernel `(lines, length, dx, dy, origin, reach, cells, sums, first, last)` for L lanes.

    It writes the bands `first:last` of (A', cells, L), each `BAND_ANGLES` angles by `BAND_CELLS` cells and numbered
    angle by angle, from lines of `length` pixels. The pixel i of line j lies at `origin[a] + i dx[a] + j dy[a]` on the
    detector and reaches `reach[a]` to either side, both in cells, where `|dx| >= |dy|`, so that few pixels of a line
    reach a ray.
    """
    together = sums_in_registers(lanes)

    def project_bands(
        lines: Any, length: int, dx: Any, dy: Any, origin: Any, reach: Any, cells: int, sums: Any,
        first: int, last: int,
    ) -> None:  # fmt: skip
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
                        # the pixels that reach a cell's ray fill the 2 * pixels after `low`
                        per_cell, step = pixels_per_cell[a], np.float32(abs(dx[a]) / reach[a])
                        per_line, pixels = -dy[a] * per_cell, abs(per_cell) * reach[a]
                        low = (cell - origin[a] - first_line * dy[a]) * per_cell - pixels
                        across, down = (BLOCK - 1) * per_cell, (count - 1) * per_line
                        lowest = low + min(across, 0.0) + min(down, 0.0)
                        highest = low + max(across, 0.0) + max(down, 0.0)
                        if lowest > length or highest + 2 * pixels < -1:
                            continue
                        begin = max(0, (-math.floor(highest) - 1) // TAPS * TAPS - TAPS)
                        end = min(math.floor(2 * pixels) + 1, length - math.floor(lowest))
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
