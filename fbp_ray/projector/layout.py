"""The change of layout around the CPU kernels: from one sample after the other to samples innermost, and back.

A lane holds one view of one image: that of the view v and the image b is `v * images + b`. `symmetry.Views` says what
the views are; without symmetry there is one, the image itself. Each function works on a range of angles, lines or rows,
so that threads can share the work. Folding is the transpose of unfolding, so the operators stay each other's transpose.
Innermost indices are unsigned: a signed one would be tested for counting from the end.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from fbp_ray.projector.jit import compiled
from fbp_ray.projector.lanes import PAD_CELLS, PAD_PIXELS


class Layout(NamedTuple):
    """The four compiled functions."""

    fold_sinogram: Any
    unfold_sinogram: Any
    fold_image: Any
    unfold_image: Any


@functools.cache
def layout() -> Layout:
    """The functions, compiled when first called."""
    return Layout(*(compiled(function) for function in (_fold_sinogram, _unfold_sinogram, _fold_image, _unfold_image)))


def _fold_sinogram(
    sinogram: Any, shape: Any, angle_of: Any, turned: Any, images: int, rows: Any, first: int, last: int
) -> None:
    """Writes the rows `first:last` of (A', D + 2 PAD_CELLS, L) from the sinogram of `shape` (B, A, D)."""
    batch, num_angles, cells = shape
    views = angle_of.shape[1]
    lanes = views * images
    length = (cells + 2 * PAD_CELLS) * lanes
    for a in range(first, last):
        row = rows[a * length : (a + 1) * length]
        row[: PAD_CELLS * lanes] = np.float32(0)
        row[(PAD_CELLS + cells) * lanes :] = np.float32(0)
        for v in range(views):
            for b in range(images):
                lane = row[PAD_CELLS * lanes + v * images + b :]
                if b >= batch or angle_of[a, v] < 0:
                    for k in range(cells):
                        lane[np.uint64(k * lanes)] = np.float32(0)
                    continue
                begin = (b * num_angles + angle_of[a, v]) * cells
                source = sinogram[begin : begin + cells]
                if turned[a, v]:
                    for k in range(cells):
                        lane[np.uint64((cells - 1 - k) * lanes)] = source[k]
                else:
                    for k in range(cells):
                        lane[np.uint64(k * lanes)] = source[k]


def _unfold_sinogram(
    sums: Any, shape: Any, angle_of: Any, turned: Any, images: int, scale: Any, sinogram: Any, first: int, last: int
) -> None:
    """Writes, to the sinogram of `shape` (B, A, D), the angles that the lines `first:last` of (A', D', L) hold.

    D' >= D. The first half of the views has each angle once, and the second half adds what it has seen of it.
    """
    batch, num_angles, cells = shape
    views = angle_of.shape[1]
    lanes = views * images
    length = sums.size // angle_of.shape[0]
    for a in range(first, last):
        for v in range(views):
            if angle_of[a, v] < 0:
                continue
            for b in range(min(images, batch)):
                lane = sums[a * length + v * images + b : (a + 1) * length]
                begin = (b * num_angles + angle_of[a, v]) * cells
                target = sinogram[begin : begin + cells]
                if 2 * v < views:
                    target[:] = np.float32(0)
                if turned[a, v]:
                    for k in range(cells):
                        target[k] += scale * lane[np.uint64((cells - 1 - k) * lanes)]
                else:
                    for k in range(cells):
                        target[k] += scale * lane[np.uint64(k * lanes)]


def _fold_image(
    image: Any, shape: Any, maps: Any, view_shape: Any, begin: int, images: int, lines: Any, first: int, last: int
) -> None:
    """Writes the lines `first:last` of (W', H' + 2 PAD_PIXELS, L) from the image of `shape` (B, H, W)."""
    batch, height, width = shape
    length, num_lines = view_shape
    views = maps.shape[0]
    lanes = views * images
    padded = (length + 2 * PAD_PIXELS) * lanes
    for j in range(first, last):
        line = lines[j * padded : (j + 1) * padded]
        line[: PAD_PIXELS * lanes] = np.float32(0)
        line[(PAD_PIXELS + length) * lanes :] = np.float32(0)
        y = 2 * (begin + j) - (num_lines - 1)
        for v in range(views):
            m = maps[v]
            row = (-m[0] * (length - 1) + m[1] * y + height - 1) // 2
            column = (-m[2] * (length - 1) + m[3] * y + width - 1) // 2
            step = m[0] * width + m[2]
            mirrored = y == 0 and v >= views // 2 > 0
            for b in range(images):
                lane = line[PAD_PIXELS * lanes + v * images + b :]
                if b >= batch or mirrored:
                    for i in range(length):
                        lane[np.uint64(i * lanes)] = np.float32(0)
                    continue
                start = (b * height + row) * width + column
                for i in range(length):
                    lane[np.uint64(i * lanes)] = image[np.uint64(start + i * step)]


def _unfold_image(
    sums: Any, down: int, shape: Any, maps: Any, view_shape: Any, begin: int, images: int, scale: Any,
    image: Any, first: int, last: int,
) -> None:  # fmt: skip
    """Writes the rows `first:last` of the image of `shape` (B, H, W) from (H', W', L), lines `down` floats apart.

    A pixel is the sum over the views that show it. The point reflection takes each view to another one, and either
    shows the pixel or the other does: the middle line, which both show, counts in the first half of the views.
    """
    batch, height, width = shape
    length, num_lines = view_shape
    views = maps.shape[0]
    lanes = views * images
    for r in range(first, last):
        x = 2 * r - (height - 1)
        for b in range(min(images, batch)):
            target = image[(b * height + r) * width : (b * height + r + 1) * width]
            target[:] = np.float32(0)
            for v in range(views):
                m = maps[v]
                i = (m[0] * x - m[2] * (width - 1) + length - 1) // 2
                j = (m[1] * x - m[3] * (width - 1) + num_lines - 1) // 2 - begin
                lowest = 2 * begin - (num_lines - 1)
                lowest = 1 if lowest == 0 and v >= views // 2 > 0 else 0
                left, right = 0, width  # the columns s of which the view has the line, j + s * m[3] >= lowest
                if m[3] > 0:
                    left = max(0, lowest - j)
                elif m[3] < 0:
                    right = j - lowest + 1
                elif j < lowest:
                    continue
                start = i * down + j * lanes + v * images + b
                step = m[2] * down + m[3] * lanes
                for s in range(left, right):
                    target[np.uint64(s)] += scale * sums[np.uint64(start + s * step)]
