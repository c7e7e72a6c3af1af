"""The analytic windows that tame the ramp, each with a cut-off.

With f in units of the Nyquist frequency and the cut-off c, every window is 0 beyond f = c and up to there

    none         1
    shepp-logan  sin(pi f / 2c) / (pi f / 2c)
    cosine       cos(pi f / 2c)
    hamming      0.54 + 0.46 cos(pi f / c)
    hann         cos^2(pi f / 2c)

(Kak and Slaney 1988, section 3.3; Shepp and Logan 1974).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fbp_ray.errors import ConfigError

Array = NDArray[np.float64]
WindowName = Literal["none", "shepp-logan", "cosine", "hamming", "hann"]

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
