"""The fan beam: rays from one point to a row of cells, and the parallel beam that it is rebinned to."""

from __future__ import annotations

import math
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from fbp_ray.angles import arcs
from fbp_ray.caches import cached
from fbp_ray.errors import GeometryError
from fbp_ray.geometry.parallel import ParallelBeam
from fbp_ray.geometry.scan import Positive, RegularAngles, Scan, centres

CLOSEST = 1e-4  # angles, in radians: the parallel beam has as many over the half circle, and at most 65 536
WIDEST = math.radians(70)
"""To either side of the central ray: beyond, a cell of a flat detector sees little, and lengths in different units do
soon make such a fan."""


class FanBeam(Scan):
    """A fan-beam scan and the image grid it is reconstructed on.

    At angle beta the source stands at `source_to_axis * (sin(beta), -cos(beta))`. The ray at gamma from the central
    one, which goes through the rotation axis, is the line

        x cos(theta) + y sin(theta) = s        with theta = beta - gamma and s = source_to_axis * sin(gamma)

    so the central ray is that of a parallel beam of the same angle. A cell whose centre has the coordinate u on the
    detector sees `tan(gamma) = (u - axis_offset) / source_to_detector` where the detector is flat, and
    `gamma = (u - axis_offset) / source_to_detector` where it is curved about the source. A scanner that turns the other
    way has the negative angles.

    Args:
        angles: `RegularAngles`, or the angles beta in radians, in any order: the full circle, a short scan (pi and the
            angle of the fan, or more), or several turns.
        cells: the number of detector cells, D.
        cell_size: the width of a cell in metres, on the detector; cell j has its centre at
            `(j - (D - 1) / 2) * cell_size`.
        image_shape: (H, W), the pixels along x and along y.
        pixel_size: the side of a pixel in metres; pixel i has its centre at `(i - (H - 1) / 2) * pixel_size`.
        axis_offset: the detector coordinate, in metres on the detector, on which the central ray falls.
        source_to_axis: in metres.
        source_to_detector: in metres, along the central ray, which meets the detector at right angles.
        detector: flat, or curved with its cells all at `source_to_detector`, sizes measured along the curve.

    Raises:
        pydantic.ValidationError (a ValueError): a field that is not finite, not positive or of another kind; an axis
            outside the detector, a detector before the axis, a source inside the image, or a fan too wide.
    """

    source_to_axis: Positive
    source_to_detector: Positive
    detector: Literal["flat", "curved"] = "flat"

    @model_validator(mode="after")
    def _distances_make_sense(self) -> Self:
        if self.source_to_detector < self.source_to_axis:
            raise ValueError(
                f"the detector (source_to_detector {self.source_to_detector} m) lies nearer to the source than the "
                f"rotation axis does (source_to_axis {self.source_to_axis} m); are the two exchanged? The first is the "
                "whole way from the source to the detector"
            )
        reach = math.hypot(*self.image_shape) * self.pixel_size / 2
        if self.source_to_axis <= reach:
            raise ValueError(
                f"the source (source_to_axis {self.source_to_axis} m) would go round inside the image, which reaches "
                f"{reach:g} m from the axis; all lengths are metres: give a smaller image_shape or pixel_size, or the "
                "right distance"
            )
        widest = float(np.abs(self.gamma).max())
        if widest > WIDEST:
            raise ValueError(
                f"the fan opens {math.degrees(widest):.0f} degrees to one side of the central ray, and at most "
                f"{math.degrees(WIDEST):.0f} can be; all lengths are metres: is cell_size ({self.cell_size}), or "
                f"source_to_detector ({self.source_to_detector}), in another unit?"
            )
        return self

    @property
    def gamma(self) -> NDArray[np.float64]:
        """The angle of each cell's ray from the central one in radians, shape (D,), ascending."""
        along = (centres(self.cells, self.cell_size) - self.axis_offset) / self.source_to_detector
        return np.arctan(along) if self.detector == "flat" else along

    @property
    def rays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """theta and s of each ray, `x cos(theta) + y sin(theta) = s`: arrays that broadcast to (A, D)."""
        gamma = self.gamma
        return self.theta[:, None] - gamma, self.source_to_axis * np.sin(gamma)[None]

    @property
    def short_scan(self) -> float:
        """The angles, in radians, that a scan has to span to see each ray once: pi and the angle of the fan.

        Of a fan that opens wider to one side, as in half acquisition, it is the full circle.
        """
        gamma = self.gamma
        first, last = -float(gamma[0]), float(gamma[-1])
        even = abs(last - first) <= 1.5 * float(np.diff(gamma).max(initial=0.0))
        return math.pi + 2 * max(first, last) if even else 2 * math.pi

    @property
    def parallel(self) -> ParallelBeam:
        """The parallel beam that the scan is rebinned to (`fbp_ray.rebinning.rebin`), of the same image grid.

        Cells are as wide as the fan's are at the axis, as many as its widest ray asks for, the axis in their middle.
        Angles are evenly spaced over the half circle. They are as many as keep the number of rays: for the full circle,
        which sees each ray from both sides, twice as dense as the fan's, and otherwise as dense; a multiple of four,
        which backprojects fastest.
        """
        return _parallel(self)


@cached(32)
def _parallel(fan: FanBeam) -> ParallelBeam:
    found = arcs(fan.theta)
    steps = np.concatenate([np.diff(arc.angles) for arc in found])
    step = float(np.median(steps)) if steps.size else 0.0
    if not step > CLOSEST:
        raise GeometryError(
            f"no parallel beam can stand for a fan beam whose {fan.num_angles} angles are {step:g} radians apart; give "
            "those of the whole scan, in radians"
        )
    both = any(arc.closed or np.ptp(arc.angles) >= 2 * math.pi - step for arc in found)
    count = 4 * math.ceil(math.pi / step * (2 if both else 1) / 4 - 1e-6)
    cell_size = fan.cell_size * fan.source_to_axis / fan.source_to_detector
    furthest = fan.source_to_axis * float(np.sin(np.abs(fan.gamma)).max())
    return ParallelBeam(
        angles=RegularAngles(count=count, first=math.pi / (2 * count), step=math.pi / count),
        cells=2 * math.floor(furthest / cell_size + 0.5 * (fan.cells % 2 == 0) + 1e-9) + fan.cells % 2,
        cell_size=cell_size,
        image_shape=fan.image_shape,
        pixel_size=fan.pixel_size,
    )
