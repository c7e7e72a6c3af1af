"""What scans of every kind have in common: angles, detector cells, and the grid of the image."""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from fbp_ray.angles import like_degrees
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


class Scan(_Value):
    """A scan and the image grid it is reconstructed on."""

    angles: RegularAngles | tuple[Finite, ...]
    cells: Count
    cell_size: Positive
    image_shape: tuple[Count, Count]
    pixel_size: Positive
    axis_offset: Finite = 0.0

    def __str__(self) -> str:
        if isinstance(self.angles, RegularAngles) or len(self.angles) <= 6:
            return repr(self)
        some = f"({self.angles[0]:g}, {self.angles[1]:g}, .. {self.angles[-1]:g}: {len(self.angles)} of them)"
        return repr(self).replace(repr(self.angles), some)

    @field_validator("angles")
    @classmethod
    def _some_angles(cls, angles: RegularAngles | tuple[float, ...]) -> RegularAngles | tuple[float, ...]:
        if isinstance(angles, tuple) and not angles:
            raise ValueError("a scan has at least one angle; give radians, for example (0.0, 1.5708)")
        return angles

    @model_validator(mode="after")
    def _angles_in_radians(self) -> Self:
        theta = self.theta
        if like_degrees(theta):
            raise ValueError(
                f"the angles run from {theta.min():g} to {theta.max():g}; they are radians: were degrees meant? "
                "Convert them with math.radians or numpy.deg2rad; radians of many turns can be taken modulo 2 pi"
            )
        return self

    @model_validator(mode="after")
    def _rotation_axis_seen(self) -> Self:
        half_detector = self.cells * self.cell_size / 2
        if abs(self.axis_offset) >= half_detector:
            raise ValueError(
                f"the rotation axis (axis_offset {self.axis_offset} m) falls outside the detector, which reaches "
                f"{half_detector} m to either side; axis_offset is in metres, not in cells"
            )
        return self

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
    def x(self) -> NDArray[np.float64]:
        """The pixel centres along axis 0 in metres, shape (H,), ascending."""
        return centres(self.image_shape[0], self.pixel_size)

    @property
    def y(self) -> NDArray[np.float64]:
        """The pixel centres along axis 1 in metres, shape (W,), ascending."""
        return centres(self.image_shape[1], self.pixel_size)

    @property
    def angle_places(self) -> NDArray[np.float64]:
        """How far along the scan each angle comes, from 0 for the first to 1 for the last, shape (A,)."""
        return np.linspace(0, 1, self.num_angles)

    def every(self, n: int, start: int = 0) -> Self:
        """The scan that keeps each n-th angle, from the `start`-th on (sparse angles); of many turns, modulo 2 pi."""
        if n < 1 or not 0 <= start < self.num_angles:
            raise GeometryError(
                f"every(n, start) takes n >= 1 and 0 <= start < {self.num_angles} (the number of angles); "
                f"got n={n}, start={start}"
            )
        if np.ptp(self.theta) > 2 * math.pi:  # every other golden angle, say, would not be known for radians
            return self._with(tuple(np.mod(self.theta[start::n], 2 * math.pi).tolist()))
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

    def part(self, first: int | None, every: int) -> Self:
        """The scan that keeps each so many of the `first` so many angles (None: of all), in the scan's order.

        Raises:
            GeometryError: there are fewer angles.
        """
        if first is None or first == self.num_angles:
            return self if every == 1 else self.every(every)
        if not 1 <= first <= self.num_angles:
            raise GeometryError(f"the first {first} angles were asked for, of a scan that has {self.num_angles}")
        if isinstance(self.angles, RegularAngles):
            kept = self._with(self.angles.model_copy(update={"count": first}))
        else:
            kept = self._with(self.angles[:first])
        return kept.part(None, every)

    def limited(self, first: float, last: float) -> Self:
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

    def _with(self, angles: RegularAngles | tuple[float, ...]) -> Self:
        return type(self)(**{**dict(self), "angles": angles})

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


def check_tensor(array: Any, what: str) -> None:
    """Raises GeometryError when `array` is no torch tensor, or a sparse one."""
    if not hasattr(array, "is_floating_point"):
        hint = "convert it: torch.from_numpy(array)" if isinstance(array, np.ndarray) else "pass a torch.Tensor"
        raise GeometryError(f"{what} is a torch tensor, but this is a {type(array).__name__}; {hint}")
    import torch  # here, not above: who gives a tensor has torch, and settings come without it

    if array.layout != torch.strided:
        raise GeometryError(f"{what} is a dense tensor, but this one is {array.layout}; convert it: .to_dense()")


def centres(count: int, size: float) -> NDArray[np.float64]:
    """The centres of pixels or cells in a row about 0."""
    return (np.arange(count, dtype=np.float64) - (count - 1) / 2) * size
