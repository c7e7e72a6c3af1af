"""Views: what the lanes of the CPU kernels hold.

Mirror an image about its axes or its diagonals, and each of its projections is a projection of the original, at a
mirrored angle: with `s = x cos(theta) + y sin(theta)`, the pixels

    (x, y) at theta,   (-x, y) at pi - theta,   (y, x) at pi/2 - theta,   (-y, x) at pi/2 + theta

all have the same s, and their point reflections have -s. Where a scan has all of these angles for each of its own,
one position and one weight serve eight pixels: eight views of one image fill the lanes that eight images of a batch
would, a quarter of the angles and half of the pixels are left to go through, and so one image costs an eighth of
eight. The scan of LoDoPaB-CT is one of these.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fbp_ray.geometry import ParallelBeam

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
