"""The best window in one pass over the data, from its normal equations.

A filtered backprojection F_c y is linear in the coefficients c of a spline, a series or a table of gains:

    F_c y = F_0 y + sum over k of c[k] A[k]         A[k]: the image that coefficient k adds

so the least mean squared error from the ground truth x is where G c = r, with G = sum of <A[j], A[k]> and
r = sum of <A[k], x - F_0 y> over the samples. Coefficients that the data say next to nothing about stay as they are.

Without ground truth, the angles are split into even and odd ones, whose noise is independent. With F_c y the mean of
both halves' images, and R y an unbiased image of each half,

    |F_c y|^2 - <F_c y_even, R y_odd> - <F_c y_odd, R y_even>

differs from the squared error by a constant, on average (see `fbp_ray.self_target`). A relative: Pelt and Batenburg
(2014), who fit a filter to the projections of one scan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from fbp_ray.errors import ConfigError
from fbp_ray.filters import BandWindow, SmoothWindow
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.projector import backproject
from fbp_ray.self_target import unbiased
from fbp_ray.some_angles import SomeAngles, splits

SOLVABLE = ("spline", "fourier_series", "ray_noise")
RIDGE = 1e-9
"""Of the largest entry of G's diagonal: what the data say less about than that stays as it was."""

USUAL = 1 / 3
"""Of the coefficients: a few are always so, as gains for noise that no ray has."""

Pairs = Iterable[tuple[Tensor, Tensor]]
"""Batches of sinograms (B, A, D) and ground truths (B, H, W)."""


def solve(
    model: LearnableFBP,
    pairs: Pairs,
    over_processes: Callable[[Tensor], Tensor] = lambda sums: sums,
    ground_truth: bool = True,
) -> str:
    """Gives the model's window the coefficients of least mean squared error over `pairs`.

    Args:
        model: its window is linear in what is learned: a spline, a fourier_series, or the gains of ray_noise, whose
            bands stay. (Those of adaptive are linear too, but some hundred: each costs a backprojection a sample.)
        pairs: this process's samples.
        over_processes: adds a tensor up over all processes.
        ground_truth: False leaves the ground truths alone, and takes the other half of the angles instead.

    Returns:
        A sentence where the equations were ill-conditioned, else nothing.

    Raises:
        ConfigError: the window is not linear in what is learned, or the scan cannot be split.
    """
    unknowns = _linear(model)
    halves = [] if ground_truth else [_at(model, split.seen) for split in splits(model.geometry, 2)]
    count = unknowns.numel()
    sums = torch.zeros(count, count + 1, dtype=torch.float64)
    with torch.no_grad():
        start = unknowns.clone()
        for observations, truths in pairs:
            for number, observation in enumerate(observations):
                if ground_truth:
                    first, images = _images(model, observation)
                    right = images @ (truths[number].flatten() - first)
                else:
                    first, images, right = _by_halves(model, halves, observation)
                exact = images.double()
                sums[:, :count] += (exact @ exact.T).cpu()
                sums[:, count] += right.double().cpu()
        sums = over_processes(sums)
        found, warning = _solution(sums[:, :count], sums[:, count])
        unknowns.copy_(start + found.reshape(start.shape).to(start))
    return warning


def _linear(model: LearnableFBP) -> torch.nn.Parameter:
    """The coefficients in which the image is linear."""
    stage = model.filter
    if isinstance(stage, BandWindow) and stage.config.kind == "ray_noise":
        return stage.gains
    if isinstance(stage, SmoothWindow) and stage.shares is None:
        return stage.coefficients
    raise ConfigError(
        f"least squares solve windows that are linear in what is learned ({', '.join(SOLVABLE)}), not "
        f"{model.config.window.kind}"
    )


def _images(model: LearnableFBP, sinogram: Tensor) -> tuple[Tensor, Tensor]:
    """The image of the window as it is, flat, and what each coefficient adds to it: (pixels,), (K, pixels)."""
    stage, sinogram = model.filter, model.rebinned(sinogram)[0]
    filtered = torch.cat([stage(sinogram[None]), stage.parts(sinogram)])  # type: ignore[operator]
    images = [backproject(some, model.geometry.parallel, interpolate=True) for some in torch.split(filtered, 64)]
    first, *others = torch.cat(images).flatten(1)
    return first, torch.stack(others)


def _by_halves(model: LearnableFBP, halves: list[LearnableFBP], sinogram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `_images`, means over the halves of the angles, and the right side of the equations."""
    scans: list[SomeAngles] = [half.geometry for half in halves]  # type: ignore[misc]
    parts = [scan.take(sinogram) for scan in scans]
    targets = [unbiased(part[None], scan).flatten() for part, scan in zip(parts, scans, strict=True)]
    firsts, images = zip(*(_images(half, part) for part, half in zip(parts, halves, strict=True)), strict=True)
    first, mean = (firsts[0] + firsts[1]) / 2, (images[0] + images[1]) / 2
    right = (images[0] @ targets[1] + images[1] @ targets[0]) / 2 - mean @ first
    return first, mean, right


def _at(model: LearnableFBP, some: SomeAngles) -> LearnableFBP:
    """The model for some of the angles, with the same coefficients: none of those that can be solved is by angle."""
    config = ModelConfig(geometry=some, window=model.config.window)
    other = LearnableFBP(config).to(next(model.parameters()).device).requires_grad_(False)
    other.filter.load_state_dict(model.filter.state_dict())
    return other


def _solution(gram: Tensor, right: Tensor) -> tuple[Tensor, str]:
    scale = gram.diagonal().max()
    found = torch.linalg.solve(gram + RIDGE * scale * torch.eye(len(gram), dtype=gram.dtype), right)
    unsaid = int((torch.linalg.eigvalsh(gram) < RIDGE * scale).sum())
    if unsaid <= USUAL * len(gram):
        return found, ""
    return found, (
        f"the equations are ill-conditioned: the data say next to nothing about {unsaid} of {len(gram)} combinations "
        "of the window's coefficients, which stay near their start; fewer --window.knots or more training samples help"
    )
