"""The filter stage of a filtered backprojection: the ramp times a window, which may be learned.

An analytic window tames the ramp. With f in units of the Nyquist frequency and the cut-off c it is 0 beyond f = c, and
up to there

    none         1
    shepp-logan  sin(pi f / 2c) / (pi f / 2c)
    cosine       cos(pi f / 2c)
    hamming      0.54 + 0.46 cos(pi f / c)
    hann         cos^2(pi f / 2c)

(Kak and Slaney 1988, section 3.3; Shepp and Logan 1974). A learned window starts as one of these. A new kind of window
is a stage in this module, a branch in `build_filter` and a name in `fbp_ray.stage_settings.WindowKind`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeGuard, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fbp_ray.errors import ConfigError
from fbp_ray.filters.filtering import filter_projections
from fbp_ray.filters.ramp import ramp
from fbp_ray.geometry import ParallelBeam
from fbp_ray.stage_settings import WindowName

Array = NDArray[np.float64]
ANGLE_KNOTS = 9  # of a window that changes smoothly along the angle
PARTS_AT_ONCE = 16  # of a filtered sinogram

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


def spline_basis(frequency: Array, knots: int) -> Array:
    """Cubic B-splines on knots that are evenly spaced in the frequency's square root, hence finer at low frequencies.

    Args:
        frequency: (F,), as fractions of the Nyquist frequency, 0 to 1.
        knots: K, at least 4.

    Returns:
        (F, K); the splines add up to 1 everywhere.
    """
    distance = np.abs(np.sqrt(frequency)[:, None] * (knots - 3) + 1 - np.arange(knots))
    near = 2 / 3 - distance**2 + distance**3 / 2
    return np.where(distance < 1, near, np.maximum(2 - distance, 0) ** 3 / 6)


def cosine_basis(frequency: Array, terms: int) -> Array:
    """cos(pi k f), k = 0 .. terms - 1: a Fourier series of a window that is even, as any is. (F, terms)."""
    return np.cos(np.pi * frequency[:, None] * np.arange(terms))


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

    def window(self) -> Tensor:
        """(F,) or (A, F): the window as it is now."""
        return self.weight

    def forward(self, sinogram: Tensor) -> Tensor:
        """(B, A, D) -> (B, A, D), so that `backproject`, interpolating, makes of it the image in absolute units."""
        return filter_projections(self._weighed(sinogram), self.response * self.window())

    def parts(self, sinogram: Tensor) -> Iterator[Tensor]:
        """What each coefficient of the window adds to the filtered sinogram: (A, D) -> (K, A, D), some at a time."""
        for windows in torch.split(self.functions(), PARTS_AT_ONCE):
            yield torch.cat([filter_projections(self._weighed(sinogram[None]), self.response * one) for one in windows])

    def functions(self) -> Tensor:
        """(K, F) or (K, A, F): what each coefficient of the window adds to it."""
        return torch.eye(self.weight.shape[-1], dtype=self.weight.dtype, device=self.weight.device)

    def _weighed(self, sinogram: Tensor) -> Tensor:
        return sinogram if self.cell_weights is None else sinogram * self.cell_weights.to(sinogram.dtype)


def is_plain(stage: nn.Module) -> TypeGuard[TableWindow]:
    """Whether a stage multiplies every sinogram by the same `response` x `window()`."""
    return isinstance(stage, TableWindow) and type(stage).forward is TableWindow.forward


class SmoothWindow(TableWindow):
    """ramp x window, where the window is an analytic one plus smooth functions with learned coefficients.

    Args:
        geometry: the scan.
        start: (F,), the analytic window; its dtype is the coefficients'.
        basis: (F, K), the functions of the frequency.
        rank: for a window that differs from angle to angle, how many windows are mixed; 0 for one that is shared.
    """

    basis: Tensor
    angle_basis: Tensor

    def __init__(self, geometry: ParallelBeam, start: Tensor, basis: Array, rank: int = 0) -> None:
        super().__init__(geometry, start, learned=False)
        self.register_buffer("basis", torch.tensor(basis, dtype=start.dtype, device="cpu"), persistent=False)
        self.coefficients = nn.Parameter(start.new_zeros((rank or 1, basis.shape[1])))
        self.shares = None
        if rank:
            place = geometry.angle_places * (ANGLE_KNOTS - 1)
            hats = np.maximum(1 - np.abs(place[:, None] - np.arange(ANGLE_KNOTS)), 0)
            self.register_buffer("angle_basis", torch.tensor(hats, dtype=start.dtype, device="cpu"), persistent=False)
            waves = np.cos(np.pi * np.outer(np.arange(rank), np.arange(ANGLE_KNOTS)) / (ANGLE_KNOTS - 1))
            self.shares = nn.Parameter(torch.tensor(waves, dtype=start.dtype, device="cpu"))

    def functions(self) -> Tensor:
        """(K, F), or for a low_rank window (rank K, A, F): what each coefficient adds to the window."""
        if self.shares is None:
            return self.basis.T
        return (self._shares().T[:, None, :, None] * self.basis.T[:, None]).flatten(0, 1)

    def window(self) -> Tensor:
        """(F,), or (A, F) for one that differs from angle to angle: the window as it is now."""
        parts = (self.coefficients[:, None] * self.basis).sum(-1)
        if self.shares is None:
            return self.weight + parts[0]
        return self.weight + (self._shares()[..., None] * parts).sum(1)

    def _shares(self) -> Tensor:
        """(A, rank)."""
        assert self.shares is not None
        return (self.angle_basis[:, None] * self.shares).sum(-1)
