"""Comparing a reconstruction with angles of the same scan that it has not seen: learning without ground truth.

The noise of different projections is independent. So, with an image P made from some of the angles and an unbiased
image R of the others, |P - R|^2 is on average the squared error of P plus the noise of R, on which P has no influence.
R is the FBP with the bare ramp, divided by sinc^2, which undoes the linear interpolation of the backprojection.

Relatives: Hendriksen et al., Noise2Inverse (2020); Lagerwerf et al., Noise2Filter, arXiv 2007.01636.

Dimensions: B batch, A angles, D detector cells, H and W the image's axes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fbp_ray.filters import TableWindow, filter_projections, frequencies
from fbp_ray.geometry import Geometry, ParallelBeam
from fbp_ray.projector import backproject
from fbp_ray.rebinning import rebin
from fbp_ray.some_angles import FOLDS, SomeAngles, Split, splits

Reconstruct = Callable[[Tensor, SomeAngles], Tensor]
"""A sinogram (B, A', D) of some of the angles -> images (B, H, W)."""


def unbiased(sinogram: Tensor, geometry: ParallelBeam) -> Tensor:
    """The FBP with the bare ramp, the interpolation undone: (B, A, D) -> (B, H, W)."""
    sinogram, parallel = rebin(sinogram, geometry), geometry.parallel
    cells, response = _unbiased_filter(parallel, sinogram.device, sinogram.dtype)
    weighed = sinogram if cells is None else sinogram * cells
    return backproject(filter_projections(weighed, response), parallel, interpolate=True)


@functools.lru_cache(maxsize=32)
def _unbiased_filter(geometry: ParallelBeam, device: torch.device, dtype: torch.dtype) -> tuple[Tensor | None, Tensor]:
    undone = torch.from_numpy(1 / np.sinc(frequencies(geometry.cells) / 2) ** 2)
    stage = TableWindow(geometry, undone, learned=False).to(device, dtype)
    return stage.cell_weights, stage.response * stage.weight


def self_loss(prediction: Tensor, sinogram: Tensor, split: Split) -> Tensor:
    """The mean over the images of log10 |P - R|^2, by which a noisy image weighs no more than a clean one.

    Args:
        prediction: (B, H, W), P, reconstructed from `split.seen`.
        sinogram: (B, A, D), the whole scan.
        split: what was held out of it.
    """
    with torch.no_grad():
        target = unbiased(split.held_out.take(sinogram), split.held_out)
    error = (prediction - target).square().mean((-2, -1))
    return torch.log10(error.clamp(min=torch.finfo(error.dtype).tiny)).mean()


def self_risk(reconstruct: Reconstruct, sinogram: Tensor, index: Tensor, geometry: Geometry) -> Tensor:
    """An estimate of each image's mean squared error when it is made from all angles but one fold.

    |P|^2 - 2 <P, R> + <R, S>, where S is the unbiased image of the angles that P is made from: <R, S> stands for the
    square of the truth. It lacks what of the truth no angle shows, so it compares reconstructions and is too low for
    each, with little noise even below 0. Nothing is random: a sample's number says which fold is held out.

    Args:
        reconstruct: what is judged.
        sinogram: (B, A, D).
        index: (B,), the samples' numbers.
        geometry: the scan.

    Returns:
        (B,), float64.
    """
    risks = torch.empty(len(sinogram), dtype=torch.float64, device=sinogram.device)
    folds = (index % FOLDS).to(sinogram.device)
    for fold in sorted(set(folds.tolist())):
        chosen, (seen, held_out) = folds == fold, splits(geometry)[fold]
        rays = seen.take(sinogram[chosen])
        image, like = reconstruct(rays, seen).double(), unbiased(rays, seen).double()
        other = unbiased(held_out.take(sinogram[chosen]), held_out).double()
        risks[chosen] = (image.square() - 2 * image * other + like * other).mean((-2, -1))
    return risks


def linear_risk(reconstruct: Reconstruct, sinogram: Tensor, geometry: Geometry) -> Tensor:
    """An estimate of each image's mean squared error for a reconstruction that is linear in the sinogram.

    With F y the mean of the images of either half of the angles, which is the image of all,
    |F y|^2 - <F y_even, R y_odd> - <F y_odd, R y_even> + <R y_even, R y_odd>: (B, A, D) -> (B,), float64.
    """
    halves = [split.seen for split in splits(geometry, 2)]
    parts = [half.take(sinogram) for half in halves]
    one, two = (reconstruct(part, half).double() for part, half in zip(parts, halves, strict=True))
    like_one, like_two = (unbiased(part, half).double() for part, half in zip(parts, halves, strict=True))
    return (((one + two) / 2).square() - one * like_two - two * like_one + like_one * like_two).mean((-2, -1))
