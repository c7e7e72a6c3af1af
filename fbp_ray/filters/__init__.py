"""The filter stage of a filtered backprojection: sinogram in, filtered sinogram out.

A stage is any `torch.nn.Module` that maps (B, A, D) to (B, A, D) such that `backproject` of the result, with
`interpolate=True`, is the image in absolute units: it holds the ramp, the window, and the weight of each angle. Nothing
downstream asks how it got there, so a stage may blend several filtered copies by the noise of each ray, or smooth along
the angle. `build_filter` makes the stage that a `WindowConfig` names.
"""

from fbp_ray.filters.filtering import fft_length, filter_projections, frequencies, ramp
from fbp_ray.filters.windows import TableWindow, WindowConfig, WindowKind, WindowName, analytic_window, build_filter

__all__ = [
    "TableWindow",
    "WindowConfig",
    "WindowKind",
    "WindowName",
    "analytic_window",
    "build_filter",
    "fft_length",
    "filter_projections",
    "frequencies",
    "ramp",
]
