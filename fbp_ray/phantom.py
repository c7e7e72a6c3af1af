"""A phantom with a known image, for checks that a model or a machine reconstructs at all."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fbp_ray.data.layout import MU_MAX, MU_WATER
from fbp_ray.geometry import ParallelBeam


def soft_disc(geometry: ParallelBeam) -> Tensor:
    """A disc of water with a soft edge and a denser spot in it: (H, W), attenuation / MU_MAX."""
    reach = min(abs(geometry.x[0]), abs(geometry.y[0]), geometry.cells * geometry.cell_size / 2)
    x, y = geometry.x[:, None] / reach, geometry.y[None, :] / reach

    def disc(centre: float, radius: float) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp((np.hypot(x - centre, y) - radius) / 0.05)))

    image = MU_WATER / MU_MAX * (disc(0.0, 0.6) + 0.5 * disc(0.25, 0.15))
    return torch.from_numpy(image.astype(np.float32))


def relative_error(image: Tensor, truth: Tensor) -> float:
    """|image - truth| / |truth|, both of the same shape."""
    return float((image - truth).norm() / truth.norm())
