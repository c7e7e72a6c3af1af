"""The filter stage of a filtered backprojection: sinogram in, filtered sinogram out.

A stage is any `torch.nn.Module` that maps (B, A, D) to (B, A, D) such that `backproject` of the result, with
`interpolate=True`, is the image in absolute units: it holds the ramp, the window, and the weight of each angle. Nothing
downstream asks how it got there, so a stage may blend several filtered copies by the noise of each ray, or smooth along
the angle. `build_filter` makes the stage that a `WindowConfig` names.
"""

from __future__ import annotations

import torch
from torch import nn

from fbp_ray.filters.adaptive import BandWindow, ZengWindow
from fbp_ray.filters.filtering import filter_projections
from fbp_ray.filters.noise import carried_noise
from fbp_ray.filters.ramp import fft_length, frequencies, ramp
from fbp_ray.filters.windows import SmoothWindow, TableWindow, analytic_window, cosine_basis, is_plain, spline_basis
from fbp_ray.geometry import Geometry
from fbp_ray.own import own_stage
from fbp_ray.own_names import is_own
from fbp_ray.stage_settings import WindowConfig, WindowKind, WindowName

__all__ = [
    "BandWindow",
    "SmoothWindow",
    "TableWindow",
    "WindowConfig",
    "WindowKind",
    "WindowName",
    "ZengWindow",
    "analytic_window",
    "build_filter",
    "fft_length",
    "filter_projections",
    "frequencies",
    "is_plain",
    "ramp",
]


def build_filter(config: WindowConfig, scan: Geometry, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The filter stage that `config` describes, on the CPU, with weights of `dtype`.

    It is one for the scan's parallel beam; of a fan beam it only matters how noisy its rebinned rays are.
    """
    geometry = scan.parallel
    if is_own(config.kind):
        return own_stage(config.kind, config.options, geometry).to("cpu", dtype)
    if config.kind in ("ray_noise", "adaptive"):
        return BandWindow(config, geometry, dtype, carried_noise(scan))
    frequency = frequencies(geometry.cells)
    window = (
        analytic_window("none", frequency)
        if config.init == "ones"
        else analytic_window(config.init, frequency, config.cutoff)
    )
    start = torch.tensor(window, dtype=dtype, device="cpu")
    match config.kind:
        case "zeng":
            return ZengWindow(geometry, start, config.unit, carried_noise(scan))
        case "spline":
            return SmoothWindow(geometry, start, spline_basis(frequency, config.knots))
        case "fourier_series":
            return SmoothWindow(geometry, start, cosine_basis(frequency, config.knots))
        case "low_rank":
            return SmoothWindow(geometry, start, spline_basis(frequency, config.knots), config.rank)
        case "angle_frequency":
            start = start.expand(geometry.num_angles, -1).clone()
    return TableWindow(geometry, start, learned=config.kind != "fixed")
