"""The least-squares optimal window shared by all angles, from the normal equations: what training can reach at best.

    python -m tests.support.optimal_window DATA_DIR

The window is a cubic spline of the frequency with 48 knots. An FBP is linear in the window, so the best one for the
mean squared error over the training part solves 48 equations; its PSNR on the test part is the yardstick for a
`frequency` window that was trained on the mean squared error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scipy.interpolate import BSpline
from torch import Tensor, nn

from fbp_ray.data import LoDoPaB, geometry_of
from fbp_ray.filters import WindowConfig, build_filter, frequencies
from fbp_ray.geometry import ParallelBeam
from fbp_ray.metrics import psnr, ssim
from fbp_ray.projector import backproject

KNOTS = 48


def spline_windows(cells: int) -> Tensor:
    """The basis: (KNOTS, F) cubic B-splines over the frequencies."""
    inner = np.linspace(0, 1, KNOTS - 2)
    knots = np.concatenate([[0, 0, 0], inner, [1, 1, 1]])
    return torch.tensor(BSpline(knots, np.eye(KNOTS), 3)(frequencies(cells)).T, dtype=torch.float32)


def with_window(window: Tensor, geometry: ParallelBeam) -> nn.Module:
    """A filter stage with a window given as (F,)."""
    stage = build_filter(WindowConfig(kind="frequency"), geometry).requires_grad_(False)
    stage.weight.copy_(window)  # type: ignore[operator]
    return stage


def optimal_window(data: LoDoPaB) -> Tensor:
    """(F,): the spline whose FBP has the least mean squared error over `data`."""
    basis = spline_windows(data.geometry.cells)
    stages = [with_window(window, data.geometry) for window in basis]
    gram, right = np.zeros((KNOTS, KNOTS)), np.zeros(KNOTS)
    for observation, truth in pairs(data):
        filtered = torch.cat([stage(observation[None]) for stage in stages])
        images = backproject(filtered, data.geometry, interpolate=True).double().flatten(1)
        gram += (images @ images.T).numpy()
        right += (images @ truth.double().flatten()).numpy()
    return torch.tensor(np.linalg.solve(gram, right), dtype=torch.float32) @ basis


def score(window: Tensor, data: LoDoPaB) -> tuple[float, float]:
    """The mean PSNR in dB and the mean SSIM of the FBP with `window`."""
    stage = with_window(window, data.geometry)
    figures = []
    for observation, truth in pairs(data):
        image = backproject(stage(observation[None]), data.geometry, interpolate=True)[0]
        figures.append((psnr(image, truth).item(), ssim(image, truth).item()))
    mean = np.mean(figures, axis=0)
    return float(mean[0]), float(mean[1])


def pairs(data: LoDoPaB) -> Iterator[tuple[Tensor, Tensor]]:
    """Observation and ground truth of each sample."""
    for k in range(len(data)):
        yield data[k].observation, data[k].ground_truth


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    geometry = geometry_of(folder)
    best = optimal_window(LoDoPaB(folder, "train", geometry))
    for part in ("train", "validation", "test"):
        print("{}: PSNR {:.3f} dB, SSIM {:.4f}".format(part, *score(best, LoDoPaB(folder, part, geometry))))
