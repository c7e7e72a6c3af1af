"""A moving average of the weights (EMA): it is validated and saved, while the weights themselves go on learning."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from fbp_ray.model import LearnableFBP
from fbp_ray.train.process import Process


class Average:
    """The model whose weights are averages over the steps; without a decay it is the model that learns.

    After n steps the average moves by 1 - min(decay, (1 + n) / (10 + n)) of the way, so that short runs do not keep
    their start. What is not learned, such as the statistics of a batch normalisation, is that of the latest step.

    Args:
        model: learns.
        decay: between 0 and 1, None for no average.
    """

    def __init__(self, model: LearnableFBP, decay: float | None) -> None:
        self.learning = model
        self._average = None if decay is None else AveragedModel(model, avg_fn=_towards(decay))

    @property
    def model(self) -> LearnableFBP:
        """What is validated and saved."""
        if self._average is None:
            return self.learning
        return cast(LearnableFBP, self._average.module)

    def step(self) -> None:
        """Takes in the weights after a step."""
        if self._average is not None:
            self._average.update_parameters(self.learning)

    def agree(self, process: Process) -> None:
        """Gives every process the first one's statistics: each has seen its own share of a batch."""
        if process.world_size > 1:
            for model in (self.learning, self.model):
                for buffer in model.postprocessing.buffers():
                    dist.broadcast(buffer, src=0)

    def state(self) -> dict[str, Any]:
        """What a checkpoint, whose weights are the average, needs besides to go on from."""
        if self._average is None:
            return {}
        return {"weights": self.learning.state_dict(), "averaged": int(self._average.n_averaged)}

    def start(self) -> None:
        """Begins at the weights as they are now."""
        if self._average is not None:
            self._average.module.load_state_dict(self.learning.state_dict())

    def resume(self, state: dict[str, Any]) -> None:
        """Goes on from `state()`; `learning` has the checkpoint's weights, which are the average."""
        self.start()
        if self._average is not None:
            self.learning.load_state_dict(state["weights"])
            self._average.n_averaged.fill_(state["averaged"])


def _towards(decay: float) -> Any:
    def average(averaged: Tensor, weight: Tensor, steps: Tensor | int) -> Tensor:
        n = torch.as_tensor(steps, dtype=averaged.dtype, device=averaged.device)
        return torch.lerp(averaged, weight, 1 - torch.clamp((1 + n) / (10 + n), max=decay))

    return average
