"""The geometry of a scan: where its cells, its axis and its image lie, in metres and radians."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fbp_ray.errors import ConfigError
from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.geometry.parallel import LEAST_SEEN_TWICE
from fbp_ray.scan import ScanConfig

UNKNOWN_PIXEL = 1e-6


def off_middle(cells: int, column: float, config: ScanConfig) -> float:
    """How far the axis lies off the middle of the binned detector, in its cells."""
    return (column - (config.bin - 1) / 2) / config.bin - (cells - 1) / 2


def open_sides(theta: NDArray[np.float64], off: float) -> tuple[bool, bool]:
    """Whether cells may be added before and after those of the detector.

    In half acquisition the opposite looks see what lies beyond the side near the axis: nothing is made up there.
    """
    half_acquisition = _full_circle(theta) and abs(off) >= 0.5
    return not (half_acquisition and off < 0), not (half_acquisition and off > 0)


def _full_circle(theta: NDArray[np.float64]) -> bool:
    step = float(np.median(np.abs(np.diff(np.sort(theta))))) if len(theta) > 1 else 0.0
    return float(np.ptp(theta)) + step > 1.94 * math.pi


def geometry_of_scan(
    theta: NDArray[np.float64],
    cells: int,
    column: float,
    pad: tuple[int, int],
    stored: float | None,
    config: ScanConfig,
) -> tuple[ParallelBeam, list[str]]:
    """The geometry, and what is to be said about it.

    Args:
        theta: (A,), radians.
        cells: of the binned detector, without those added.
        column: of the detector before binning, on which the axis falls.
        pad: cells added before and after them.
        stored: the pixel size of the file, metres.
        config: the settings.
    """
    notes = []
    pixel = config.pixel_size or stored
    if pixel is None:
        pixel = UNKNOWN_PIXEL
        notes.append("The file does not say how large a pixel is; 1 micrometre is taken: --pixel_size METRES")
    cell = pixel * config.bin
    off = off_middle(cells, column, config)
    near, far = cells / 2 - abs(off), cells / 2 + abs(off)
    # Over the half circle what lies farther out than the near side is not seen from everywhere; over the full circle it
    # is, if the looks from both sides can be joined.
    joined = far if near >= LEAST_SEEN_TWICE else min(far, math.sqrt(2) * near)
    seen = joined if _full_circle(theta) else near
    size = config.image or max(1, math.floor(2 * seen))
    if config.image and config.image > 2 * far + 1:
        raise ConfigError(f"--image {config.image} is more than the {math.ceil(2 * far)} pixels that the detector sees")
    return (
        ParallelBeam(
            angles=_regular(theta),
            cells=cells + sum(pad),
            cell_size=cell,
            image_shape=(size, size),
            pixel_size=cell,
            axis_offset=(off + (pad[0] - pad[1]) / 2) * cell,
        ),
        notes,
    )


def _regular(theta: NDArray[np.float64]) -> RegularAngles | tuple[float, ...]:
    """Angles as `RegularAngles` where they are that to rounding."""
    if len(theta) > 1:
        step = float(theta[-1] - theta[0]) / (len(theta) - 1)
        even = theta[0] + step * np.arange(len(theta))
        if step > 0 and np.abs(even - theta).max() < 1e-6 * step:
            return RegularAngles(count=len(theta), first=float(theta[0]), step=step)
    return tuple(theta.tolist())
