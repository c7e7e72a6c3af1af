"""The best window in one pass over the data, from its normal equations.

A filtered backprojection F_c y is linear in the coefficients c of a spline, a series or a table of gains:

    F_c y = F_0 y + sum over k of c[k] A[k]         A[k]: the image that coefficient k adds

so the least mean squared error from the ground truth x is where G c = r, with G = sum of <A[j], A[k]> and
r = sum of <A[k], x - F_0 y> over the samples. Coefficients that the data say next to nothing about stay as they are.

Without ground truth, each scan is split in two halves, whose noise is independent. With F_c y the mean of both halves'
images, and R y an unbiased image of each half,

    |F_c y|^2 - <F_c y_1, R y_2> - <F_c y_2, R y_1>

differs from the squared error by a constant, on average (see `fbp_ray.self_target`). A relative: Pelt and Batenburg
(2014), who fit a filter to the projections of one scan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from fbp_ray.data import Sample
from fbp_ray.errors import ConfigError
from fbp_ray.filters import BandWindow, SmoothWindow, TableWindow
from fbp_ray.model import LearnableFBP
from fbp_ray.projector import backproject
from fbp_ray.self_target import unbiased
from fbp_ray.split import PartOfScan, Split

SOLVABLE = ("spline", "fourier_series", "frequency", "low_rank", "ray_noise", "adaptive")
RIDGE = 1e-9
"""Of the largest entry of G's diagonal: what the data say less about than that stays as it was."""

USUAL = 1 / 3
"""Of the coefficients: a few are always so, as gains for noise that no ray has."""

PIXELS_AT_ONCE = 1 << 15
"""Of all images of a sample, in double precision."""


def solve(
    model: LearnableFBP,
    samples: Iterable[Sample],
    over_processes: Callable[[Tensor], Tensor] = lambda sums: sums,
    split: Split | None = None,
) -> str:
    """Gives the model's window the coefficients of least mean squared error over `samples`.

    Of a low_rank window the coefficients are solved for, and the angles' shares stay; of ray_noise and adaptive the
    gains are, and the bands stay. Each coefficient costs a backprojection a sample, where it has any influence: 24 of
    them for a spline, some hundred for frequency and adaptive.

    Args:
        model: its window is one of SOLVABLE.
        samples: batches of this process's.
        over_processes: adds a tensor up over all processes.
        split: leaves the ground truths alone, and compares each half of a scan with the other.

    Returns:
        A sentence where the equations were ill-conditioned, else nothing.

    Raises:
        ConfigError: the window is not linear in what is learned.
    """
    unknowns = _linear(model)
    count = unknowns.numel()
    sums = torch.zeros(count, count + 1, dtype=torch.float64, device=unknowns.device)
    with torch.no_grad():
        start = unknowns.clone()
        for batch in samples:
            observations = batch.observation.to(unknowns.device)
            for number, observation in enumerate(observations):
                if split is None:
                    first, images = _images(model, observation)
                    right = images @ (batch.ground_truth[number].to(first).flatten() - first)
                else:
                    one = slice(number, number + 1)
                    first, images, right = _by_halves(model, split, observations[one], batch.index[one])  # type: ignore[index]
                sums[:, count] += right
                seen = images.any(1).nonzero()[:, 0]  # of adaptive's gains a half or so are used by a scan
                for some in torch.split(images[seen], PIXELS_AT_ONCE, dim=1):
                    exact = some.double()
                    sums[seen[:, None], seen] += exact @ exact.T
        sums = over_processes(sums).cpu()
        found, warning = _solution(sums[:, :count], sums[:, count])
        unknowns.copy_(start + found.reshape(start.shape).to(start))
    return warning


def _linear(model: LearnableFBP) -> torch.nn.Parameter:
    """The coefficients in which the image is linear."""
    stage = model.filter
    if isinstance(stage, BandWindow):
        return stage.gains
    if isinstance(stage, SmoothWindow):
        return stage.coefficients
    if type(stage) is TableWindow and isinstance(stage.weight, torch.nn.Parameter) and stage.weight.ndim == 1:
        return stage.weight
    raise ConfigError(
        f"least squares solve windows of up to some hundred coefficients ({', '.join(SOLVABLE)}), not "
        f"{model.config.window.kind}"
    )


def _images(model: LearnableFBP, sinogram: Tensor, some: PartOfScan | None = None) -> tuple[Tensor, Tensor]:
    """The image of the window as it is, flat, and what each coefficient adds to it: (pixels,), (K, pixels)."""
    stage = model.filter if some is None else model.stage_for(some)
    rays = model.rebinned(sinogram, some)
    geometry = (model.geometry if some is None else some).parallel
    first = backproject(stage(rays), geometry, interpolate=True).flatten()
    images = []
    for filtered in stage.parts(rays[0]):  # type: ignore[operator]
        made = first.new_zeros((len(filtered), len(first)))
        seen = filtered.flatten(1).any(1)
        made[seen] = backproject(filtered[seen], geometry, interpolate=True).flatten(1)
        images.append(made)
    return first, torch.cat(images)


def _by_halves(model: LearnableFBP, split: Split, sinogram: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `_images`, means over the halves of a scan (1, A, D), and the right side of the equations."""
    parts = split.halves(sinogram, index)
    sides = (parts.seen, parts.seen_scan), (parts.held_out, parts.held_out_scan)
    targets = [unbiased(rays, scan).flatten() for rays, scan in sides]
    firsts, images = zip(*(_images(model, rays[0], scan) for rays, scan in sides), strict=True)
    first, mean = (firsts[0] + firsts[1]) / 2, (images[0] + images[1]) / 2
    right = (images[0] @ targets[1] + images[1] @ targets[0]) / 2 - mean @ first
    return first, mean, right


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
