"""The filter stage of a filtered backprojection: the ramp times a window, which may be learned.

An analytic window tames the ramp. With f in units of the Nyquist frequency and the cut-off c it is 0 beyond f = c, and
up to there

    none         1
    shepp-logan  sin(pi f / 2c) / (pi f / 2c)
    cosine       cos(pi f / 2c)
    hamming      0.54 + 0.46 cos(pi f / c)
    hann         cos^2(pi f / 2c)

(Kak and Slaney 1988, section 3.3; Shepp and Logan 1974). A learned window starts as one of these. A new kind of window
is a stage in this module, a branch in `build_filter` and a name in `WindowKind`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from fbp_ray.errors import ConfigError
from fbp_ray.filters.filtering import filter_projections, frequencies, ramp
from fbp_ray.geometry import ParallelBeam
from fbp_ray.settings import Frozen

Array = NDArray[np.float64]
WindowName = Literal["none", "shepp-logan", "cosine", "hamming", "hann"]
WindowKind = Literal["fixed", "frequency", "angle_frequency"]


class WindowConfig(Frozen):
    """The kind of window, and what it is at the start."""

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


_SHAPES: dict[str, Callable[[Array], Array]] = {
    "none": np.ones_like,
    "shepp-logan": lambda r: np.sinc(r / 2),
    "cosine": lambda r: np.cos(np.pi * r / 2),
    "hamming": lambda r: 0.54 + 0.46 * np.cos(np.pi * r),
    "hann": lambda r: np.cos(np.pi * r / 2) ** 2,
}


def analytic_window(name: WindowName, frequency: Array, cutoff: float = 1.0) -> Array:
    """The window's values at `frequency`.

    Args:
        name: none, shepp-logan, cosine, hamming or hann.
        frequency: as fractions of the Nyquist frequency, any shape.
        cutoff: c, as a fraction of the Nyquist frequency, above 0.

    Raises:
        ConfigError: an unknown name, or a cut-off that is not a positive number.
    """
    if name not in _SHAPES:
        raise ConfigError(f"no window is called {name!r}; there are {', '.join(get_args(WindowName))}")
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise ConfigError(f"a cut-off is a positive fraction of the Nyquist frequency, for example 0.8; got {cutoff}")
    ratio = np.asarray(frequency, dtype=np.float64) / cutoff
    return np.where(ratio <= 1, _SHAPES[name](np.minimum(ratio, 1)), 0.0)


class TableWindow(nn.Module):
    """ramp x window, times the part of the half circle that each angle stands for; the window is a table of weights.

    Args:
        geometry: the scan; `geometry.cells` gives D, and F = fft_length(D) / 2 + 1.
        start: (F,) for all angles or (A, F), the window at the start; its dtype is the weights'.
        learned: whether `weight` is a parameter; the analytic window of a classic FBP is a buffer.
    """

    weight: Tensor
    response: Tensor
    cell_weights: Tensor | None

    def __init__(self, geometry: ParallelBeam, start: Tensor, learned: bool) -> None:
        super().__init__()
        # `backproject` sums with c = pixel_size^2 / cell_size; the integral over the angles wants angle_weights.
        scale = geometry.angle_weights * geometry.cell_size / geometry.pixel_size**2
        response = ramp(geometry.cells, geometry.cell_size)
        table = scale[:, None] * response if np.ptp(scale) > 1e-9 * scale.max() else scale[0] * response
        # Derived from the geometry alone, so it is no part of the learned state.
        self.register_buffer("response", torch.tensor(table, dtype=start.dtype, device="cpu"), persistent=False)
        cells = geometry.cell_weights
        cell_weights = torch.tensor(cells, dtype=start.dtype, device="cpu") if np.ptp(cells) > 0 else None
        self.register_buffer("cell_weights", cell_weights, persistent=False)
        if learned:
            self.weight = nn.Parameter(start)
        else:
            self.register_buffer("weight", start, persistent=False)

    def forward(self, sinogram: Tensor) -> Tensor:
        """(B, A, D) -> (B, A, D), so that `backproject`, interpolating, makes of it the image in absolute units."""
        if self.cell_weights is not None:
            sinogram = sinogram * self.cell_weights.to(sinogram.dtype)
        return filter_projections(sinogram, self.response * self.weight)


def build_filter(config: WindowConfig, geometry: ParallelBeam, dtype: torch.dtype = torch.float32) -> TableWindow:
    """The filter stage that `config` describes, for this geometry, on the CPU, with weights of `dtype`."""
    frequency = frequencies(geometry.cells)
    window = (
        analytic_window("none", frequency)
        if config.init == "ones"
        else analytic_window(config.init, frequency, config.cutoff)
    )
    start = torch.tensor(window, dtype=dtype, device="cpu")
    if config.kind == "angle_frequency":
        start = start.expand(geometry.num_angles, -1).clone()
    return TableWindow(geometry, start, learned=config.kind != "fixed")
