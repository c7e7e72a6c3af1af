"""Filter stages whose window is a table of weights: fixed, a weight a frequency, a weight an angle and frequency."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fbp_ray.filters.ramp import ramp
from fbp_ray.filters.spectral import filter_projections
from fbp_ray.geometry import ParallelBeam


class TableWindow(nn.Module):
    """ramp x window, times the part of the half circle that each angle stands for.

    Args:
        geometry: the scan; `geometry.cells` gives D, and F = fft_length(D) / 2 + 1.
        start: (F,), the window at the start; its dtype is the weights'.
    """

    weight: Tensor
    response: Tensor

    def __init__(self, geometry: ParallelBeam, start: Tensor) -> None:
        super().__init__()
        # `backproject` sums with c = pixel_size^2 / cell_size; the integral over the angles wants angle_weights.
        scale = geometry.angle_weights * geometry.cell_size / geometry.pixel_size**2
        response = ramp(geometry.cells, geometry.cell_size)
        table = scale[:, None] * response if np.ptp(scale) > 1e-9 * scale.max() else scale[0] * response
        # Derived from the geometry alone, so it is no part of the learned state.
        self.register_buffer("response", torch.tensor(table, dtype=start.dtype), persistent=False)
        self._set_weight(start, geometry)

    def _set_weight(self, start: Tensor, geometry: ParallelBeam) -> None:
        raise NotImplementedError

    def forward(self, sinogram: Tensor) -> Tensor:
        """(B, A, D) -> (B, A, D), so that `backproject` of the result is the image in absolute units."""
        return filter_projections(sinogram, (self.response * self.weight).to(sinogram.dtype))


class FixedWindow(TableWindow):
    """An analytic window that is not learned: the classic FBP."""

    def _set_weight(self, start: Tensor, geometry: ParallelBeam) -> None:
        self.register_buffer("weight", start, persistent=False)


class FrequencyWindow(TableWindow):
    """One learned weight a frequency, shared by all angles: `weight` (F,)."""

    def _set_weight(self, start: Tensor, geometry: ParallelBeam) -> None:
        self.weight = nn.Parameter(start)


class AngleFrequencyWindow(TableWindow):
    """One learned weight for every angle and frequency: `weight` (A, F)."""

    def _set_weight(self, start: Tensor, geometry: ParallelBeam) -> None:
        self.weight = nn.Parameter(start.expand(geometry.num_angles, -1).clone())
