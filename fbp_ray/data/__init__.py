"""LoDoPaB-CT files, genuine or simulated, as a torch data set and as batches.

What needs torch is imported when it is first used: programs look at a folder before that.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fbp_ray.data.layout import describe, electronic_noise_of, geometry_of, patients_of, photons_of, unit_of

if TYPE_CHECKING:
    from fbp_ray.data.cache import SharedCache
    from fbp_ray.data.loader import Batches
    from fbp_ray.data.lodopab import LoDoPaB, Sample

__all__ = [
    "Batches",
    "LoDoPaB",
    "Sample",
    "SharedCache",
    "describe",
    "electronic_noise_of",
    "geometry_of",
    "patients_of",
    "photons_of",
    "unit_of",
]
_MODULES = {"Batches": "loader", "LoDoPaB": "lodopab", "Sample": "lodopab", "SharedCache": "cache"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value
