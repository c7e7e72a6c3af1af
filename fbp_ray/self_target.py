"""Comparing a reconstruction with a part of the same scan that it has not seen: learning without ground truth.

The noise of different projections, or of different photons, is independent. So, with an image P made from one part of
a scan and an unbiased image R of the other, |P - R|^2 is on average the squared error of P plus the noise of R, on
which P has no influence. R is the FBP with the bare ramp, divided by sinc^2, which undoes the linear interpolation of
the backprojection.

Relatives: Hendriksen et al., Noise2Inverse (2020); Lagerwerf et al., Noise2Filter, arXiv 2007.01636.

Dimensions: B batch, A angles, D detector cells, H and W the image's axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from fbp_ray.caches import cached
from fbp_ray.filters import TableWindow, filter_projections, frequencies
from fbp_ray.geometry import Geometry, ParallelBeam
from fbp_ray.projector import backproject
from fbp_ray.rebinning import rebin
from fbp_ray.split import PartOfScan, Parts, Split

Reconstruct = Callable[[Tensor, PartOfScan], Tensor]
"""A sinogram (B, A', D) of a part of the scan -> images (B, H, W)."""


def unbiased(sinogram: Tensor, geometry: Geometry) -> Tensor:
    """The FBP with the bare ramp, the interpolation undone: (B, A, D) -> (B, H, W)."""
    sinogram, parallel = rebin(sinogram, geometry), geometry.parallel
    cells, response = _unbiased_filter(parallel, sinogram.device, sinogram.dtype)
    weighed = sinogram if cells is None else sinogram * cells
    return backproject(filter_projections(weighed, response), parallel, interpolate=True)


@cached(32)
def _unbiased_filter(geometry: ParallelBeam, device: torch.device, dtype: torch.dtype) -> tuple[Tensor | None, Tensor]:
    undone = torch.from_numpy(1 / np.sinc(frequencies(geometry.cells) / 2) ** 2)
    stage = TableWindow(geometry, undone, learned=False).to(device, dtype)
    return stage.cell_weights, stage.response * stage.weight


def self_loss(prediction: Tensor, parts: Parts) -> Tensor:
    """The mean over the images of log10 |P - R|^2, by which a noisy image weighs no more than a clean one.

    Args:
        prediction: (B, H, W), P, reconstructed from `parts.seen`.
        parts: of the scans; R is made from what is held out.
    """
    with torch.no_grad():
        target = unbiased(parts.held_out, parts.held_out_scan)
    error = (prediction - target).square().mean((-2, -1))
    return torch.log10(error.clamp(min=torch.finfo(error.dtype).tiny)).mean()


def self_risk(reconstruct: Reconstruct, sinogram: Tensor, index: Sequence[int] | Tensor, split: Split) -> Tensor:
    """As `self_risks`, of one reconstruction: (B,), float64."""
    return self_risks([reconstruct], sinogram, index, split)[0]


def self_risks(
    reconstructs: Sequence[Reconstruct], sinogram: Tensor, index: Sequence[int] | Tensor, split: Split
) -> Tensor:
    """An estimate of each image's mean squared error when it is made from seven eighths of the scan.

    |P|^2 - 2 <P, R> + <R, S>, where S is the unbiased image of what P is made from: <R, S> stands for the square of the
    truth. It lacks what of the truth no angle shows, so it compares reconstructions and is too low for each, with
    little noise even below 0. The same sample is always split alike.

    Args:
        reconstructs: what is judged, M of them.
        sinogram: (B, A, D).
        index: the samples' numbers.
        split: how scans are split.

    Returns:
        (M, B), float64.
    """
    risks = torch.empty(len(reconstructs), len(sinogram), dtype=torch.float64, device=sinogram.device)
    for chosen, parts in split.fixed(sinogram, index):
        like = unbiased(parts.seen, parts.seen_scan).double()
        other = unbiased(parts.held_out, parts.held_out_scan).double()
        for number, reconstruct in enumerate(reconstructs):
            image = reconstruct(parts.seen, parts.seen_scan).double()
            risks[number, chosen] = (image.square() - 2 * image * other + like * other).mean((-2, -1))
    return risks


def linear_risk(reconstruct: Reconstruct, sinogram: Tensor, index: Sequence[int] | Tensor, split: Split) -> Tensor:
    """An estimate of each image's mean squared error for a reconstruction that is linear in the sinogram.

    With F y the mean of the images of either half, which is the image of the whole,
    |F y|^2 - <F y_1, R y_2> - <F y_2, R y_1> + <R y_1, R y_2>: (B, A, D) -> (B,), float64.
    """
    parts = split.halves(sinogram, index)
    sides = (parts.seen, parts.seen_scan), (parts.held_out, parts.held_out_scan)
    one, two = (reconstruct(rays, scan).double() for rays, scan in sides)
    like_one, like_two = (unbiased(rays, scan).double() for rays, scan in sides)
    return (((one + two) / 2).square() - one * like_two - two * like_one + like_one * like_two).mean((-2, -1))
