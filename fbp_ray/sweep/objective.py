"""What trials are ranked by: figures of the images, never the loss, which is another for every trial.

    psnr      gain in PSNR over the best Hann, dB
    ssim      gain in SSIM over the best Hann
    combined  gain in PSNR + 20 x gain in SSIM, so that 0.05 of SSIM counts as much as 1 dB

The scale of 20 is about the ratio in which the two move in low-dose CT: from one good filter to another, PSNR changes
by some tenths of a dB and SSIM by some hundredths. Neither then decides alone. All figures are means over the
validation part.

A trial's figures are those of its `best/` checkpoint: within one trial the loss does compare, and it is what chooses
the epoch. While a trial runs, each epoch is compared by its own figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fbp_ray.baseline import Baseline

Metric = Literal["combined", "psnr", "ssim"]
DECIBELS_PER_SSIM = 20.0


def merit(metric: Metric, psnr: float, ssim: float, baseline: Baseline) -> float:
    """The figure to rank by; higher is better, 0 is the classic FBP.

    Args:
        metric: which.
        psnr: in dB.
        ssim: mean structural similarity.
        baseline: `hann_psnr` and `hann_ssim`, of the Hann that is best for each.
    """
    more_psnr, more_ssim = psnr - baseline.hann_psnr, ssim - baseline.hann_ssim
    if metric == "psnr":
        return more_psnr
    if metric == "ssim":
        return more_ssim
    return more_psnr + DECIBELS_PER_SSIM * more_ssim


def on_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether each point of (PSNR, SSIM) is on the Pareto front: no other is as good in both and better in one."""
    return [
        not any(q[0] >= p[0] and q[1] >= p[1] and (q[0] > p[0] or q[1] > p[1]) for q in points if q is not p)
        for p in points
    ]
