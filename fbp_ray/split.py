"""Parts of a scan, and a scan split in two whose noise is independent: by its angles, or by the photons of every ray.

By angles, each projection belongs to one part. By photons, each photon that was counted goes to the one part with the
same probability: of n counts, distributed by Poisson about m, either part gets a number that is distributed by Poisson
about its share of m, independently of the other's (binomial thinning). This needs the counts, hence the number N of
photons of a ray that meets nothing: n = N exp(-unit y).

What is random depends on the sample and on numbers that are given, so that a run is the same on any number of workers.

Dimensions: B batch, A angles, D detector cells.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from fbp_ray.errors import ConfigError
from fbp_ray.filters.noise import FEWEST, MOST, estimated_photons
from fbp_ray.geometry import FanBeam, Geometry, ParallelBeam

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


DOUBTFUL = 2.5  # times the photons that the noise itself shows
NONE = 0.1  # what no count at all is taken for, as in LoDoPaB-CT
_STEP, _JUDGED, _HALVES = 0, 1, 2  # tell their random numbers apart


class Parts(NamedTuple):
    """Both parts of a batch of scans."""

    seen: Tensor
    """(B, A', D), what a reconstruction may see."""

    seen_scan: PartOfScan
    held_out: Tensor
    """(B, A'', D), what it is compared with."""

    held_out_scan: PartOfScan


class Split(Protocol):
    """How scans are split; `index` has the samples' numbers."""

    def drawn(self, sinogram: Tensor, index: Sequence[int] | Tensor, seed: int, epoch: int, step: int) -> Parts:
        """For a step of a training: seven eighths and one, others in each epoch."""

    def fixed(self, sinogram: Tensor, index: Sequence[int] | Tensor) -> Iterator[tuple[Tensor, Parts]]:
        """For judging, always the same for a sample: (B,) which samples, and seven eighths and one of these."""

    def halves(self, sinogram: Tensor, index: Sequence[int] | Tensor) -> Parts:
        """One half and the other, always the same for a sample."""


class ByAngles:
    """Each eighth angle, or each second, is held out of a scan (B, A, D).

    Raises:
        ConfigError: the scan has too few angles.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.folds, self.two = splits(geometry), splits(geometry, 2)

    def drawn(self, sinogram: Tensor, index: Sequence[int] | Tensor, seed: int, epoch: int, step: int) -> Parts:
        """The same fold for all samples of a step, and in all processes."""
        return self._part(sinogram, int(np.random.default_rng([seed, epoch, step, FOLDS]).integers(FOLDS)))

    def fixed(self, sinogram: Tensor, index: Sequence[int] | Tensor) -> Iterator[tuple[Tensor, Parts]]:
        """A sample's number says which fold."""
        folds = (torch.as_tensor(index) % FOLDS).to(sinogram.device)
        for fold in sorted(set(folds.tolist())):
            yield folds == fold, self._part(sinogram[folds == fold], fold)

    def halves(self, sinogram: Tensor, index: Sequence[int] | Tensor) -> Parts:
        """Even and odd angles."""
        seen, held_out = self.two[0]
        return Parts(seen.take(sinogram), seen, held_out.take(sinogram), held_out)

    def _part(self, sinogram: Tensor, fold: int) -> Parts:
        seen, held_out = self.folds[fold]
        return Parts(seen.take(sinogram), seen, held_out.take(sinogram), held_out)


class ByPhotons:
    """An eighth of the photons, or half of them, are held out of each ray of a scan (B, A, D).

    Args:
        geometry: the scan.
        photons: N.
        unit: 1/m; `unit` x sinogram is free of a unit.
    """

    def __init__(self, geometry: Geometry, photons: float, unit: float) -> None:
        self.geometry, self.photons, self.unit = geometry, photons, unit

    def doubt(self, sinogram: Tensor) -> str:
        """What speaks against N in the noise of a scan (1, A, D); empty for nothing."""
        found = float(estimated_photons(sinogram, self.unit))  # of a fan beam's own rays, which are independent
        if not FEWEST < found < MOST or 1 / DOUBTFUL < self.photons / found < DOUBTFUL:
            return ""
        instead = "" if isinstance(self.geometry, FanBeam) else ", or hold out angles: --split angles"
        return (
            f"--split photons takes {self.photons:g} photons a ray, but the noise of the first scan is that of about "
            f"{found:.3g}: with a wrong number both parts share noise, and what is learned and judged is wrong. Say "
            f"how many there were, --window.photons N{instead}"
        )

    def drawn(self, sinogram: Tensor, index: Sequence[int] | Tensor, seed: int, epoch: int, step: int) -> Parts:
        """Drawn anew for each sample and epoch."""
        return self._parts(sinogram, index, 1 - 1 / FOLDS, (_STEP, seed, epoch))

    def fixed(self, sinogram: Tensor, index: Sequence[int] | Tensor) -> Iterator[tuple[Tensor, Parts]]:
        """All samples at once."""
        chosen = torch.ones(len(sinogram), dtype=torch.bool, device=sinogram.device)
        yield chosen, self._parts(sinogram, index, 1 - 1 / FOLDS, (_JUDGED,))

    def halves(self, sinogram: Tensor, index: Sequence[int] | Tensor) -> Parts:
        """Half of the photons and the others."""
        return self._parts(sinogram, index, 1 / 2, (_HALVES,))

    def _parts(self, sinogram: Tensor, index: Sequence[int] | Tensor, share: float, key: tuple[int, ...]) -> Parts:
        counts = (self.photons * torch.exp(-self.unit * sinogram.double())).round()
        kept = torch.stack(
            [
                torch.binomial(count, torch.full_like(count, share), generator=_generator([*key, int(number)], count))
                for count, number in zip(counts, index, strict=True)
            ]
        )
        held_out = counts - kept + 0.5  # of all estimates n + c of the logarithm's argument the one of least bias
        return Parts(
            self._integrals(kept.clamp(min=NONE), share).to(sinogram.dtype),
            some_photons(self.geometry, share),
            self._integrals(held_out, 1 - share).to(sinogram.dtype),
            some_photons(self.geometry, 1 - share),
        )

    def _integrals(self, counts: Tensor, share: float) -> Tensor:
        return (share * self.photons / counts).log() / self.unit


def _generator(key: list[int], like: Tensor) -> torch.Generator:
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator(like.device).manual_seed(int(state) % 2**63)
