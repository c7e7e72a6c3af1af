"""Parts of a scan: some of its angles, split into those that are seen and those that are held out; or some photons."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fbp_ray.errors import ConfigError
from fbp_ray.geometry import FanBeam, Geometry, ParallelBeam

if TYPE_CHECKING:
    from torch import Tensor

FOLDS = 8
Share = Annotated[float, Field(gt=0, lt=1)]
"""Of a ray's photons."""


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


class SomePhotons(ParallelBeam):
    """All angles of a scan, of whose photons a share was counted."""

    whole: ParallelBeam
    photons: Share

    def take(self, table: Tensor, axis: int = -2) -> Tensor:
        """Of a table with a row for each angle, all."""
        return table


class SomePhotonsOfFan(FanBeam):
    """As `SomePhotons`, of a fan beam."""

    whole: FanBeam
    photons: Share

    def take(self, table: Tensor, axis: int = -2) -> Tensor:
        """Of a table with a row for each angle, all."""
        return table


PartOfScan = SomeAngles | SomePhotons | SomePhotonsOfFan


def some_photons(whole: Geometry, photons: float) -> SomePhotons | SomePhotonsOfFan:
    """The scan with that share of its photons."""
    kind = SomePhotonsOfFan if isinstance(whole, FanBeam) else SomePhotons
    fields = {name: getattr(whole, name) for name in type(whole).model_fields}
    return kind(**fields, whole=whole, photons=photons)


class Fold(NamedTuple):
    """One fold of the angles, and the others."""

    seen: SomeAngles
    held_out: SomeAngles


@functools.lru_cache(maxsize=8)
def splits(geometry: Geometry, folds: int = FOLDS) -> tuple[Fold, ...]:
    """The scan with each fold held out in turn; fold k has the angles k, k + folds ..

    Raises:
        ConfigError: it has too few angles, or is a fan beam, which a part of the angles cannot be rebinned without
            blurring it.
    """
    if isinstance(geometry, FanBeam):
        raise ConfigError(
            "--target self holds angles out, and the angles that are left of a fan beam lie too far apart to be "
            "rebinned to a parallel beam; hold photons out (--split photons), or learn from ground truth "
            "(--target truth)"
        )
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
