"""The parallel-beam geometry: one frozen value that everything else takes.

Conventions (those of LoDoPaB-CT, as ODL defines its two-dimensional parallel beam):

- an image has axis 0 = x and axis 1 = y, both ascending, values at pixel centres, the rotation axis in its middle;
- a sinogram has axis 0 = angle and axis 1 = detector cell, both ascending;
- the ray of angle theta and detector coordinate s is the line `x cos(theta) + y sin(theta) + axis_offset = s`;
- lengths are metres, angles radians. A sinogram of an image in 1/m is then free of unit: line integrals.

Dimensions in docstrings of the package: B batch, A angles, D detector cells, F frequencies, H and W the image's axes.
"""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from fbp_ray.errors import GeometryError
from fbp_ray.settings import Frozen

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=65536)]


class _Value(Frozen):
    def __str__(self) -> str:
        return repr(self)


class RegularAngles(_Value):
    """Equally spaced angles: `first + k * step`, k = 0 .. count - 1, in radians."""

    count: Count
    first: Finite
    step: Positive


class ParallelBeam(_Value):
    """A parallel-beam scan and the image grid it is reconstructed on.

    Args:
        angles: `RegularAngles`, or the angles themselves in radians, in any order.
        cells: the number of detector cells, D.
        cell_size: the width of a cell in metres; cell j has its centre at `(j - (D - 1) / 2) * cell_size`.
        image_shape: (H, W), the pixels along x and along y.
        pixel_size: the side of a pixel in metres; pixel i has its centre at `(i - (H - 1) / 2) * pixel_size`.
        axis_offset: the detector coordinate, in metres, on which the rotation axis falls.

    Raises:
        pydantic.ValidationError (a ValueError): a field that is not finite, not positive or of another kind.
    """

    angles: RegularAngles | tuple[Finite, ...]
    cells: Count
    cell_size: Positive
    image_shape: tuple[Count, Count]
    pixel_size: Positive
    axis_offset: Finite = 0.0

    @field_validator("angles")
    @classmethod
    def _some_angles(cls, angles: RegularAngles | tuple[float, ...]) -> RegularAngles | tuple[float, ...]:
        if isinstance(angles, tuple) and not angles:
            raise ValueError("a scan has at least one angle; give radians, for example (0.0, 1.5708)")
        return angles

    @model_validator(mode="after")
    def _rotation_axis_seen(self) -> ParallelBeam:
        half_detector = self.cells * self.cell_size / 2
        if abs(self.axis_offset) >= half_detector:
            raise ValueError(
                f"the rotation axis (axis_offset {self.axis_offset} m) falls outside the detector, which reaches "
                f"{half_detector} m to either side; axis_offset is in metres, not in cells"
            )
        return self

    @classmethod
    def lodopab(cls) -> ParallelBeam:
        """The geometry of LoDoPaB-CT: 1000 angles, 513 cells over the diagonal of a 0.26 m square of 362 x 362."""
        step = math.pi / 1000
        return cls(
            angles=RegularAngles(count=1000, first=step / 2, step=step),
            cells=513,
            cell_size=0.26 * math.sqrt(2) / 513,
            image_shape=(362, 362),
            pixel_size=0.26 / 362,
        )

    @property
    def num_angles(self) -> int:
        """A, the number of angles."""
        return self.angles.count if isinstance(self.angles, RegularAngles) else len(self.angles)

    @property
    def sinogram_shape(self) -> tuple[int, int]:
        """(A, D)."""
        return (self.num_angles, self.cells)

    @property
    def theta(self) -> NDArray[np.float64]:
        """The angles in radians, shape (A,)."""
        if isinstance(self.angles, RegularAngles):
            return self.angles.first + self.angles.step * np.arange(self.angles.count, dtype=np.float64)
        return np.asarray(self.angles, dtype=np.float64)

    @property
    def detector(self) -> NDArray[np.float64]:
        """The centres of the detector cells in metres, shape (D,), ascending."""
        return _centres(self.cells, self.cell_size)

    @property
    def x(self) -> NDArray[np.float64]:
        """The pixel centres along axis 0 in metres, shape (H,), ascending."""
        return _centres(self.image_shape[0], self.pixel_size)

    @property
    def y(self) -> NDArray[np.float64]:
        """The pixel centres along axis 1 in metres, shape (W,), ascending."""
        return _centres(self.image_shape[1], self.pixel_size)

    @property
    def angle_weights(self) -> NDArray[np.float64]:
        """The part of the half circle that each angle stands for, in radians, shape (A,).

        Half the distance to each neighbour, cyclic modulo pi, shared between angles that see the same rays; for
        regular angles over the half circle this is pi / A. A gap more than four times the mean of the others counts as
        not measured (a limited-angle scan): its two ends then stand for as much as the mean gap says.
        """
        theta = np.mod(self.theta, math.pi)
        order = np.argsort(theta, kind="stable")
        gaps = np.diff(theta[order], append=theta[order[0]] + math.pi)
        same = gaps < 1e-9  # the same rays once more, as in a scan over the full circle
        if np.count_nonzero(~same) > 1:
            kept = np.sort(gaps[~same])
            usual = kept[:-1].mean()
            gaps = np.where(gaps > 4 * usual, usual, gaps)
        group = np.concatenate([[0], np.cumsum(~same[:-1])])
        if same[-1]:
            group[group == group[-1]] = 0
        each = (gaps + np.roll(gaps, 1)) / 2
        shared = np.bincount(group, each) / np.bincount(group)
        weights = np.empty_like(theta)
        weights[order] = shared[group]
        return weights

    def every(self, n: int, start: int = 0) -> ParallelBeam:
        """The scan that keeps each n-th angle, from the `start`-th on (sparse angles)."""
        if n < 1 or not 0 <= start < self.num_angles:
            raise GeometryError(
                f"every(n, start) takes n >= 1 and 0 <= start < {self.num_angles} (the number of angles); "
                f"got n={n}, start={start}"
            )
        if isinstance(self.angles, RegularAngles):
            regular = self.angles
            return self._with(
                RegularAngles(
                    count=len(range(start, regular.count, n)),
                    first=regular.first + start * regular.step,
                    step=n * regular.step,
                )
            )
        return self._with(self.angles[start::n])

    def limited(self, first: float, last: float) -> ParallelBeam:
        """The scan that keeps the angles theta with `first <= theta < last`, in radians (limited angle)."""
        theta = self.theta
        kept = np.flatnonzero((theta >= first) & (theta < last))
        if kept.size == 0:
            raise GeometryError(
                f"no angle lies in [{first}, {last}); this scan has angles from {theta.min():.4f} to "
                f"{theta.max():.4f} radians"
            )
        if isinstance(self.angles, RegularAngles):
            return self._with(RegularAngles(count=int(kept.size), first=float(theta[kept[0]]), step=self.angles.step))
        return self._with(tuple(float(theta[k]) for k in kept))

    def _with(self, angles: RegularAngles | tuple[float, ...]) -> ParallelBeam:
        return ParallelBeam(**{**dict(self), "angles": angles})

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name this geometry: the SHA-256 of its JSON form, shortened."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def check(self, array: Any, kind: Literal["sinogram", "image"]) -> None:
        """Raises GeometryError when the last two dimensions of `array` are not this geometry's."""
        wanted = self.sinogram_shape if kind == "sinogram" else self.image_shape
        shape = tuple(array.shape)
        if shape[-2:] != wanted:
            names = "(..., angles, cells)" if kind == "sinogram" else "(..., x, y)"
            turned = shape[-2:][::-1] == wanted
            hint = "swap its last two axes" if turned else "pass the geometry that it was made with"
            raise GeometryError(
                f"a {kind} of this geometry has the shape {names} = (..., {wanted[0]}, {wanted[1]}), but this one is "
                f"{shape}; {hint}"
            )


def _centres(count: int, size: float) -> NDArray[np.float64]:
    return (np.arange(count, dtype=np.float64) - (count - 1) / 2) * size
