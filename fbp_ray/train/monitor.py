"""What a run is judged by after each epoch: which weights are best, and when nothing improves any more."""

from __future__ import annotations

import math

from fbp_ray.config import LoopConfig, TrainConfig

BETTER = 1e-4  # a figure is better where it is so by this part of the best, as the scheduler has it
Row = dict[str, float]


def is_best(config: LoopConfig, history: list[Row], row: Row) -> bool:
    """Whether a row is better than those before it."""
    return config.judge(row) < min((config.judge(past) for past in history), default=math.inf)


def is_stalled(config: TrainConfig, history: list[Row]) -> bool:
    """Whether so many epochs as `train.patience` says have brought no better figure (`train.monitor`).

    The history alone decides, so a run that was interrupted ends where it would have. An extended run counts the epochs
    of its extension.
    """
    before = config.train.epochs - config.run.extend if config.run.extend else 0
    best, since = math.inf, 0
    for row in history:
        judged = config.train.judge(row)
        if judged < best * (1 - math.copysign(BETTER, best)):
            best, since = judged, 0
        elif row["epoch"] > before:
            since += 1
    return 0 < config.train.patience <= since
