"""PSNR and SSIM as LoDoPaB-CT defines them, on tensors, an image at a time.

The data range of an image is `max - min` of its ground truth; the fixed-range forms take 1.0 and come out about 4 dB
higher: never mix the two. Nothing is clipped. Computed in float64; equal to scikit-image to 1e-6.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fbp_ray.errors import GeometryError
from fbp_ray.geometry import check_tensor
from fbp_ray.threads import parallel_for_torch

FIXED_RANGE = 1.0
WINDOW = 7


def psnr(prediction: Tensor, target: Tensor, data_range: float | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB: `10 log10(range^2 / mean squared error)`.

    Args:
        prediction: (..., H, W).
        target: (..., H, W), the ground truth.
        data_range: one range for all images, or None for each ground truth's own.

    Returns:
        (...), float64. Infinite where the two are equal; -infinite or nan for a ground truth of one value, which has no
        range of its own: leave those out of a mean (`has_range`).
    """
    prediction, target = _pair(prediction, target)
    error = (prediction - target).square().mean((-2, -1))
    return 10 * torch.log10(_range(target, data_range).square() / error)


def ssim(prediction: Tensor, target: Tensor, data_range: float | None = None) -> Tensor:
    """Structural similarity (Wang et al. 2004) with the defaults of scikit-image's `structural_similarity`.

    A uniform 7 x 7 window, K1 = 0.01, K2 = 0.03, sample covariance (n - 1), the mean over the pixels whose window lies
    inside the image.

    Args:
        prediction: (..., H, W), H and W at least 7.
        target: (..., H, W), the ground truth.
        data_range: one range for all images, or None for each ground truth's own.

    Returns:
        (...), float64, at most 1; without meaning for a ground truth of one value, see `has_range`.
    """
    prediction, target = _pair(prediction, target)
    if min(target.shape[-2:]) < WINDOW:
        raise GeometryError(f"SSIM needs images of at least 7 pixels a side; these are {tuple(target.shape[-2:])}")
    ranges = _range(target, data_range)
    found = torch.empty_like(ranges)
    places = list(np.ndindex(ranges.shape))

    def measure(number: int) -> None:
        one = places[number]
        # Row by row, or the sum's rounding would differ with the number of threads.
        found[one] = _ssim(prediction[one], target[one], ranges[one]).mean(-1).mean()

    # One by one: an image and its sums stay in the cache, and no figure depends on what else is in the batch.
    learning = torch.is_grad_enabled() and (prediction.requires_grad or target.requires_grad)
    if found.device.type == "cpu" and not learning:
        parallel_for_torch(measure, len(places))
        return found
    for one in places:
        found[one] = _ssim(prediction[one], target[one], ranges[one]).mean()
    return found


def _ssim(prediction: Tensor, target: Tensor, data_range: Tensor) -> Tensor:
    """The SSIM of each window, from sums over it: a mean is a sum divided by n, and the n go into the constants."""
    n = WINDOW**2
    c1, c2 = (0.01 * data_range * n) ** 2, (0.03 * data_range) ** 2 * n * (n - 1)
    sum_p, sum_t = _window_sums(prediction), _window_sums(target)
    squares = _window_sums(prediction * prediction + target * target)  # only the sum of the two variances is needed
    product, square = sum_p * sum_t, sum_p * sum_p + sum_t * sum_t
    likeness = (2 * product + c1) * (2 * (n * _window_sums(prediction * target) - product) + c2)
    bound = (square + c1) * (n * squares - square + c2)
    return likeness / bound


def has_range(target: Tensor) -> Tensor:
    """Which ground truths (..., H, W) have a range of their own, so that PSNR and SSIM say something: (...), bool."""
    check_tensor(target, "an image")
    return _range(target.double(), None) > 0


def where_ranged(figures: Tensor, target: Tensor) -> Tensor:
    """Figures (...) of images, nan for those whose ground truth (..., H, W) has no range."""
    return torch.where(has_range(target), figures, torch.nan)


def relative_error(image: Tensor, truth: Tensor) -> float:
    """|image - truth| / |truth|, both of the same shape."""
    return float((image - truth).norm() / truth.norm())


def _pair(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    for image in (prediction, target):
        check_tensor(image, "an image")
    if prediction.shape != target.shape:
        raise GeometryError(
            f"the two images of a metric have one shape, but these are {tuple(prediction.shape)} and "
            f"{tuple(target.shape)}"
        )
    return prediction.double(), target.double()


def _range(target: Tensor, data_range: float | None) -> Tensor:
    if data_range is not None:
        return torch.full(target.shape[:-2], data_range, dtype=target.dtype, device=target.device)
    return target.amax((-2, -1)) - target.amin((-2, -1))


def _window_sums(image: Tensor) -> Tensor:
    """The sum over every window of 7 x 7 that lies inside the image: along either axis 4 + 2 + 1 neighbours."""
    for axis in (-2, -1):
        two = _plus(image, image, 1, axis)
        four = _plus(two, two, 2, axis)
        image = _plus(_plus(four, two, 4, axis), image, 6, axis)
    return image


def _plus(left: Tensor, right: Tensor, ahead: int, axis: int) -> Tensor:
    """`left[k] + right[k + ahead]`, wherever there are both."""
    length = min(left.shape[axis], right.shape[axis] - ahead)
    return left.narrow(axis, 0, length) + right.narrow(axis, ahead, length)
