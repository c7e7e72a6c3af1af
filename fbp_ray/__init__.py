"""Learnable filtered backprojection for low-dose CT: train on a laptop or a cluster, tune, serve.

The names below are loaded when they are first used, so `fbp_ray.client` and other parts that need no torch start
without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fbp_ray.checkpoint import load_model
    from fbp_ray.geometry import FanBeam, ParallelBeam, RegularAngles
    from fbp_ray.model import LearnableFBP, ModelConfig, fbp
    from fbp_ray.projector import backproject, project

__all__ = [
    "FanBeam",
    "LearnableFBP",
    "ModelConfig",
    "ParallelBeam",
    "RegularAngles",
    "backproject",
    "fbp",
    "load_model",
    "project",
]
_MODULES = {
    "FanBeam": "geometry",
    "LearnableFBP": "model",
    "ModelConfig": "model",
    "ParallelBeam": "geometry",
    "RegularAngles": "geometry",
    "backproject": "projector",
    "fbp": "model",
    "load_model": "checkpoint",
    "project": "projector",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
