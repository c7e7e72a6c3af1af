"""The filter stage of a filtered backprojection: sinogram in, filtered sinogram out.

A stage is any `torch.nn.Module` that maps (B, A, D) to (B, A, D) such that `backproject` of the result is the image in
absolute units: it holds the ramp, the window, and the weight of each angle. Nothing downstream asks how it got there,
so a stage may blend several filtered copies by the noise of each ray, or smooth along the angle.

`build_filter` makes the stage that a `WindowConfig` names; a new kind is a module and a line in `_STAGES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from fbp_ray.filters.ramp import fft_length, frequencies, ramp
from fbp_ray.filters.stages import AngleFrequencyWindow, FixedWindow, FrequencyWindow, TableWindow
from fbp_ray.filters.windows import WindowName, analytic_window
from fbp_ray.geometry import ParallelBeam
from fbp_ray.settings import Frozen

__all__ = [
    "AngleFrequencyWindow",
    "FixedWindow",
    "FrequencyWindow",
    "TableWindow",
    "WindowConfig",
    "WindowKind",
    "WindowName",
    "analytic_window",
    "build_filter",
    "fft_length",
    "frequencies",
    "ramp",
]

WindowKind = Literal["fixed", "frequency", "angle_frequency"]


class WindowConfig(Frozen):
    """Which window stands before the ramp, and what it is at the start."""

    kind: WindowKind = Field(
        default="frequency",
        description="fixed: not learned; frequency: a weight a frequency, shared by the angles; "
        "angle_frequency: a weight for every angle and frequency",
    )
    init: Literal["ones", "none", "shepp-logan", "cosine", "hamming", "hann"] = Field(
        default="ones", description="the window at the start: ones, or an analytic one"
    )
    cutoff: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=1.0, description="the cut-off of the analytic window, a fraction of the Nyquist frequency"
    )

    @model_validator(mode="after")
    def _ones_have_no_cutoff(self) -> WindowConfig:
        if self.init == "ones" and self.cutoff != 1:
            raise ValueError(
                f"a window of ones has no cut-off, but cutoff is {self.cutoff}; set it to 1, or choose an init that "
                "has one, for example none (the ideal low-pass)"
            )
        return self


_STAGES: dict[str, Callable[..., nn.Module]] = {
    "fixed": FixedWindow,
    "frequency": FrequencyWindow,
    "angle_frequency": AngleFrequencyWindow,
}


def build_filter(config: WindowConfig, geometry: ParallelBeam, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The filter stage that `config` describes, for this geometry, on the CPU, with weights of `dtype`."""
    frequency = frequencies(geometry.cells)
    if config.init == "ones":
        start = analytic_window("none", frequency)
    else:
        start = analytic_window(config.init, frequency, config.cutoff)
    return _STAGES[config.kind](geometry, torch.tensor(start, dtype=dtype))
