"""The GPU kernels of `fbp_ray.structure` in Triton: similarities, their gradient, and the halving of images.

A window is a product of two: sums are taken down the columns, then across the rows, and of the gradient up and back.
What is summed is float64. A variance is the difference of two means, and where the image is smooth it is smaller by
four orders of magnitude than they are: in float32 the figures would be off by 1e-5. The arithmetic costs less than the
memory for its results on the GPUs that trainings run on.

Every result is gathered, so that nothing is added up atomically: a figure is the same every time, and whatever else is
in the batch. A program works on BLOCK places of one image, which are counted along its rows.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fbp_ray.gpus import FUSED

_BLOCK = 512  # places of a program
_TOTALS = 256  # programs whose sums are added up at a time
_SIZES = ("blocks", "area", "places", "width", "inner", "summed", "given", "count", "half_height", "half_width")
_jit = triton.jit(do_not_specialize=_SIZES)  # five scales would otherwise be compiled five times


def similarity(
    prediction: Tensor, target: Tensor, c1: Tensor, c2: Tensor, weights: Tensor, luminous: bool, wanted: bool
) -> tuple[Tensor, Tensor]:
    """The mean similarity of each image, (B,), and what `gradient` makes the gradient of where it is `wanted`.

    Args:
        prediction, target: (B, H, W) of one dtype, float32 or float64.
        c1, c2: (B,), float64; for covariances of a sample, c2 is divided by what they are multiplied by.
        weights: (K,), float64, of the window along either axis.
        luminous: whether the luminances count, or the contrasts alone.
        wanted: whether there will be a gradient.
    """
    prediction, target = prediction.contiguous(), target.contiguous()
    batch, height, width = prediction.shape
    size = len(weights)
    rows, inner = height - size + 1, width - size + 1
    blocks = math.ceil(rows * inner / _BLOCK)
    columns, partial, found = (c1.new_empty(batch, *shape) for shape in ((4, rows * width), (blocks,), ()))
    slopes = c1.new_empty(batch, 3, rows * inner if wanted else 0)
    if batch == 0:
        return found, slopes
    with torch.cuda.device_of(prediction):  # type: ignore[no-untyped-call]
        first = math.ceil(rows * width / _BLOCK)
        down_kernel[(batch * first,)](
            prediction, target, columns, weights, first, height * width, rows * width, width,
            SIZE=size, BLOCK=_BLOCK, **FUSED,
        )  # fmt: skip
        across_kernel[(batch * blocks,)](
            columns, c1.contiguous(), c2.contiguous(), slopes, partial, weights, blocks, rows * width, rows * inner,
            width, inner, SIZE=size, LUMINOUS=luminous, WANTED=wanted, BLOCK=_BLOCK, **FUSED,
        )  # fmt: skip
        total_kernel[(batch,)](partial, found, blocks, rows * inner, BLOCK=_TOTALS, **FUSED)
    return found, slopes


def gradient(upstream: Tensor, slopes: Tensor, prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """The gradient (B, H, W) to the prediction, from that to the similarities (B,), float64, and their `slopes`."""
    prediction, target = prediction.contiguous(), target.contiguous()
    found = torch.empty_like(prediction)
    batch, height, width = prediction.shape
    size = len(weights)
    rows, inner = height - size + 1, width - size + 1
    if batch == 0:
        return found
    spread = slopes.new_empty(batch, 3, height * inner)
    with torch.cuda.device_of(prediction):  # type: ignore[no-untyped-call]
        blocks = math.ceil(height * inner / _BLOCK)
        up_kernel[(batch * blocks,)](
            slopes, spread, weights, blocks, rows * inner, height * inner, inner, SIZE=size, BLOCK=_BLOCK, **FUSED
        )
        blocks = math.ceil(height * width / _BLOCK)
        back_kernel[(batch * blocks,)](
            spread, prediction, target, upstream.contiguous(), found, weights, blocks, height * inner, height * width,
            rows * inner, width, inner, SIZE=size, BLOCK=_BLOCK, **FUSED,
        )  # fmt: skip
    return found


def halved(image: Tensor) -> Tensor:
    """Means over 2 x 2 pixels, (B, H, W) to about half of it; where a side is odd, the first row and column twice."""
    image = image.contiguous()
    batch, height, width = image.shape
    odd = _odd(image)
    small = image.new_empty(batch, (height + odd) // 2, (width + odd) // 2)
    _launch(halve_kernel, small, image, small, width, height * width, small.shape[2], ODD=odd)
    return small


def halved_back(upstream: Tensor, like: Tensor) -> Tensor:
    """The gradient to an image such as `like`, from that to its half."""
    upstream = upstream.contiguous()
    found = torch.empty_like(like, memory_format=torch.contiguous_format)
    _launch(unhalve_kernel, found, upstream, found, found.shape[2], *upstream.shape[1:], ODD=_odd(like))
    return found


def _odd(image: Tensor) -> int:
    return max(side % 2 for side in image.shape[1:])


def _launch(kernel: Any, made: Tensor, *arguments: Any, **constants: int) -> None:
    """A program for each BLOCK places of each image that is made."""
    places = made[0].numel() if len(made) else 0
    blocks = math.ceil(places / _BLOCK)
    if blocks:
        with torch.cuda.device_of(made):  # type: ignore[no-untyped-call]
            kernel[(len(made) * blocks,)](*arguments, blocks, places, BLOCK=_BLOCK, **constants, **FUSED)


@_jit
def down_kernel(
    prediction, target, columns, weights, blocks, area, places, width, SIZE: tl.constexpr, BLOCK: tl.constexpr
):
    """Sums down the columns of p, t, p^2 + t^2 and p t: (B, H, W) to `columns` (B, 4, (H - K + 1) W)."""
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    place = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    there = place < places
    first, second = prediction + sample * area + place, target + sample * area + place
    of_p, of_t = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    of_squares, of_products = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    for k in tl.static_range(SIZE):
        weight = tl.load(weights + k)
        p = tl.load(first + k * width, mask=there, other=0.0).to(tl.float64)
        t = tl.load(second + k * width, mask=there, other=0.0).to(tl.float64)
        of_p += weight * p
        of_t += weight * t
        of_squares += weight * (p * p + t * t)
        of_products += weight * (p * t)
    column = columns + sample * 4 * places + place
    tl.store(column, of_p, mask=there)
    tl.store(column + places, of_t, mask=there)
    tl.store(column + 2 * places, of_squares, mask=there)
    tl.store(column + 3 * places, of_products, mask=there)


@_jit
def across_kernel(
    columns, c1, c2, slopes, partial, weights, blocks, summed, places, width, inner,
    SIZE: tl.constexpr, LUMINOUS: tl.constexpr, WANTED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sums across the rows, and the similarities of them: their sum over a program's places to `partial`.

    `slopes` (B, 3, (H - K + 1) (W - K + 1)) are what a place's similarity changes with its mean of p, and twice with
    that of p^2, and with that of p t.
    """
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    place = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    there = place < places
    column = columns + sample * 4 * summed + (place // inner * width + place % inner)
    p, t = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    squares, product = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    for k in tl.static_range(SIZE):
        weight = tl.load(weights + k)
        p += weight * tl.load(column + k, mask=there, other=0.0)
        t += weight * tl.load(column + summed + k, mask=there, other=0.0)
        squares += weight * tl.load(column + 2 * summed + k, mask=there, other=0.0)
        product += weight * tl.load(column + 3 * summed + k, mask=there, other=0.0)
    steady = tl.load(c2 + sample)
    variances = squares - p * p - t * t + steady
    contrast = (2 * (product - p * t) + steady) / variances
    similar = contrast
    if LUMINOUS:
        dark = tl.load(c1 + sample)
        means = p * p + t * t + dark
        light = (2 * p * t + dark) / means
        similar = light * contrast
    if WANTED:
        to_covariance, to_variances = 2 / variances, -similar / variances
        if LUMINOUS:
            to_covariance *= light
        to_mean = -t * to_covariance - 2 * p * to_variances
        if LUMINOUS:
            to_mean += contrast * (2 * t - 2 * p * light) / means
        slope = slopes + sample * 3 * places + place
        tl.store(slope, to_mean, mask=there)
        tl.store(slope + places, 2 * to_variances, mask=there)
        tl.store(slope + 2 * places, to_covariance, mask=there)
    tl.store(partial + tl.program_id(0), tl.sum(tl.where(there, similar, 0.0), axis=0))


@_jit
def total_kernel(partial, found, blocks, places, BLOCK: tl.constexpr):
    """The means of images: the sums of their `partial` (B, blocks), always in one order, over their places."""
    sample = tl.program_id(0).to(tl.int64)
    number = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float64)
    for first in range(0, blocks, BLOCK):
        total += tl.load(partial + sample * blocks + first + number, mask=first + number < blocks, other=0.0)
    tl.store(found + sample, tl.sum(total, axis=0) / places)


@_jit
def up_kernel(slopes, spread, weights, blocks, given, places, inner, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """The transpose of sums down the columns: `slopes` (B, 3, (H - K + 1) V) to `spread` (B, 3, H V), V = W - K + 1."""
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    place = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    slope = slopes + sample * 3 * given
    to_mean, to_square = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    to_product = tl.zeros((BLOCK,), tl.float64)
    for k in tl.static_range(SIZE):
        weight = tl.load(weights + k)
        source = place - k * inner
        seen = (source >= 0) & (source < given)
        to_mean += weight * tl.load(slope + source, mask=seen, other=0.0)
        to_square += weight * tl.load(slope + given + source, mask=seen, other=0.0)
        to_product += weight * tl.load(slope + 2 * given + source, mask=seen, other=0.0)
    made = spread + sample * 3 * places + place
    there = place < places
    tl.store(made, to_mean, mask=there)
    tl.store(made + places, to_square, mask=there)
    tl.store(made + 2 * places, to_product, mask=there)


@_jit
def back_kernel(
    spread, prediction, target, upstream, gradient, weights, blocks, given, places, count, width, inner,
    SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The transpose of sums across the rows, and the gradient: `spread` (B, 3, H V) to (B, H, W), V = W - K + 1."""
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    place = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    there = place < places
    column = place % width
    source = spread + sample * 3 * given + (place // width * inner + column)
    to_mean, to_square = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    to_product = tl.zeros((BLOCK,), tl.float64)
    for k in tl.static_range(SIZE):
        weight = tl.load(weights + k)
        seen = there & (column >= k) & (column - k < inner)
        to_mean += weight * tl.load(source - k, mask=seen, other=0.0)
        to_square += weight * tl.load(source + given - k, mask=seen, other=0.0)
        to_product += weight * tl.load(source + 2 * given - k, mask=seen, other=0.0)
    p = tl.load(prediction + sample * places + place, mask=there, other=0.0).to(tl.float64)
    t = tl.load(target + sample * places + place, mask=there, other=0.0).to(tl.float64)
    total = tl.load(upstream + sample) / count * (to_mean + to_square * p + to_product * t)
    tl.store(gradient + sample * places + place, total.to(gradient.dtype.element_ty), mask=there)


@_jit
def halve_kernel(whole, halves, width, area, inner, blocks, places, ODD: tl.constexpr, BLOCK: tl.constexpr):
    """Means over 2 x 2 pixels of `whole` (B, H, W), whose first row and column come twice where ODD is 1."""
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    place = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    there = place < places
    i, j = place // inner * 2 - ODD, place % inner * 2 - ODD
    top, bottom = whole + sample * area + tl.maximum(i, 0) * width, whole + sample * area + (i + 1) * width
    left, right = tl.maximum(j, 0), j + 1
    total = tl.load(top + left, mask=there, other=0.0) + tl.load(top + right, mask=there, other=0.0)
    total += tl.load(bottom + left, mask=there, other=0.0)
    total += tl.load(bottom + right, mask=there, other=0.0)
    tl.store(halves + sample * places + place, total * 0.25, mask=there)


@_jit
def unhalve_kernel(
    halves, whole, width, half_height, half_width, blocks, places, ODD: tl.constexpr, BLOCK: tl.constexpr
):
    """The transpose of `halve_kernel`: `halves` (B, half_height, half_width) to `whole` (B, H, W)."""
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    place = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    there = place < places
    i, j = place // width, place % width
    row, column = (i + ODD) // 2, (j + ODD) // 2
    seen = there & (row < half_height) & (column < half_width)
    value = tl.load(halves + sample * half_height * half_width + row * half_width + column, mask=seen, other=0.0)
    times = tl.where(i < ODD, 0.5, 0.25) * tl.where(j < ODD, 2.0, 1.0)
    tl.store(whole + sample * places + place, value * times, mask=there)
