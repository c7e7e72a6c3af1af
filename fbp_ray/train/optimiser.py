"""The optimiser, and the schedules that follow from the step alone, so that a resumed run needs no state of theirs."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torch.optim import Adam, AdamW

from fbp_ray.config import OptimConfig
from fbp_ray.errors import CheckpointError
from fbp_ray.model import LearnableFBP

LEAST_RATE = 0.02  # of the first learning rate: a cosine falls no further
FIRST, LAST = 0.04, 1e-3  # of the highest learning rate: one cycle's first and last
DECAY = 0.01


def make_optimiser(model: LearnableFBP, config: OptimConfig) -> Adam:
    """Adam or AdamW of what the model learns: one group of weights, or one for each learning rate and decay.

    What decays are the network's tensors of two axes or more. A window would lose its scale; biases and normalisations
    only shift and scale.
    """
    rate = config.network_lr or config.lr
    if config.kind == "adam" and rate == config.lr:
        return Adam(model.parameters(), lr=config.lr)
    window, network = learned(model.filter), learned(model.postprocessing)
    if config.kind == "adamw":
        decay = DECAY if config.weight_decay is None else config.weight_decay
        groups: list[dict[str, Any]] = [
            {"params": window, "lr": config.lr},
            {"params": [p for p in network if p.ndim > 1], "lr": rate, "weight_decay": decay},
            {"params": [p for p in network if p.ndim < 2], "lr": rate},
        ]
        return AdamW([group for group in groups if group["params"]], lr=config.lr, weight_decay=0.0)
    groups = [{"params": window, "lr": config.lr}, {"params": network, "lr": rate}]
    return Adam([group for group in groups if group["params"]], lr=config.lr)


def set_rates(optimiser: Adam, model: LearnableFBP, config: OptimConfig, progress: float) -> None:
    """The learning rates at a step; `progress` is the part of all steps that has been taken. A plateau is not moved."""
    if config.schedule == "plateau":
        return
    factor = rate_factor(config, progress)
    for group, rate in zip(optimiser.param_groups, first_rates(optimiser, model, config), strict=True):
        group["lr"] = rate * factor


def first_rates(optimiser: Adam, model: LearnableFBP, config: OptimConfig) -> list[float]:
    """The learning rate of each group, before any schedule."""
    network = {id(parameter) for parameter in model.postprocessing.parameters()}
    of_network = [all(id(parameter) in network for parameter in group["params"]) for group in optimiser.param_groups]
    return [(config.network_lr or config.lr) if network else config.lr for network in of_network]


def rate_factor(config: OptimConfig, progress: float) -> float:
    """What a cosine or one cycle multiplies a learning rate by: from 1 to `LEAST_RATE`, or `FIRST` to 1 to `LAST`."""
    if config.schedule == "cosine":
        return max((1 + math.cos(math.pi * progress)) / 2, LEAST_RATE)
    if progress < config.warm_up:
        return FIRST + (1 - FIRST) * progress / config.warm_up
    fallen = (progress - config.warm_up) / (1 - config.warm_up)
    return LAST + (1 - LAST) * (1 + math.cos(math.pi * fallen)) / 2


def load_moments(optimiser: Adam, state: dict[str, Any], source: str) -> None:
    """Takes the moments of another run's optimiser, and none of its rates; raises CheckpointError where none fit."""
    shapes = [parameter.shape for group in optimiser.param_groups for parameter in group["params"]]
    moments = {number: moment["exp_avg"].shape for number, moment in state["state"].items()}
    if any(number >= len(shapes) or shapes[number] != shape for number, shape in moments.items()):
        raise CheckpointError(
            f"the optimiser in {source} is of other weights than those that are trained here; leave out "
            "--init.optimizer"
        )
    optimiser.load_state_dict({"state": state["state"], "param_groups": optimiser.state_dict()["param_groups"]})


def learned(model: nn.Module) -> list[nn.Parameter]:
    """The weights that are trained."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
