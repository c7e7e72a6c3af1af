"""The two operators on a CPU in Numba: float32, the samples of a batch innermost."""

from __future__ import annotations

from fbp_ray.projector.reference import backproject, project

__all__ = ["backproject", "project"]
