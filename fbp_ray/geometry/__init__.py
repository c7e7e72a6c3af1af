"""The geometry of a scan: one frozen value that everything else takes, a `ParallelBeam` or a `FanBeam`.

Conventions (those of LoDoPaB-CT, as ODL defines its two-dimensional parallel beam):

- an image has axis 0 = x and axis 1 = y, both ascending, values at pixel centres, the rotation axis in its middle;
- a sinogram has axis 0 = angle and axis 1 = detector cell, both ascending;
- the ray of angle theta and detector coordinate s is the line `x cos(theta) + y sin(theta) + axis_offset = s`; what a
  fan beam's are, `FanBeam` says;
- lengths are metres, angles radians. A sinogram of an image in 1/m is then free of unit: line integrals.

Dimensions in docstrings of the package: B batch, A angles, D detector cells, F frequencies, H and W the image's axes.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from fbp_ray.geometry.fan import FanBeam
from fbp_ray.geometry.parallel import ParallelBeam, WiderBeam
from fbp_ray.geometry.scan import RegularAngles, check_tensor

__all__ = ["FanBeam", "Geometry", "ParallelBeam", "RegularAngles", "WiderBeam", "check_tensor", "geometry_from"]


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "fan" if {"source_to_axis", "source_to_detector"} & value.keys() else "parallel"
    return "fan" if isinstance(value, FanBeam) else "parallel"


Geometry = Annotated[Annotated[ParallelBeam, Tag("parallel")] | Annotated[FanBeam, Tag("fan")], Discriminator(_kind)]
"""Either; as JSON they are told apart by the distances that only a fan beam has."""


def geometry_from(fields: Any) -> Geometry:
    """The geometry with these fields, as JSON has them; raises pydantic.ValidationError."""
    return (FanBeam if _kind(fields) == "fan" else ParallelBeam).model_validate(fields)
