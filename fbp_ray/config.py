"""The configuration of a training run: one frozen tree, the same on a command line, in a recipe and in a saved run.

`fbp_ray.cli` fills the tree from a recipe, a file and the command line, in that order. Nothing here needs torch, so a
program lists its options, or refuses one, without waiting for it.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fbp_ray.own_names import is_own, own_or, own_title, refuse_options_without, refuse_same_title
from fbp_ray.settings import Frozen, LocalPath, PlaceName
from fbp_ray.stage_settings import Options, PostprocessingConfig, WindowConfig


def _no_truth_value(value: Any) -> Any:
    """Python takes true for 1; somebody who writes it for a number means something else."""
    if isinstance(value, bool):
        raise ValueError("must be a whole number")
    return value


PHOTONS = 4096.0
"""Photons per detector cell without attenuation in LoDoPaB-CT."""

Count = Annotated[int, Field(ge=1, le=2**31 - 1), BeforeValidator(_no_truth_value)]
Amount = Annotated[int, Field(ge=0, le=2**31 - 1), BeforeValidator(_no_truth_value)]
Photons = Annotated[float, Field(ge=1, le=1e12)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Target = Literal["truth", "self"]
TrackerName = Literal["tensorboard", "mlflow", "wandb"]
Augmentation = Literal["none", "flips", "all"]


def _as_object(value: Any) -> Any:
    """What stands after NAME= on a command line, as JSON; anything else as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError('must be a JSON object, for example {"size": 2}') from None


MONITORED = r"^(loss|psnr|ssim|(min|max):[A-Za-z_]\w*)$"


def _is_monitored(value: Any) -> Any:
    """The pattern's own message would be that of names."""
    if isinstance(value, str) and not re.match(MONITORED, value):
        raise ValueError("must be loss, psnr, ssim, min:NAME or max:NAME")
    return value


NamedOptions = Annotated[Options, BeforeValidator(_as_object)]


def split_names(value: Any) -> Any:
    """`none`, `a,b` or a list of names as a tuple that has each name once."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return value
    return () if list(names) == ["none"] else tuple(dict.fromkeys(names))


def _range(photons: Any) -> Any:
    """One number, `low,high` or a list of them as a pair."""
    if photons is None:
        return None
    numbers = photons.split(",") if isinstance(photons, str) else photons
    numbers = list(numbers) if isinstance(numbers, list | tuple) else [numbers]
    if len(numbers) not in (1, 2):
        raise ValueError("must be one number or two, the fewest and the most")
    return numbers * 2 if len(numbers) == 1 else numbers


def _upwards(photons: tuple[float, float]) -> tuple[float, float]:
    low, high = photons
    if low > high:
        raise ValueError(f"run from {low:g} to {high:g}; give the smaller number first: {high:g} {low:g}")
    return photons


PhotonRange = Annotated[tuple[Photons, Photons], BeforeValidator(_range), AfterValidator(_upwards)]


class DataConfig(Frozen):
    """Where the data is, and how much of it to use."""

    dir: LocalPath | None = Field(
        default=None, description="folder in the LoDoPaB-CT layout; without it the sample CT, made at first use"
    )
    every: Count = Field(default=1, description="use each so many of the angles: 4 trains on sparse scans of a quarter")
    first_angles: Count | None = Field(
        default=None,
        description="use the first so many of the angles alone: 667 of 1000 over the half circle are a scan of 120 "
        "degrees",
    )
    train_samples: Count | None = Field(default=None, description="use the first so many training samples")
    validation_samples: Count | None = Field(default=None, description="use the first so many validation samples")
    cache: Literal["none", "memory", "half"] = Field(
        default="none", description="keep samples in memory, once per machine: as they are, or in half precision"
    )
    photons: PhotonRange | None = Field(
        default=None,
        description="draw the noise anew each epoch, with so many photons a ray, or from so many to so many (two "
        "numbers); without it the noise of the data",
    )
    augment: Augmentation = Field(
        default="none",
        description="show each training sample in another position each epoch, image and sinogram alike: flips (and "
        "half turns), or all (also quarter turns); the angles have to have the same symmetry",
    )


class StartWindowConfig(WindowConfig):
    """The kind of window, and what it is at the start."""

    # In a model it is a number.
    cutoff: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["best"] | None = Field(  # type: ignore[assignment]
        default=None,
        description="the cut-off of the analytic window, a fraction of the Nyquist frequency; best: the one with which "
        "a Hann has the best PSNR on the validation part; without it best for a Hann, 1 for the others",
    )
    init: Literal["ones", "none", "shepp-logan", "cosine", "hamming", "hann", "solve"] = Field(  # type: ignore[assignment]
        default="ones",
        description="the window at the start: ones, an analytic one, or solve: from a Hann to the least mean squared "
        "error by least squares, in one pass over the training part",
    )
    unit: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["data"] = Field(  # type: ignore[assignment]
        default="data",
        description="attenuation in 1/m that the value 1 stands for; data: what the data set says, else LoDoPaB-CT's",
    )
    frozen: bool = Field(
        default=False, description="keep the window as it is at the start, and train the network after it alone"
    )

    @model_validator(mode="after")
    def _ones_have_no_cutoff(self) -> StartWindowConfig:
        if self.cutoff == "best" and not self.is_hann:
            raise ValueError(f"best is the cut-off of a Hann, but init is {self.init}; give a number, or init hann")
        self.with_best(1.0)
        return self

    def with_best(self, cutoff: float, photons: float | None = None, unit: float | None = None) -> WindowConfig:
        """The window of a model.

        Args:
            cutoff: the best one of a Hann.
            photons: those of the data, None where they are not known and have to be estimated.
            unit: that of the data, None for LoDoPaB-CT's.

        Raises:
            pydantic.ValidationError: the window cannot have this cut-off.
        """
        known = self.cutoff if isinstance(self.cutoff, float) else cutoff if self.is_hann else 1.0
        counts = (photons or "estimate") if self.photons == "data" else self.photons
        init = "hann" if self.is_hann else self.init
        given = {name: value for name, value in self if name in WindowConfig.model_fields}
        scale = {} if self.unit != "data" else {"unit": unit or WindowConfig.model_fields["unit"].default}
        return WindowConfig.model_validate({**given, "init": init, "cutoff": known, "photons": counts, **scale})

    @property
    def is_hann(self) -> bool:
        """Whether the window is a Hann at first."""
        return self.init in ("hann", "solve")


class LossConfig(Frozen):
    """The weight of each term; a term of weight 0 is not computed."""

    l1: Weight = Field(default=0.25, description="weight of the mean absolute error")
    ms_ssim: Weight = Field(default=1.0, description="weight of 1 - MS-SSIM")
    edge: Weight = Field(default=1.0, description="weight of the L1 distance of the Sobel gradients")
    mse: Weight = Field(default=0.0, description="weight of the mean squared error")
    log_mse: Weight = Field(default=0.0, description="weight of log10(mean squared error / range^2) = -PSNR / 10")
    local_ssim: Weight = Field(default=0.0, description="weight of 1 - SSIM, the SSIM that is reported")
    own: dict[Annotated[str, own_or("losses")], Weight] = Field(
        default={}, description="weights of terms of your own, PACKAGE.MODULE:NAME=WEIGHT"
    )
    options: dict[Annotated[str, own_or("losses")], NamedOptions] = Field(
        default={}, description='settings of terms of your own, PACKAGE.MODULE:NAME={"NAME": VALUE}'
    )

    @model_validator(mode="after")
    def _something_to_minimise(self) -> LossConfig:
        if not any(weight > 0 for weight in self.weights.values()):
            raise ValueError(
                f"all loss weights are 0; give at least one of {', '.join(self.weights)} a positive weight"
            )
        refuse_options_without(self.own, self.options)
        refuse_same_title(self.own, {"loss", *LossConfig.model_fields})
        return self

    @property
    def weights(self) -> dict[str, float]:
        """The weight of every term by name."""
        return {name: weight for name, weight in self if name not in ("own", "options")} | self.own


class MetricsConfig(Frozen):
    """Figures of your own beside PSNR and SSIM: shown each epoch and in evaluations."""

    own: Annotated[tuple[Annotated[str, own_or("metrics")], ...], BeforeValidator(split_names)] = Field(
        default=(), description="their names, PACKAGE.MODULE:NAME, separated by commas"
    )
    options: dict[Annotated[str, own_or("metrics")], NamedOptions] = Field(
        default={}, description='their settings, PACKAGE.MODULE:NAME={"NAME": VALUE}'
    )

    @model_validator(mode="after")
    def _check(self) -> MetricsConfig:
        refuse_options_without(self.own, self.options)
        refuse_same_title(self.own, {"loss", "psnr", "ssim", "psnr_fr", "ssim_fr", *LossConfig.model_fields})
        return self


class OptimConfig(Frozen):
    """The optimiser, and how its learning rates change: on a plateau of what is monitored, or step by step."""

    kind: Literal["adam", "adamw"] = Field(
        default="adam", description="adam; or adamw, which lets the kernels of a network decay"
    )
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(default=1e-3, description="learning rate")
    network_lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="learning rate of the network after the backprojection; without it as the window's"
    )
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="adamw: of the network's kernels; biases, normalisations and the window do not decay; without it "
        "0.01",
    )
    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="scale a step's gradients down where their norm, over all weights, is larger"
    )
    schedule: Literal["plateau", "cosine", "one_cycle"] = Field(
        default="plateau",
        description="plateau: when the validation loss (--train.monitor) no longer falls; cosine: to 0 over the "
        "epochs; one_cycle: up, then along a cosine to 0",
    )
    warm_up: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1, description="one_cycle: the part of all steps in which the rate rises"
    )
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.5, description="the learning rate is multiplied by this on a plateau"
    )
    plateau_patience: Amount = Field(
        default=1, description="epochs without a better validation loss before the learning rate falls"
    )

    @model_validator(mode="after")
    def _adamw_alone_decays(self) -> OptimConfig:
        if self.weight_decay is not None and self.kind != "adamw":
            raise ValueError(f"weight_decay is adamw's, but kind is {self.kind}; leave it out, or give kind adamw")
        return self


class LoopConfig(Frozen):
    """The training loop."""

    epochs: Amount = Field(default=10, description="passes over the training part; 0 with --window.init solve alone")
    batch_size: Count = Field(
        default=8,
        description="samples per step, shared among the workers, whose number changes no step and no learning rate",
    )
    monitor: Annotated[str, Field(pattern=MONITORED), BeforeValidator(_is_monitored)] = Field(
        default="loss",
        description="figure of the validation part that says which weights are best and when nothing improves: loss, "
        "psnr, ssim, or min:NAME or max:NAME for a metric of your own",
    )
    patience: Amount = Field(
        default=15, description="end after so many epochs without a better validation loss (monitor); 0 for never"
    )
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="keep a moving average of the weights, such as 0.999, which is what is validated and saved; "
        "without it the weights themselves",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of the network while it trains on a GPU; all else is float32"
    )
    checkpointing: bool = Field(
        default=False, description="save memory: compute the network's inner values again for the gradients"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(default=0, description="seed of all random numbers")

    @property
    def monitored(self) -> str:
        """The column of the history that is monitored."""
        return f"validation_{self.monitor.rpartition(':')[2]}"

    def judge(self, row: dict[str, float]) -> float:
        """What is monitored, of a row of the history, so that lower is better."""
        higher = self.monitor in ("psnr", "ssim") or self.monitor.startswith("max:")
        return -row[self.monitored] if higher else row[self.monitored]


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

    checkpoint: Annotated[PlaceName, Field(min_length=1)] | None = Field(
        default=None, description="start from the weights of this run or checkpoint folder, its URI, or chest-low-dose"
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
    max_failures: Amount = Field(
        default=3, description="how often to recover from lost workers or machines before giving up"
    )
    extend: Count | None = Field(
        default=None,
        description="train the completed run of this name for this many more epochs, with its own settings",
    )


class TrackConfig(Frozen):
    """Where a run's curves and pictures go while it trains."""

    to: Annotated[tuple[TrackerName, ...], BeforeValidator(split_names)] = Field(
        default=("tensorboard",), description="trackers, separated by commas; none for none"
    )
    images: Amount = Field(default=2, description="validation samples shown as pictures")
    every: Count = Field(default=1, description="epochs from one set of pictures to the next")


class TrainConfig(Frozen):
    """Everything that determines a training run. The defaults shown are the package's; the recipe sets others."""

    recipe: str = Field(
        default="quickstart",
        description="the settings to start from: quickstart, lodopab-window, lodopab-tiny, lodopab-unet, "
        "lodopab-sparse, lodopab-limited, lodopab-low-photon, chest-low-dose, scan or reference",
    )
    target: Target = Field(
        default="truth",
        description="what is learned from: truth, the ground truth; or self, a part of the same scan that is held "
        "out, which needs no ground truth and takes the place of the loss",
    )
    split: Literal["angles", "photons"] = Field(
        default="angles",
        description="--target self: what is held out, some of the angles, or some of the photons of every ray, whose "
        "number has to be known",
    )
    data: DataConfig = DataConfig()
    window: StartWindowConfig = StartWindowConfig()
    postprocessing: PostprocessingConfig = PostprocessingConfig()
    loss: LossConfig = LossConfig()
    metrics: MetricsConfig = MetricsConfig()
    optim: OptimConfig = OptimConfig()
    train: LoopConfig = LoopConfig()
    scaling: ScalingConfig = ScalingConfig()
    ray: RayConfig = RayConfig()
    init: InitConfig = InitConfig()
    run: RunConfig = RunConfig()
    track: TrackConfig = TrackConfig()

    @model_validator(mode="after")
    def _truth_is_not_split(self) -> TrainConfig:
        if self.split == "photons" and self.target == "truth":
            raise ValueError("split is photons, but from ground truth nothing is held out; add --target self")
        return self

    @model_validator(mode="after")
    def _what_is_monitored_is_there(self) -> TrainConfig:
        _, own, name = self.train.monitor.rpartition(":")
        titles = [own_title(metric) for metric in self.metrics.own]
        if own and name not in titles:
            raise ValueError(
                f"train.monitor is {self.train.monitor}, but metrics.own has {', '.join(titles) or 'none'}; name the "
                f"metric there: --metrics.own PACKAGE.MODULE:{name}"
            )
        return self

    @property
    def own_code(self) -> list[str]:
        """What of somebody's own these settings name."""
        kinds = [kind for kind in (self.window.kind, self.postprocessing.kind) if is_own(kind)]
        return [*kinds, *self.loss.own, *self.metrics.own]
