"""The structural similarity (SSIM) of images, as `fbp_ray.metrics` and the loss terms need it, with its gradient.

With means, variances and covariance over a window around each place,

    luminance = (2 mp mt + c1) / (mp^2 + mt^2 + c1)        contrast = (2 cov + c2) / (var p + var t + c2)

SSIM is the mean of their product over all places whose window lies inside the image. On a CPU a kernel works it out
image by image, in float64, with the gradient in the same pass; on a GPU kernels do (`fbp_ray.structure_gpu`). On other
devices, under torch.compile, for a target that has a gradient, and for second derivatives the same is done in torch's
own operations, which the kernels are tested against. No figure depends on what else is in the batch.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fbp_ray.caches import cached
from fbp_ray.gpus import has_triton
from fbp_ray.projector import where_compiled
from fbp_ray.threads import parallel_for


class Window(NamedTuple):
    """A window, and what is made of the sums over it."""

    weights: tuple[float, ...]
    """Along either axis, from one end to the other; their sum is 1."""

    sample: float = 1.0
    """What covariances are multiplied by: n / (n - 1) for those of a sample of n."""

    luminous: bool = True
    """Whether the luminances count, or the contrasts alone."""


def similarity(prediction: Tensor, target: Tensor, c1: Tensor, c2: Tensor, window: Window) -> Tensor:
    """The mean similarity of each image.

    Args:
        prediction, target: (B, H, W), of one dtype.
        c1, c2: (B,), float64.
        window: what is summed over.

    Returns:
        (B,), float64.
    """
    if not target.requires_grad and _has_kernel(prediction):
        return _Similarity.apply(prediction, target, c1, c2, window)  # type: ignore[no-any-return]
    return reference_similarity(prediction, target, c1, c2, window)


def half_size(image: Tensor) -> Tensor:
    """Means over 2 x 2 pixels, (B, H, W) to about half of it; where a side is odd, the first row and column twice."""
    if image.is_cuda and _has_kernel(image):
        return _Halved.apply(image)  # type: ignore[no-any-return]
    return reference_half_size(image)


def reference_half_size(image: Tensor) -> Tensor:
    """As `half_size`, in torch's operations."""
    odd = max(side % 2 for side in image.shape[-2:])
    padded = nn.functional.pad(image[:, None], (odd, 0, odd, 0), mode="replicate") if odd else image[:, None]
    return nn.functional.avg_pool2d(padded, 2)[:, 0]


def _has_kernel(image: Tensor) -> bool:
    if torch.compiler.is_compiling():
        return False
    if image.is_cuda:
        return image.dtype in (torch.float32, torch.float64) and has_triton()
    return image.is_cpu and _kernel() is not None


def reference_similarity(prediction: Tensor, target: Tensor, c1: Tensor, c2: Tensor, window: Window) -> Tensor:
    """As `similarity`, in torch's operations."""
    if not prediction.is_cpu:
        return _similarity(prediction.double(), target.double(), c1, c2, window)
    found = torch.empty_like(c1)
    for one in (slice(number, number + 1) for number in range(len(prediction))):  # it and its sums stay in the cache
        found[one] = _similarity(prediction[one].double(), target[one].double(), c1[one], c2[one], window)
    return found


def _similarity(p: Tensor, t: Tensor, c1: Tensor, c2: Tensor, window: Window) -> Tensor:
    weights = _weights(window, p.dtype, p.device)
    c1, c2 = c1[:, None, None], c2[:, None, None]

    def mean(image: Tensor) -> Tensor:
        image = torch.nn.functional.conv2d(image[:, None], weights[None, None, :, None])
        return torch.nn.functional.conv2d(image, weights[None, None, None])[:, 0]

    mean_p, mean_t = mean(p), mean(t)
    product, squares = mean_p * mean_t, mean_p.square() + mean_t.square()
    covariance = 2 * window.sample * (mean(p * t) - product) + c2
    contrast = covariance / (window.sample * (mean(p * p + t * t) - squares) + c2)
    return (contrast * (2 * product + c1) / (squares + c1) if window.luminous else contrast).mean((1, 2))


def _weights(window: Window, dtype: torch.dtype, device: torch.device) -> Tensor:
    if torch.compiler.is_compiling():
        return torch.tensor(window.weights, dtype=dtype, device=device)
    return _kept_weights(window, dtype, device)


@cached(32)
def _kept_weights(window: Window, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Kept on the device: copying them there for each batch would wait for all that it has to do."""
    return torch.tensor(window.weights, dtype=dtype, device=device)


class _Similarity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor, c1: Tensor, c2: Tensor, window: Window) -> Tensor:
        of = _on_cpu if prediction.is_cpu else _on_gpu
        found, kept = of(prediction, target, c1, c2, window, ctx.needs_input_grad[0])
        ctx.save_for_backward(prediction, target, c1, c2, kept)
        ctx.window = window
        return found

    @staticmethod
    def backward(ctx: Any, *along: Tensor) -> tuple[Tensor | None, ...]:
        prediction, target, c1, c2, kept = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted
            found = reference_similarity(prediction, target, c1, c2, ctx.window)
            (back,) = torch.autograd.grad(found, prediction, along[0], create_graph=True)
        elif prediction.is_cpu:
            back = (along[0][:, None, None] * kept).to(prediction.dtype)
        else:
            from fbp_ray.structure_gpu import gradient  # here, not above: triton need not be installed

            back = gradient(along[0], kept, prediction, target, _weights(ctx.window, c1.dtype, c1.device))
        return back, None, None, None, None


class _Halved(torch.autograd.Function):
    """Of images on a GPU, where torch's gradient of padding is added up in no order."""

    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        from fbp_ray.structure_gpu import halved

        ctx.save_for_backward(image)
        return halved(image)

    @staticmethod
    def backward(ctx: Any, *along: Tensor) -> Tensor:
        from fbp_ray.structure_gpu import halved_back

        (image,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted
            (back,) = torch.autograd.grad(reference_half_size(image), image, along[0], create_graph=True)
            return back  # type: ignore[no-any-return]
        return halved_back(along[0], image)


def _on_cpu(
    prediction: Tensor, target: Tensor, c1: Tensor, c2: Tensor, window: Window, wanted: bool
) -> tuple[Tensor, Tensor]:
    """The similarities and, where it is wanted, their gradient."""
    found = torch.empty(len(prediction), dtype=torch.float64, device="cpu")
    shape = prediction.shape if wanted else (len(prediction), 0, 0)
    gradient = torch.empty(shape, dtype=torch.float64, device="cpu")
    weights = np.asarray(window.weights)
    arrays = [tensor.detach().contiguous().numpy() for tensor in (prediction, target)]
    kernel, results, gradients = _kernel(), found.numpy()[:, None], gradient.numpy()
    constants = [(float(a), float(b), window.sample, float(window.luminous)) for a, b in zip(c1, c2, strict=True)]

    def work(first: int, last: int) -> None:
        for one in range(first, last):
            kernel(arrays[0][one], arrays[1][one], weights, constants[one], results[one], gradients[one])

    parallel_for(work, len(prediction), 1)
    return found, gradient


def _on_gpu(
    prediction: Tensor, target: Tensor, c1: Tensor, c2: Tensor, window: Window, wanted: bool
) -> tuple[Tensor, Tensor]:
    """The similarities and, where it is wanted, what their gradient is made of."""
    from fbp_ray.structure_gpu import similarity as work_out

    c2 = c2 if window.sample == 1 else c2 / window.sample  # covariances need not be multiplied then
    return work_out(prediction, target, c1, c2, _weights(window, c1.dtype, c1.device), window.luminous, wanted)


@functools.cache
def _kernel() -> Any:
    def load() -> Any:
        from fbp_ray.structure_kernels import similarity

        one = np.ones((1, 1))
        similarity(one, one, np.ones(1), (1.0, 1.0, 1.0, 1.0), np.empty(1), np.empty((0, 0)))
        return similarity

    return where_compiled("SSIM runs", load)
