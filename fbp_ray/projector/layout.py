"""What the lanes of the CPU kernels hold, and the change of layout from one sample after the other to lanes, and back.

A lane holds one view of one image: that of the view v and the image b is `v * images + b`. Without symmetry there is
one view, the image itself; with it there are eight.

Mirror an image about its axes or its diagonals, and each of its projections is a projection of the original, at a
mirrored angle: with `s = x cos(theta) + y sin(theta)`, the pixels

    (x, y) at theta,   (-x, y) at pi - theta,   (y, x) at pi/2 - theta,   (-y, x) at pi/2 + theta

all have the same s, and their point reflections have -s. Where a scan has all of these angles for each of its own,
one position and one weight serve eight pixels: eight views of one image fill the lanes that eight images of a batch
would, a quarter of the angles and half of the pixels are left to go through, and so one image costs an eighth of
eight. The scan of LoDoPaB-CT is one of these.

Each compiled function works on a range of angles, lines or rows, so that threads can share the work. Folding is the
transpose of unfolding, so the operators stay each other's transpose. Innermost indices are unsigned: a signed one would
be tested for counting from the end.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fbp_ray.geometry import ParallelBeam
from fbp_ray.projector.compiler import Kernel
from fbp_ray.projector.kernels import PAD_CELLS, PAD_PIXELS

_SAME_ANGLE = 1e-9  # radians: a pixel's position then agrees to far less than the rounding of float32
_IDENTITY, _MIRROR, _TRANSPOSE, _TURN = (1, 0, 0, 1), (-1, 0, 0, 1), (0, 1, 1, 0), (0, -1, 1, 0)


class Views(NamedTuple):
    """V views of an image, and the A' angles at which they are looked at.

    Attributes:
        theta: (A',) radians.
        angle_of: (A', V) the angle of the scan that each view's projection belongs to; -1 where another view has it.
        turned: (A', V) whether that projection runs against the detector.
        maps: (V, 4) row by row the matrix that takes a pixel (x, y) of the view to the image's.
        shape: (H', W') the pixels of the view; the image's or, where axes change places, that turned round.
        begin: the first column of the view that is gone through; the views show the others in each other.
    """

    theta: NDArray[np.float64]
    angle_of: NDArray[np.int64]
    turned: NDArray[np.bool_]
    maps: NDArray[np.int64]
    shape: tuple[int, int]
    begin: int


def plain_views(geometry: ParallelBeam) -> Views:
    """One view, the image itself, at every angle of the scan."""
    count = geometry.num_angles
    return Views(
        theta=geometry.theta,
        angle_of=np.arange(count, dtype=np.int64)[:, None],
        turned=np.zeros((count, 1), dtype=np.bool_),
        maps=np.array([_IDENTITY], dtype=np.int64),
        shape=geometry.image_shape,
        begin=0,
    )


def steep_views(views: Views) -> list[Views]:
    """The views parted by angle so that, in each part, a step along axis 0 is the longer one on the detector.

    Where it is not, the axes of the views change places: (y, x) at pi/2 - theta lies where (x, y) at theta does.
    """
    height, width = views.shape
    theta = math.pi / 2 - views.theta
    swapped = views._replace(theta=theta, maps=views.maps[:, [1, 0, 3, 2]], shape=(width, height))
    steep = np.abs(np.cos(views.theta)) >= np.abs(np.sin(views.theta))
    return [
        part._replace(theta=part.theta[chosen], angle_of=part.angle_of[chosen], turned=part.turned[chosen])
        for part, chosen in ((views, steep), (swapped, ~steep))
        if chosen.any()
    ]


def mirror_views(geometry: ParallelBeam) -> Views | None:
    """The eight mirror images, at angles between 0 and pi/4; None for an oblong image or an axis off the middle.

    Any angle has a mirror image between 0 and pi/4. Where the scan is symmetric four of its angles share one, and the
    views are looked at from a quarter as many; where it is not, some lanes stay empty, which still pays for one image.
    """
    height, width = geometry.image_shape
    if height != width or geometry.axis_offset != 0:
        return None
    quarter = math.pi / 4
    reduced = np.mod(geometry.theta, math.pi)
    eighth = np.minimum(reduced // quarter, 3).astype(np.int64)
    view = np.array([0, 2, 3, 1])[eighth]
    mirrored = np.choose(eighth, (reduced, 2 * quarter - reduced, reduced - 2 * quarter, 4 * quarter - reduced))
    order = np.argsort(mirrored, kind="stable")
    group = np.cumsum(np.diff(mirrored[order], prepend=-1) > _SAME_ANGLE)
    against = np.round((geometry.theta - reduced) / math.pi) % 2 == 1
    alike: Counter[tuple[int, int]] = Counter()  # angles of one group and one view: each needs a line of its own
    lines: dict[tuple[int, int], int] = {}
    theta = np.empty(order.size)
    angle_of = np.full((order.size, 8), -1, dtype=np.int64)
    turned = np.zeros((order.size, 8), dtype=np.bool_)
    for angle, number in zip(order.tolist(), group.tolist(), strict=True):
        seen = int(view[angle])
        line = lines.setdefault((number, alike[number, seen]), len(lines))
        alike[number, seen] += 1
        theta[line] = mirrored[angle]
        angle_of[line, [seen, seen + 4]] = angle
        turned[line, [seen, seen + 4]] = against[angle], not against[angle]
    theta, angle_of, turned = theta[: len(lines)], angle_of[: len(lines)], turned[: len(lines)]
    maps = np.array([_IDENTITY, _MIRROR, _TRANSPOSE, _TURN], dtype=np.int64)
    return Views(theta, angle_of, turned, np.concatenate([maps, -maps]), (height, width), width // 2)


class Layout(NamedTuple):
    """The four compiled functions."""

    fold_sinogram: Any
    unfold_sinogram: Any
    fold_image: Any
    unfold_image: Any


@functools.cache
def layout() -> Layout:
    """The functions, compiled when first called."""
    return Layout(*(Kernel(function) for function in (_fold_sinogram, _unfold_sinogram, _fold_image, _unfold_image)))


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
