"""The change of layout on a GPU in Triton, from one sample after the other to lanes, and back.

The lanes are those of `fbp_ray.projector.layout`, which also says what a view is: lane `v * IMAGES + b` holds the view
v of the image b of a group. A group has LANES = views x IMAGES of them, a power of two, and an array of G groups has
them innermost. Each kernel reads along the axis that is contiguous in the one layout and writes along the other's.

    rows    (G, A', HALVES, D + 2 PAD, LANES)  the sinogram, every row between zeros
    lines   (G, W', H' + PAD, LANES)           the image: lines along the axis on which a step is the longer one
    sums    (P, G, H', W', LANES) or (G, A', D, LANES)   what the operators make, the former in parts to be added
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def fold_sinogram_kernel(
    sinogram, largest, rows, angle_of, turned, batch, num_angles, cells, padded, highest,
    IMAGES: tl.constexpr, LANES: tl.constexpr, CELLS: tl.constexpr, PAD: tl.constexpr, HALF: tl.constexpr,
    SPLIT: tl.constexpr,
):  # fmt: skip
    """A block of cells of one line of angles: `sinogram` (B, A, D) to `rows`, whose lines' angles `angle_of` names.

    With HALF the samples are scaled so that the `largest` (B,) is `highest`, and stored in float16; with SPLIT so is
    what rounding took away, in a second row. The grid is (blocks of cells, A', groups).
    """
    line, group = tl.program_id(1), tl.program_id(2).to(tl.int64)
    lane = tl.arange(0, LANES)
    sample = group * IMAGES + lane % IMAGES
    place = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    cell = place - PAD
    at = line * (LANES // IMAGES) + lane // IMAGES
    angle, reverse = tl.load(angle_of + at), tl.load(turned + at) != 0
    source = tl.where(reverse[:, None], cells - 1 - cell[None, :], cell[None, :])
    there = ((sample < batch) & (angle >= 0))[:, None] & ((cell >= 0) & (cell < cells))[None, :]
    value = tl.load(sinogram + ((sample * num_angles + angle) * cells)[:, None] + source, mask=there, other=0.0)
    value = value.to(tl.float32)
    if HALF:
        top = tl.load(largest + sample, mask=sample < batch, other=1.0)
        value = value * (highest / top)[:, None]
    value = tl.trans(value)
    within = (place < padded)[:, None]
    HALVES: tl.constexpr = 2 if SPLIT else 1
    target = ((group * tl.num_programs(1) + line) * (HALVES * padded) + place)[:, None] * LANES + lane[None, :]
    if SPLIT:
        rounded = value.to(tl.float16)
        tl.store(rows + target, rounded, mask=within)
        tl.store(rows + target + padded * LANES, (value - rounded.to(tl.float32)).to(tl.float16), mask=within)
    else:
        tl.store(rows + target, value.to(rows.dtype.element_ty), mask=within)


@triton.jit
def unfold_image_kernel(
    sums, largest, image, maps, batch, height, width, length, num_lines, begin, scale,
    VIEWS: tl.constexpr, IMAGES: tl.constexpr, PIXELS: tl.constexpr, PARTS: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """A block of pixels of one group: `sums` (PARTS, G, H', W' - begin, LANES) of views (H', W') to `image` (B, H, W).

    A pixel is the sum over the views that show it. The point reflection takes each view to another one, and either
    shows the pixel or the other does: the middle line, which both show, counts in the first half of the views. The
    grid is (blocks of pixels, groups).
    """
    group = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    x = 2 * (pixel // width) - (height - 1)
    y = 2 * (pixel % width) - (width - 1)
    image_of_lane = tl.arange(0, IMAGES)
    across = num_lines - begin
    inside = pixel < height * width
    total = tl.zeros((PIXELS, IMAGES), tl.float32)
    for view in tl.static_range(VIEWS):
        i = (tl.load(maps + 4 * view) * x + tl.load(maps + 4 * view + 2) * y + length - 1) // 2
        j = tl.load(maps + 4 * view + 1) * x + tl.load(maps + 4 * view + 3) * y
        lowest = 2 * begin - (num_lines - 1)
        if 2 * view >= VIEWS and VIEWS > 1:
            lowest = tl.maximum(lowest, 1)
        shown = inside & (j >= lowest)
        j = (j + num_lines - 1) // 2 - begin
        for part in tl.static_range(PARTS):
            at = ((part * tl.num_programs(1) + group) * length + i) * across + j
            at = at * (VIEWS * IMAGES) + view * IMAGES
            total += tl.load(sums + at[:, None] + image_of_lane[None, :], mask=shown[:, None], other=0.0)
    sample = group * IMAGES + image_of_lane
    total = total * scale
    if SCALED:
        total = total * tl.load(largest + sample, mask=sample < batch, other=0.0)[None, :]
    target = (sample * height * width)[:, None] + pixel[None, :]
    kept = (sample < batch)[:, None] & inside[None, :]
    tl.store(image + target, tl.trans(total).to(image.dtype.element_ty), mask=kept)


@triton.jit
def fold_image_kernel(
    image, lines, maps, batch, height, width, length, num_lines, begin,
    VIEWS: tl.constexpr, IMAGES: tl.constexpr, LANES: tl.constexpr, PIXELS: tl.constexpr, PAD: tl.constexpr,
):  # fmt: skip
    """A block of one line of the views (H', W'): `image` (B, H, W) to `lines`. The transpose of `unfold_image_kernel`.

    The grid is (blocks of pixels, lines, groups).
    """
    line, group = tl.program_id(1), tl.program_id(2).to(tl.int64)
    lane = tl.arange(0, LANES)
    view, sample = lane // IMAGES, group * IMAGES + lane % IMAGES
    i = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    x, y = 2 * i - (length - 1), 2 * (begin + line) - (num_lines - 1)
    m0, m1 = tl.load(maps + 4 * view), tl.load(maps + 4 * view + 1)
    m2, m3 = tl.load(maps + 4 * view + 2), tl.load(maps + 4 * view + 3)
    row = (m0[:, None] * x[None, :] + (m1 * y + height - 1)[:, None]) // 2
    column = (m2[:, None] * x[None, :] + (m3 * y + width - 1)[:, None]) // 2
    shown = sample < batch
    if VIEWS > 1:
        shown = shown & (2 * view < VIEWS * (1 + tl.abs(y) * 2))  # on the middle line the first half alone
    there = shown[:, None] & (i < length)[None, :]
    value = tl.load(image + (sample * height)[:, None] * width + (row * width + column), mask=there, other=0.0)
    target = ((group * tl.num_programs(1) + line) * (length + PAD) + i)[:, None] * LANES + lane[None, :]
    tl.store(lines + target, tl.trans(value.to(tl.float32)), mask=(i < length + PAD)[:, None])


@triton.jit
def unfold_sinogram_kernel(
    sums, sinogram, angles, line_of, view_of, turned, batch, num_angles, num_lines, cells, scale,
    VIEWS: tl.constexpr, IMAGES: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """A block of cells of one of the scan's `angles`: `sums` (G, A', D, LANES) to `sinogram` (B, A, D).

    The first half of the views has each angle once, and the second half what it saw from the other side. The grid is
    (blocks of cells, angles, groups).
    """
    which, group = tl.program_id(1), tl.program_id(2).to(tl.int64)
    angle, line, view = tl.load(angles + which), tl.load(line_of + which), tl.load(view_of + which)
    lane = tl.arange(0, IMAGES)
    cell = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    within = cell < cells
    reverse = tl.load(turned + which) != 0
    here = tl.where(reverse, cells - 1 - cell, cell)
    start = (group * num_lines + line) * cells
    LANES: tl.constexpr = VIEWS * IMAGES
    at = (start + here)[:, None] * LANES + view * IMAGES + lane[None, :]
    total = tl.load(sums + at, mask=within[:, None], other=0.0)
    if VIEWS > 1:
        at = (start + cells - 1 - here)[:, None] * LANES + (view + VIEWS // 2) * IMAGES + lane[None, :]
        total += tl.load(sums + at, mask=within[:, None], other=0.0)
    sample = group * IMAGES + lane
    target = ((sample * num_angles + angle) * cells)[:, None] + cell[None, :]
    kept = (sample < batch)[:, None] & within[None, :]
    tl.store(sinogram + target, tl.trans(total * scale).to(sinogram.dtype.element_ty), mask=kept)
