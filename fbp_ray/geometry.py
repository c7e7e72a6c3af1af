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
import warnings
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from fbp_ray.angles import angle_weights, like_degrees
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
    def _angles_in_radians(self) -> ParallelBeam:
        theta = self.theta
        if like_degrees(theta):
            raise ValueError(
                f"the angles run from {theta.min():g} to {theta.max():g}; they are radians: were degrees meant? "
                "Convert them with math.radians or numpy.deg2rad; radians of many turns can be taken modulo 2 pi"
            )
        return self

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
        """The part of the half circle that each angle stands for, in radians, shape (A,); their sum is pi.

        Half the distance to each neighbour, cyclic modulo pi. Looks that nearly repeat each other share what they stand
        for: those of another turn of the scan, and those of a burst. Up to two gaps of more than 5 degrees, and more
        than four times the next largest, count as not measured (a limited-angle scan, or two arcs): their ends then
        stand for as much as the mean gap says, and the sum is less than pi.

        In half acquisition (see `cell_weights`) opposite looks see different rays, so that distances are cyclic modulo
        2 pi, and count half.
        """
        if self._half_acquisition:
            return angle_weights(self.theta, 2 * math.pi, wedge=math.inf) / 2
        return angle_weights(self.theta, math.pi, wedge=math.radians(5))

    @property
    def angle_places(self) -> NDArray[np.float64]:
        """How far along the scan each angle comes, from 0 for the first to 1 for the last, shape (A,)."""
        return np.linspace(0, 1, self.num_angles)

    @property
    def cell_weights(self) -> NDArray[np.float64]:
        """How much each detector cell counts beside its angle's weight, shape (D,): 1 where nothing else is said.

        In a scan over the full circle whose axis lies off the detector's middle (half acquisition), the cells within a
        distance d of the axis see each ray from both sides, and those beyond see it once. They count 0 at -d, 2 from d
        on and 1 + sin(pi t / 2d) at t in between, so that the two looks at a ray always count 2 together, and nothing
        is cut off abruptly for the ramp to run over (after Parker 1982 and Wang 2002).

        A scan over less than the full circle never sees the rays beyond d from one side of the axis. It warns where the
        image goes on there, unless that is as little as the axis of most scans is off.

        Raises:
            GeometryError: d is so small that most of the image would lack what the ramp spreads beyond the detector.
        """
        seen_twice, reach = self._seen_twice, self._reach
        if not self._half_acquisition:
            inscribed = min(self.image_shape) * self.pixel_size / 2
            one_sided = min(seen_twice + 2 * abs(self.axis_offset), inscribed) - seen_twice
            if one_sided > max(3.5 * self.cell_size, 0.05 * inscribed) and not self._full_circle:
                warnings.warn(
                    f"the rotation axis lies {abs(self.axis_offset):g} m off the detector's middle, and the angles "
                    f"leave a part of the full circle out: some rays farther than {seen_twice:g} m from the axis are "
                    "never seen, and the image is wrong if the object reaches there; scan the full circle, or choose "
                    "an image that ends there if the object does",
                    stacklevel=2,
                )
            return np.ones(self.cells)
        if seen_twice < reach / 2:
            raise GeometryError(
                f"the rotation axis lies {abs(self.axis_offset):g} m off the detector's middle, so opposite rays are "
                f"missing beyond {seen_twice:g} m from the axis (half acquisition), too near for the image's "
                f"{reach:g} m; join each projection with the opposite one, reversed, to a scan over the half circle on "
                "a detector with the axis in its middle"
            )
        towards = -math.copysign(1.0, self.axis_offset)  # the side of the axis on which the detector reaches further
        t = self.detector - self.axis_offset
        return np.asarray(1 + np.sin(np.clip(towards * t / seen_twice, -1, 1) * math.pi / 2))

    @property
    def _seen_twice(self) -> float:
        return self.cells * self.cell_size / 2 - abs(self.axis_offset)

    @property
    def _reach(self) -> float:
        return math.hypot(*self.image_shape) * self.pixel_size / 2

    @property
    def _half_acquisition(self) -> bool:
        return abs(self.axis_offset) >= self.cell_size / 2 and self._seen_twice < self._reach and self._full_circle

    @property
    def _full_circle(self) -> bool:
        """Whether no gap is wider than 15 degrees and four times the ordinary one; the longest gap may be a wedge."""
        theta = np.sort(np.mod(self.theta, 2 * math.pi))
        gaps = np.sort(np.diff(theta, append=theta[0] + 2 * math.pi))
        ordinary = gaps[np.searchsorted(np.cumsum(gaps), (2 * math.pi - gaps[-1]) / 4)]
        return self.num_angles > 2 and bool(gaps[-1] <= max(math.radians(15), 4 * ordinary))

    def every(self, n: int, start: int = 0) -> ParallelBeam:
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

    def part(self, first: int | None, every: int) -> ParallelBeam:
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


def check_tensor(array: Any, what: str) -> None:
    """Raises GeometryError when `array` is no torch tensor, or a sparse one."""
    if not hasattr(array, "is_floating_point"):
        hint = "convert it: torch.from_numpy(array)" if isinstance(array, np.ndarray) else "pass a torch.Tensor"
        raise GeometryError(f"{what} is a torch tensor, but this is a {type(array).__name__}; {hint}")
    import torch  # here, not above: who gives a tensor has torch, and settings come without it

    if array.layout != torch.strided:
        raise GeometryError(f"{what} is a dense tensor, but this one is {array.layout}; convert it: .to_dense()")


def _centres(count: int, size: float) -> NDArray[np.float64]:
    return (np.arange(count, dtype=np.float64) - (count - 1) / 2) * size
