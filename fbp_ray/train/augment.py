"""Training samples in other positions: an image that is flipped or turned, and the sinogram that it would have had.

With T one of the eight symmetries of the square, the image f(T(x, y)) has the projections p(T n, s), n = (cos theta,
sin theta) the direction of the angle. The scan has to have T n, or -T n, whose ray s is the ray -s of T n. So a flip
is a permutation of the angles, and some projections reversed. Nothing is interpolated. Of a fan beam T moves the
source, and what T mirrors is seen mirrored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fbp_ray.config import Augmentation
from fbp_ray.data.hdf5_reader import Array
from fbp_ray.errors import ConfigError
from fbp_ray.geometry import FanBeam, Geometry

_POSITIONS = 3  # tells its random numbers apart from those of the noise
NEAR = 1e-4  # of the mean step between angles, within which two are one


class Symmetry:
    """A position of the image, and what it makes of a sinogram.

    Args:
        geometry: the scan.
        swap: whether the axes are exchanged.
        flips: which axes are reversed, before.
    """

    def __init__(self, geometry: Geometry, swap: bool, flips: tuple[bool, bool]) -> None:
        self.swap, self.flips = swap, flips
        signs = np.where(flips, -1.0, 1.0)
        matrix = np.diag(signs) @ (np.eye(2)[::-1] if swap else np.eye(2))
        theta = geometry.theta
        if isinstance(geometry, FanBeam):
            x, y = matrix @ np.stack([np.sin(theta), -np.cos(theta)])
            self.angles, self.reversed = _find(theta, np.arctan2(x, -y), False)
            self.reversed[:] = np.linalg.det(matrix) < 0
            if geometry.axis_offset != 0 and self.reversed.any():
                self.angles[:] = -1
        else:
            x, y = matrix @ np.stack([np.cos(theta), np.sin(theta)])
            self.angles, self.reversed = _find(theta, np.arctan2(y, x), geometry.axis_offset == 0)
        """(A,) the angle that comes in each one's place, -1 where the scan has none; and whether it is reversed."""

    @property
    def exists(self) -> bool:
        """Whether the scan has all the angles."""
        return bool((self.angles >= 0).all())

    def apply(self, observation: Array, truth: Array) -> None:
        """In place: (A, D), (H, W)."""
        observation[:] = observation[self.angles]
        observation[self.reversed] = observation[self.reversed, ::-1]
        flipped = np.flip(truth, tuple(axis for axis in (0, 1) if self.flips[axis]))
        truth[:] = (flipped.T if self.swap else flipped).copy()


class Augment:
    """Draws the position of each sample anew in each epoch.

    Args:
        kind: flips, or all.
        geometry: the scan.
        seed: of the positions, which depend on nothing else but the epoch and the sample's number.

    Raises:
        ConfigError: the scan or the image lacks the symmetry.
    """

    def __init__(self, kind: Augmentation, geometry: Geometry, seed: int) -> None:
        self.seed = seed
        flips = [(x, y) for x in (False, True) for y in (False, True)]
        self.symmetries = [Symmetry(geometry, False, flip) for flip in flips]
        if not all(symmetry.exists for symmetry in self.symmetries):
            raise ConfigError(
                "these angles are not those of the flipped image: a scan needs with each angle theta also pi - theta "
                "(modulo pi where the rotation axis falls on the detector's middle, else modulo 2 pi); LoDoPaB-CT has, "
                "each n-th of its angles has not. Leave out --data.augment"
            )
        if kind == "all":
            square = geometry.image_shape[0] == geometry.image_shape[1]
            turned = [Symmetry(geometry, True, flip) for flip in flips] if square else []
            if not square or not all(symmetry.exists for symmetry in turned):
                why = "the angles are not those of the turned image" if square else "the image is not square"
                raise ConfigError(f"the scan has no quarter turns: {why}; use --data.augment flips")
            self.symmetries += turned

    def draw(self, sample: int, epoch: int, observation: Array, truth: Array) -> None:
        """Puts a sample, (A, D) and (H, W) or (0, 0), into another position."""
        random = np.random.default_rng([self.seed, epoch, sample, _POSITIONS])
        self.symmetries[random.integers(len(self.symmetries))].apply(observation, truth)


def _find(
    theta: NDArray[np.float64], wanted: NDArray[np.float64], either_way: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each wanted angle the nearest one that is the same modulo 2 pi, or modulo pi and then reversed; or -1."""
    limit = NEAR * np.pi / theta.size
    found, reverse = np.full(theta.size, -1), np.zeros(theta.size, bool)
    for turned in (True, False) if either_way else (False,):
        places = np.mod(theta + np.pi * turned + 1, 2 * np.pi)  # + 1: away from where rounding goes round
        order = np.argsort(places, kind="stable")
        goals = np.mod(wanted + 1, 2 * np.pi)
        after = np.searchsorted(places[order], goals) % theta.size
        for near in (order[after - 1], order[after]):
            gap = np.abs(np.mod(places[near] - goals + np.pi, 2 * np.pi) - np.pi)
            found[gap <= limit], reverse[gap <= limit] = near[gap <= limit], turned
    return found, reverse
