"""Some of the angles of a scan, and the scan split into angles that are seen and angles that are held out."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fbp_ray.errors import ConfigError
from fbp_ray.geometry import FanBeam, Geometry, ParallelBeam

if TYPE_CHECKING:
    from torch import Tensor

FOLDS = 8


class SomeAngles(ParallelBeam):
    """Some of the angles of a scan, which stand for all of them in equal shares."""

    whole: ParallelBeam
    kept: tuple[int, ...]
    """Their numbers in the whole scan, ascending."""

    @classmethod
    def of(cls, whole: ParallelBeam, kept: NDArray[np.int64]) -> SomeAngles:
        """The angles of these numbers."""
        fields = {name: getattr(whole, name) for name in ParallelBeam.model_fields}
        fields |= {"angles": tuple(np.mod(whole.theta[kept], 2 * np.pi).tolist())}
        return cls(**fields, whole=whole, kept=tuple(kept.tolist()))

    def take(self, table: Tensor, axis: int = -2) -> Tensor:
        """Of a table with a row for each angle of the whole scan, such as a sinogram (..., A, D), those of this one."""
        import torch  # here, not above: a geometry needs no torch

        return table.index_select(axis, torch.tensor(self.kept, device=table.device))

    @property
    def parallel(self) -> ParallelBeam:
        """These angles of what the whole scan is worked on in."""
        if self.whole.parallel is self.whole:
            return self
        return SomeAngles.of(self.whole.parallel, np.array(self.kept))

    @property
    def added(self) -> tuple[int, int]:
        """Those of the whole scan."""
        return self.whole.added

    @property
    def angle_weights(self) -> NDArray[np.float64]:
        """Those of the whole scan, scaled so that their sum stays the same."""
        weights = self.whole.angle_weights
        kept = weights[list(self.kept)]
        return np.asarray(kept * (weights.sum() / kept.sum()))

    @property
    def angle_places(self) -> NDArray[np.float64]:
        """Those in the whole scan."""
        return self.whole.angle_places[list(self.kept)]

    @property
    def cell_weights(self) -> NDArray[np.float64]:
        """Those of the whole scan."""
        return self.whole.cell_weights


class Split(NamedTuple):
    """One fold of the angles, and the others."""

    seen: SomeAngles
    held_out: SomeAngles


@functools.lru_cache(maxsize=8)
def splits(geometry: Geometry, folds: int = FOLDS) -> tuple[Split, ...]:
    """The scan with each fold held out in turn; fold k has the angles k, k + folds ..

    Raises:
        ConfigError: it has too few angles, or is a fan beam, which a part of the angles cannot be rebinned without
            blurring it.
    """
    if isinstance(geometry, FanBeam):
        raise ConfigError(
            "--target self holds angles out, and the angles that are left of a fan beam lie too far apart to be "
            "rebinned to a parallel beam; learn from ground truth (--target truth), which `python -m fbp_ray.simulate "
            "--geometry FILE` makes for a scan of this geometry"
        )
    numbers = np.arange(geometry.num_angles)
    if geometry.num_angles < 2 * folds:
        raise ConfigError(
            f"a scan of {geometry.num_angles} angles cannot be split into {folds} parts that each see the object, as "
            "--target self does; learn from ground truth: --target truth"
        )
    return tuple(
        Split(SomeAngles.of(geometry, numbers[numbers % folds != k]), SomeAngles.of(geometry, numbers[k::folds]))
        for k in range(folds)
    )


def drawn_split(geometry: Geometry, seed: int, epoch: int, step: int) -> Split:
    """The split of a training step: the same in all processes, and where a run goes on."""
    return splits(geometry)[int(np.random.default_rng([seed, epoch, step, FOLDS]).integers(FOLDS))]
