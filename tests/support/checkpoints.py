"""Checkpoints of models that need no training."""

from __future__ import annotations

from typing import Any

import torch

from fbp_ray.checkpoint import Manifest, load_model, pack, write_checkpoint
from fbp_ray.model import LearnableFBP
from fbp_ray.storage import Place, open_folder


def save_checkpoint(place: Place, model: LearnableFBP, epoch: int = 1, **kept: Any) -> Manifest:
    """Packs and writes a checkpoint of a model; `kept` is passed on to `pack`."""
    checkpoint = pack(model, epoch=epoch, **{"metrics": {}, "data": {}, **kept})
    write_checkpoint(open_folder(place), checkpoint)
    return checkpoint.manifest


def weights_of(place: Place) -> torch.Tensor:
    """All that was learned, flat."""
    return torch.cat([parameter.flatten() for parameter in load_model(place).parameters()])
