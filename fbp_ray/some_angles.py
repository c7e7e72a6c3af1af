"""Parts of a scan: some of its angles, split into those that are seen and those that are held out; or some photons."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fbp_ray.errors import ConfigError
from fbp_ray.geometry import ParallelBeam

if TYPE_CHECKING:
    from torch import Tensor

FOLDS = 8


class SomeAngles(ParallelBeam):
    """Some of the angles of a scan, which stand for all of them in equal shares."""

    whole: ParallelBeam
    kept: tuple[int, ...]
    """Their numbers in the whole scan, ascending."""

    photons: Literal[1] = 1
    """Those of a ray are all there."""

    @classmethod
    def of(cls, whole: ParallelBeam, kept: NDArray[np.int64]) -> SomeAngles:
        """The angles of these numbers."""
        fields = {**dict(whole), "angles": tuple(np.mod(whole.theta[kept], 2 * np.pi).tolist())}
        return cls(**fields, whole=whole, kept=tuple(kept.tolist()))

    def take(self, table: Tensor, axis: int = -2) -> Tensor:
        """Of a table with a row for each angle of the whole scan, such as a sinogram (..., A, D), those of this one."""
        import torch  # here, not above: a geometry needs no torch

        return table.index_select(axis, torch.tensor(self.kept, device=table.device))

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


class SomePhotons(ParallelBeam):
    """All angles of a scan, of whose photons a share was counted."""

    whole: ParallelBeam
    photons: Annotated[float, Field(gt=0, lt=1)]
    """The share of a ray's that was counted."""

    @classmethod
    def of(cls, whole: ParallelBeam, photons: float) -> SomePhotons:
        """The scan with that share of its photons."""
        return cls(**dict(whole), whole=whole, photons=photons)

    def take(self, table: Tensor, axis: int = -2) -> Tensor:
        """Of a table with a row for each angle, all."""
        return table


class Fold(NamedTuple):
    """One fold of the angles, and the others."""

    seen: SomeAngles
    held_out: SomeAngles


@functools.lru_cache(maxsize=8)
def splits(geometry: ParallelBeam, folds: int = FOLDS) -> tuple[Fold, ...]:
    """The scan with each fold held out in turn; fold k has the angles k, k + folds ..

    Raises:
        ConfigError: it has too few angles.
    """
    numbers = np.arange(geometry.num_angles)
    if geometry.num_angles < 2 * folds:
        raise ConfigError(
            f"a scan of {geometry.num_angles} angles cannot be split into {folds} parts that each see the object, as "
            "--target self does; learn from ground truth: --target truth"
        )
    return tuple(
        Fold(SomeAngles.of(geometry, numbers[numbers % folds != k]), SomeAngles.of(geometry, numbers[k::folds]))
        for k in range(folds)
    )
