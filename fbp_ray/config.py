"""The configuration of a training run: one frozen tree, the same on a command line, in a recipe and in a saved run.

A part of the tree that configures a single module is defined in that module (`WindowConfig`, `LossConfig`). The other
parts and the tree are here. `fbp_ray.cli` fills the tree from a recipe, a file and the command line, in that order.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fbp_ray.filters import WindowConfig
from fbp_ray.losses import LossConfig
from fbp_ray.model import PostprocessingConfig
from fbp_ray.settings import Frozen, LocalPath, PlaceName
from fbp_ray.trackers import TrackConfig

Count = Annotated[int, Field(ge=1)]


class StartWindowConfig(WindowConfig):
    """The kind of window, and what it is at the start."""

    # In a model it is a number.
    cutoff: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["best"] | None = Field(  # type: ignore[assignment]
        default=None,
        description="the cut-off of the analytic window, a fraction of the Nyquist frequency; best: the one with which "
        "a Hann has the best PSNR on the validation part; without it best for a Hann, 1 for the others",
    )

    @model_validator(mode="after")
    def _ones_have_no_cutoff(self) -> StartWindowConfig:
        if self.cutoff == "best" and self.init != "hann":
            raise ValueError(f"best is the cut-off of a Hann, but init is {self.init}; give a number, or init hann")
        self.with_best(1.0)
        return self

    def with_best(self, cutoff: float) -> WindowConfig:
        """The window of a model, where `cutoff` is the best one; raises pydantic's ValidationError."""
        known = self.cutoff if isinstance(self.cutoff, float) else cutoff if self.init == "hann" else 1.0
        return WindowConfig.model_validate({**dict(self), "cutoff": known})


class DataConfig(Frozen):
    """Where the data is, and how much of it to use."""

    dir: LocalPath | None = Field(
        default=None, description="folder in the LoDoPaB-CT layout; without it the sample CT, made at first use"
    )
    train_samples: Count | None = Field(default=None, description="use the first so many training samples")
    validation_samples: Count | None = Field(default=None, description="use the first so many validation samples")
    cache: Literal["none", "memory", "half"] = Field(
        default="none", description="keep samples in memory, once per machine: as they are, or in half precision"
    )


class OptimConfig(Frozen):
    """Adam, and when its learning rate falls (ReduceLROnPlateau on the validation loss)."""

    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(default=1e-3, description="learning rate of Adam")
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5, description="the learning rate is multiplied by this on a plateau"
    )
    plateau_patience: Annotated[int, Field(ge=0)] = Field(
        default=1, description="epochs without a better validation loss before the learning rate falls"
    )


class LoopConfig(Frozen):
    """The training loop."""

    epochs: Count = Field(default=10, description="passes over the training part")
    batch_size: Count = Field(
        default=8,
        description="samples per step, shared among the workers, whose number changes no step and no learning rate",
    )
    patience: Annotated[int, Field(ge=0)] = Field(
        default=15, description="end after so many epochs without a better validation loss; 0 for never"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(default=0, description="seed of all random numbers")


class ScalingConfig(Frozen):
    """How many processes train."""

    num_workers: Count | None = Field(
        default=None, description="training processes; without it one per GPU, or two on a machine without GPUs"
    )
    min_workers: Count | None = Field(
        default=None, description="go on with as few workers when machines are lost, and use those that come back"
    )
    cpus_per_worker: Count | None = Field(
        default=None, description="processors of each worker; without it as many as there is room for"
    )
    interface: str | None = Field(
        default=None, description="network interface between the machines; without it the one of Ray's address"
    )

    @model_validator(mode="after")
    def _check(self) -> ScalingConfig:
        if self.min_workers is not None and self.num_workers is None:
            raise ValueError("min_workers needs num_workers, the most workers to use")
        if self.min_workers is not None and self.num_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(f"min_workers is {self.min_workers}, more than num_workers, {self.num_workers}")
        return self


class RayConfig(Frozen):
    """The Ray cluster."""

    address: str | None = Field(
        default=None,
        description="HOST:PORT of a running cluster, or auto for the one on this machine; without it RAY_ADDRESS, else "
        "a cluster of this machine alone that lasts as long as the run",
    )


class InitConfig(Frozen):
    """What the training starts from."""

    checkpoint: PlaceName | None = Field(
        default=None, description="start from the weights of this run or checkpoint folder, or its URI"
    )
    optimizer: bool = Field(default=False, description="also start from its optimiser's state")

    @model_validator(mode="after")
    def _check(self) -> InitConfig:
        if self.optimizer and self.checkpoint is None:
            raise ValueError("optimizer needs the checkpoint that has the optimiser's state: checkpoint runs/NAME/last")
        return self


class RunConfig(Frozen):
    """What the run is called, where its folder goes, and what it survives."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = Field(
        default=None, description="name of the run, unique in its storage; without it the recipe and the time"
    )
    storage: PlaceName = Field(
        default="runs", description="folder that holds the run folders, or the URI of one: s3://bucket/runs"
    )
    max_failures: Annotated[int, Field(ge=0)] = Field(
        default=3, description="how often to recover from lost workers or machines before giving up"
    )
    extend: Count | None = Field(
        default=None,
        description="train the completed run of this name for this many more epochs, with its own settings",
    )


class TrainConfig(Frozen):
    """Everything that determines a training run. The defaults shown are the package's; the recipe sets others."""

    recipe: str = Field(default="quickstart", description="the settings to start from: quickstart or reference")
    data: DataConfig = DataConfig()
    window: StartWindowConfig = StartWindowConfig()
    postprocessing: PostprocessingConfig = PostprocessingConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    train: LoopConfig = LoopConfig()
    scaling: ScalingConfig = ScalingConfig()
    ray: RayConfig = RayConfig()
    init: InitConfig = InitConfig()
    run: RunConfig = RunConfig()
    track: TrackConfig = TrackConfig()
