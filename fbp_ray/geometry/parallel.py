"""The parallel beam: the geometry that everything after the measurement works in."""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import NDArray

from fbp_ray.angles import angle_weights
from fbp_ray.caches import cached
from fbp_ray.errors import GeometryError
from fbp_ray.geometry.scan import RegularAngles, Scan, centres

LEAST_SEEN_TWICE = 16
"""Cells from the axis to the nearer end of the detector, in half acquisition."""


class ParallelBeam(Scan):
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
    def parallel(self) -> ParallelBeam:
        """The parallel beam that filters and backprojection work in: itself, or in half acquisition a wider one.

        The ramp spreads what a detector measured beyond its ends. There the opposite looks see the object, so it has to
        be kept: the detector is continued on the short side until the axis is in its middle (`WiderBeam`).
        """
        return _wider(self) if self._half_acquisition else self

    @property
    def added(self) -> tuple[int, int]:
        """The cells before and after those of a detector that this one continues; see `WiderBeam`."""
        return 0, 0

    @property
    def rays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """theta and s of each ray, `x cos(theta) + y sin(theta) = s`: arrays that broadcast to (A, D)."""
        return self.theta[:, None], (self.detector - self.axis_offset)[None]

    @property
    def detector(self) -> NDArray[np.float64]:
        """The centres of the detector cells in metres, shape (D,), ascending."""
        return centres(self.cells, self.cell_size)

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
    def cell_weights(self) -> NDArray[np.float64]:
        """How much each detector cell counts beside its angle's weight, shape (D,): 1 where nothing else is said.

        In a scan over the full circle whose axis lies off the detector's middle (half acquisition), the cells within a
        distance d of the axis see each ray from both sides, and those beyond see it once. They count 0 at -d, 2 from d
        on and 1 + sin(pi t / 2d) at t in between, so that the two looks at a ray always count 2 together, and nothing
        is cut off abruptly for the ramp to run over (after Parker 1982 and Wang 2002).

        A scan over less than the full circle never sees the rays beyond d from one side of the axis. It warns where the
        image goes on there, unless that is as little as the axis of most scans is off.

        From d = 14 cells on an analytic disc is within 1 % at any place of the axis between two cells (0.1 % at 32
        cells). Nearer, the weights change so fast between cells that interpolation leaves a spot at the axis: 2 % at 10
        cells, 9 % at 6.

        Raises:
            GeometryError: d is less than 16 cells, and less than half of the image's reach.
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
        if seen_twice < min(LEAST_SEEN_TWICE * self.cell_size, reach / 2):
            raise GeometryError(
                f"the rotation axis lies {abs(self.axis_offset):g} m off the detector's middle, so opposite rays are "
                f"missing beyond {seen_twice:g} m from the axis (half acquisition), which is less than "
                f"{LEAST_SEEN_TWICE} cells: the looks from both sides cannot be joined; join each projection with the "
                "opposite one, reversed, to a scan over the half circle on a detector with the axis in its middle"
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


@cached(32)
def _wider(measured: ParallelBeam) -> WiderBeam:
    return WiderBeam.of(measured)


class WiderBeam(ParallelBeam):
    """A half acquisition whose detector is continued by cells that measure nothing, and so count 0."""

    measured: ParallelBeam
    before: int
    """How many cells come before the measured ones; the others follow them."""

    @classmethod
    def of(cls, measured: ParallelBeam) -> WiderBeam:
        """As many cells more as put the axis within half a cell of the middle."""
        more = round(2 * abs(measured.axis_offset) / measured.cell_size)
        left = measured.axis_offset < 0
        fields = {name: getattr(measured, name) for name in ParallelBeam.model_fields}
        fields["cells"] += more
        fields["axis_offset"] += (more if left else -more) * measured.cell_size / 2
        return cls(**fields, measured=measured, before=more if left else 0)

    @property
    def parallel(self) -> ParallelBeam:
        """Itself."""
        return self

    @property
    def angle_weights(self) -> NDArray[np.float64]:
        """Those of the measured scan."""
        return self.measured.angle_weights

    @property
    def added(self) -> tuple[int, int]:
        """The cells before and after the measured ones."""
        return self.before, self.cells - self.measured.cells - self.before

    @property
    def cell_weights(self) -> NDArray[np.float64]:
        """Those of the measured scan, and 0."""
        return np.pad(self.measured.cell_weights, self.added)
