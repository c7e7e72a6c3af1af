"""LoDoPaB-CT files, genuine or simulated, as a torch data set and as batches."""

from __future__ import annotations

from fbp_ray.data.cache import SharedCache
from fbp_ray.data.layout import describe, geometry_of, photons_of
from fbp_ray.data.loader import Batches
from fbp_ray.data.lodopab import LoDoPaB, Sample

__all__ = ["Batches", "LoDoPaB", "Sample", "SharedCache", "describe", "geometry_of", "photons_of"]
