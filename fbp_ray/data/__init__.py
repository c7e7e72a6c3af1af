"""LoDoPaB-CT files, genuine or simulated, as torch data sets."""

from __future__ import annotations

from fbp_ray.data.description import describe, geometry_of
from fbp_ray.data.lodopab import LoDoPaB, Observation, Observations, Sample

__all__ = ["LoDoPaB", "Observation", "Observations", "Sample", "describe", "geometry_of"]
