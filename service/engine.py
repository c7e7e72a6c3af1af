"""What turns sinograms into images: a learned model of some version, or the classic FBP with some window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import torch
from torch import Tensor

from fbp_ray.data.layout import MU_MAX
from fbp_ray.filters import WindowName
from fbp_ray.geometry import ParallelBeam
from fbp_ray.model import LearnableFBP, fbp

CLASSIC = "classic-fbp"
UNIT = f"attenuation in 1/m, divided by {MU_MAX:.5f}"


@dataclass(frozen=True)
class Engine:
    """A way to reconstruct. Two with the same key give the same images, and may share a batch."""

    name: str
    version: str
    method: Literal["learned", "fbp"]
    geometry: ParallelBeam
    device: torch.device
    run: Callable[[Tensor], Tensor]
    """(B, A, D) -> (B, H, W), both float32 in the processor's memory."""

    @cached_property
    def digest(self) -> str:
        """Names the geometry."""
        return self.geometry.digest

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it different from others."""
        return (self.method, self.version, self.digest)


def learned(name: str, version: str, model: LearnableFBP, device: torch.device) -> Engine:
    """A trained model, which is on `device`."""
    return Engine(name, version, "learned", model.geometry, device, lambda batch: model(batch.to(device)).cpu())


@lru_cache(maxsize=32)
def classic(geometry: ParallelBeam, window: WindowName, cutoff: float, device: torch.device) -> Engine:
    """The classic FBP."""

    def run(batch: Tensor) -> Tensor:
        return fbp(batch.to(device), geometry, window, cutoff).cpu()

    return Engine(CLASSIC, f"{window}-{cutoff:g}", "fbp", geometry, device, run)
