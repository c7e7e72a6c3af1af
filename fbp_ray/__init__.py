"""Learnable filtered backprojection for low-dose CT: train on a laptop or a cluster, tune, serve."""

from fbp_ray.checkpoint import load_model
from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.model import LearnableFBP, ModelConfig, fbp
from fbp_ray.projector import backproject, project

__all__ = [
    "LearnableFBP",
    "ModelConfig",
    "ParallelBeam",
    "RegularAngles",
    "backproject",
    "fbp",
    "load_model",
    "project",
]
