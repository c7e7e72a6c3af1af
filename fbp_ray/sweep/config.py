"""The settings of a sweep: those of a training run, and how its trials are chosen, run and ranked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from fbp_ray.config import TrainConfig
from fbp_ray.settings import Frozen
from fbp_ray.sweep.objective import Metric
from fbp_ray.trackers import TrackConfig

Count = Annotated[int, Field(ge=1)]


class SweepConfig(Frozen):
    """Which trials a sweep makes, how many at a time, and what they are ranked by."""

    trials: Count = Field(default=16, description="trials in all; more than before goes on with a finished sweep")
    search: Literal["optuna", "random", "grid"] = Field(
        default="optuna", description="optuna: learns from the trials before; random; grid: all combinations"
    )
    scheduler: Literal["asha", "none"] = Field(
        default="asha", description="asha: a trial that is behind half of the others at its epoch ends there"
    )
    min_epochs: Count | None = Field(
        default=None, description="epochs before asha may end a trial; without it a quarter of them"
    )
    metric: Metric = Field(
        default="combined",
        description="what trials are ranked by on the validation part: psnr, ssim, or combined: the gain in PSNR over "
        "the best Hann in dB + 20 times the gain in SSIM",
    )
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = Field(
        default=None, description="name of the sweep; the same name goes on with it. Without it a new one"
    )
    storage: str = Field(default="runs", description="folder that holds the sweep's folder, or the URI of one")
    max_concurrent: Count | None = Field(
        default=None, description="trials at a time; without it as many as there are processors, or shares of GPUs"
    )
    workers_per_trial: Count = Field(
        default=1, description="training processes a trial; more than one makes each trial a TorchTrainer of its own"
    )
    gpu_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5, description="the part of a GPU that a trial of one process takes, where there are GPUs"
    )
    train_best: bool = Field(default=False, description="train the best settings with TorchTrainer at the end")


class SweepTree(TrainConfig):
    """Finds the settings that give the best images: many short trainings, ranked by PSNR and SSIM."""

    track: TrackConfig = TrackConfig(to=())
    sweep: SweepConfig = SweepConfig()


def training_config(tree: SweepTree, parameters: dict[str, Any]) -> TrainConfig:
    """The configuration of a training with some settings of its own; raises pydantic's ValidationError.

    Args:
        tree: the sweep's, which has the others.
        parameters: values by key, such as {"optim.lr": 0.01}.
    """
    settings = tree.model_dump(mode="json", exclude={"sweep"})
    for key, value in parameters.items():
        *parts, last = key.split(".")
        inner = settings
        for part in parts:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return TrainConfig.model_validate(settings)
