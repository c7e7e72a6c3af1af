"""A moving average of the weights (EMA): it is validated and saved, while the weights themselves go on learning."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.distributed as dist

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
        self._decay = decay
        self._average = None if decay is None else copy.deepcopy(model)
        self._steps = 0

    @property
    def model(self) -> LearnableFBP:
        """What is validated and saved."""
        return self.learning if self._average is None else self._average

    @torch.no_grad()
    def step(self) -> None:
        """Takes in the weights after a step. Without `torch.optim.swa_utils`, which waits for a GPU at each weight."""
        if self._average is None or self._decay is None:
            return
        n = torch.tensor(float(self._steps), device="cpu")
        share = 1 - torch.clamp((1 + n) / (10 + n), max=self._decay).item() if self._steps else 1.0
        for averaged, weight in zip(self._average.parameters(), self.learning.parameters(), strict=True):
            averaged.lerp_(weight, share)
        for latest, buffer in zip(self._average.buffers(), self.learning.buffers(), strict=True):
            latest.copy_(buffer)
        self._steps += 1

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
        return {"weights": self.learning.state_dict(), "averaged": self._steps}

    def start(self) -> None:
        """Begins at the weights as they are now."""
        if self._average is not None:
            self._average.load_state_dict(self.learning.state_dict())

    def resume(self, state: dict[str, Any]) -> None:
        """Goes on from `state()`; `learning` has the checkpoint's weights, which are the average."""
        self.start()
        if self._average is not None:
            self.learning.load_state_dict(state["weights"])
            self._steps = state["averaged"]
