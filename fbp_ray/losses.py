"""The training loss: a weighted sum of named terms.

    l1          mean |prediction - target|
    ms_ssim     1 - MS-SSIM of both images clamped to [0, 1]              (Wang, Simoncelli, Bovik 2003; as piq)
    edge        mean |Gx p - Gx t| + mean |Gy p - Gy t|, G the 3 x 3 Sobel operator, where all neighbours are
    mse         mean (prediction - target)^2
    log_mse     mean over the images of log10(mean squared error / range^2) = -PSNR / 10, range that of the target
    local_ssim  1 - SSIM as `fbp_ray.metrics` has it

The last two are what is reported: a noisy image weighs no more than a clean one. An image whose target has one value
throughout has neither, and counts as 0. Images are (B, H, W) with values about [0, 1]. Every term is a mean over the
batch, so batches of different sizes combine by their sizes. A term is a function in `_TERMS` or `_REPORTED` and a field
of `fbp_ray.config.LossConfig`; terms of somebody's own come from `fbp_ray.own`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from fbp_ray.config import LossConfig
from fbp_ray.errors import ConfigError
from fbp_ray.geometry import check_tensor
from fbp_ray.metrics import has_range, psnr, ssim
from fbp_ray.own import Figure, own_term
from fbp_ray.own_names import own_title
from fbp_ray.structure import Window, half_size, similarity

SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # the exponents of the paper
SMALLEST_FOR_MS_SSIM = 161  # five scales of an 11 x 11 window
_GAUSSIAN_11 = [math.exp(-((k - 5) ** 2) / (2 * 1.5**2)) for k in range(11)]
_GAUSSIAN = tuple(value / sum(_GAUSSIAN_11) for value in _GAUSSIAN_11)


class Loss(NamedTuple):
    """The weighted sum, which has a gradient, and the unweighted terms that it is made of, which have none."""

    total: Tensor
    parts: dict[str, Tensor]


def composite_loss(
    prediction: Tensor, target: Tensor, config: LossConfig, known: Mapping[str, Tensor] = MappingProxyType({})
) -> Loss:
    """The weighted sum of the terms whose weight is not 0.

    Args:
        prediction: (B, H, W).
        target: (B, H, W), values in [0, 1].
        config: the weights.
        known: psnr and ssim of each image, (B,), where they have been worked out already.

    Raises:
        ConfigError: the images are too small for MS-SSIM and its weight is not 0; or a term of somebody's own cannot be
            used.
    """
    for image in (prediction, target):
        check_tensor(image, "an image")
    if prediction.dtype != torch.float64:  # half precision is too coarse for differences
        prediction, target = prediction.float(), target.float()
    with torch.autocast(prediction.device.type, enabled=False):
        terms = [(title, weight, term(prediction, target)) for title, weight, term in _terms(config, known)]
        total = torch.stack([weight * part for _, weight, part in terms]).sum()
    return Loss(total, {title: part.detach() for title, _, part in terms})


def _terms(config: LossConfig, known: Mapping[str, Tensor]) -> Iterator[tuple[str, float, Figure]]:
    """The terms whose weight is not 0, with what they are called and their weights."""
    for name, weight in config.weights.items():
        if weight > 0:
            if name in config.own:
                yield own_title(name), weight, own_term(name, config.options)
            else:
                yield name, weight, partial(_REPORTED[name], known) if name in _REPORTED else _TERMS[name]


def _l1(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).abs().mean()


def _mse(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square().mean()


def _ms_ssim(prediction: Tensor, target: Tensor) -> Tensor:
    if min(prediction.shape[-2:]) < SMALLEST_FOR_MS_SSIM:
        raise ConfigError(
            f"MS-SSIM needs images of at least {SMALLEST_FOR_MS_SSIM} pixels a side, but these are "
            f"{tuple(prediction.shape[-2:])}; set its weight to 0 (--loss.ms_ssim 0)"
        )
    c1, c2 = (torch.full((len(target),), k**2, dtype=torch.float64, device=target.device) for k in (0.01, 0.03))
    prediction, target = prediction.clamp(0, 1), target.clamp(0, 1)
    product = torch.ones_like(c1)
    for scale, exponent in enumerate(SCALES):
        if scale > 0:
            prediction, target = half_size(prediction), half_size(target)
        window = Window(_GAUSSIAN, luminous=scale == len(SCALES) - 1)
        product = product * similarity(prediction, target, c1, c2, window).relu() ** (exponent / sum(SCALES))
    return (1 - product.mean()).to(prediction.dtype)


def _edge(prediction: Tensor, target: Tensor) -> Tensor:
    difference = prediction - target  # the Sobel operator is linear: once on the difference, not on both images
    smooth_y = difference[:, :, :-2] + 2 * difference[:, :, 1:-1] + difference[:, :, 2:]
    smooth_x = difference[:, :-2] + 2 * difference[:, 1:-1] + difference[:, 2:]
    along_x = smooth_y[:, 2:] - smooth_y[:, :-2]
    along_y = smooth_x[:, :, 2:] - smooth_x[:, :, :-2]
    return along_x.abs().mean() + along_y.abs().mean()


def _log_mse(known: Mapping[str, Tensor], prediction: Tensor, target: Tensor) -> Tensor:
    return _over_ranged(psnr, known.get("psnr"), lambda figures: -figures / 10, prediction, target)


def _local_ssim(known: Mapping[str, Tensor], prediction: Tensor, target: Tensor) -> Tensor:
    return _over_ranged(ssim, known.get("ssim"), lambda figures: 1 - figures, prediction, target)


def _over_ranged(
    figure: Figure, known: Tensor | None, loss: Callable[[Tensor], Tensor], prediction: Tensor, target: Tensor
) -> Tensor:
    """The mean over the batch; the others are taken out first, since their gradient would be no number."""
    ranged = has_range(target)
    if not target.is_cpu:
        return _over_masked(figure, known, loss, prediction, target, ranged)
    if not ranged.any():
        return 0 * prediction.sum()
    figures = figure(prediction[ranged], target[ranged]) if known is None else known[ranged]
    return (loss(figures).sum() / len(target)).to(target.dtype)


def _over_masked(
    figure: Figure,
    known: Tensor | None,
    loss: Callable[[Tensor], Tensor],
    prediction: Tensor,
    target: Tensor,
    ranged: Tensor,
) -> Tensor:
    """The same without a look at `ranged`, which would wait for a GPU: a stand-in takes the place of the others."""
    if known is None:
        shape = target.shape[1:]
        slope = torch.linspace(0, 1, shape.numel(), dtype=target.dtype, device=target.device).reshape(shape)
        kept = ranged[:, None, None]
        known = figure(torch.where(kept, prediction, slope / 2), torch.where(kept, target, slope))
    return (torch.where(ranged, loss(known), 0).sum() / len(target)).to(target.dtype)


_TERMS: dict[str, Figure] = {"l1": _l1, "ms_ssim": _ms_ssim, "edge": _edge, "mse": _mse}
_REPORTED = {"log_mse": _log_mse, "local_ssim": _local_ssim}
