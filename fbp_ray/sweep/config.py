"""The settings of a sweep: those of a training run, and how its trials are chosen, run and ranked.

Trials are ranked by figures of the images, never by the loss, which is a different function in every trial:

    psnr      gain in PSNR over the best Hann, dB
    ssim      gain in SSIM over the best Hann
    combined  gain in PSNR + 20 x gain in SSIM, so that 0.05 of SSIM counts as much as 1 dB

The factor of 20 is about the ratio in which the two move in low-dose CT: from one good filter to another, PSNR changes
by some tenths of a dB and SSIM by some hundredths, so neither decides alone. All figures are means over the validation
part. A finished trial has those of its `best/` checkpoint: within one trial losses do compare, and the loss chooses the
epoch. While trials run, each epoch is compared by its own figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from fbp_ray.baseline import Baseline
from fbp_ray.config import Count, TrackConfig, TrainConfig
from fbp_ray.errors import ConfigError
from fbp_ray.settings import Frozen
from fbp_ray.train.cluster import Node, cpus_per_worker

Metric = Literal["combined", "psnr", "ssim"]
DECIBELS_PER_SSIM = 20.0
MAX_TRIALS = 100_000  # each has a folder


class SweepConfig(Frozen):
    """Which trials a sweep makes, how many at a time, and what they are ranked by."""

    trials: Annotated[Count, Field(le=MAX_TRIALS)] = Field(
        default=16, description="trials in all; more than before goes on with a finished sweep"
    )
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


def objective(metric: Metric, psnr: float, ssim: float, baseline: Baseline) -> float:
    """The figure to rank by; higher is better, and 0 is the classic FBP.

    Args:
        metric: which figure.
        psnr: in dB.
        ssim: mean structural similarity.
        baseline: the classic FBP on the same images.
    """
    if metric == "psnr":
        return baseline.gain("psnr", psnr)
    if metric == "ssim":
        return baseline.gain("ssim", ssim)
    return baseline.gain("psnr", psnr) + DECIBELS_PER_SSIM * baseline.gain("ssim", ssim)


def parts_of(key: str) -> tuple[str, ...]:
    """The names on the way to a setting. The last one of `loss.own.my_package.losses:Term` has dots of its own."""
    before, own, name = key.partition(".own.")
    return (*before.split("."), "own", name) if own else tuple(key.split("."))


def training_config(tree: SweepTree, parameters: dict[str, Any]) -> TrainConfig:
    """The configuration of one trial's training; raises pydantic's ValidationError.

    Args:
        tree: the settings of the sweep.
        parameters: the trial's own values by key, such as {"optim.lr": 0.01}.
    """
    settings = tree.model_dump(mode="json", exclude={"sweep"})
    for key, value in parameters.items():
        *parts, last = parts_of(key)
        inner = settings
        for part in parts:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return TrainConfig.model_validate(settings)


def with_workers(tree: SweepTree, workers: int, cpus: int | None = None) -> SweepTree:
    """The settings with the number of training processes of a trial, and the processors of each."""
    scaling = tree.scaling.model_copy(update={"num_workers": workers, "min_workers": None, "cpus_per_worker": cpus})
    return tree.model_copy(update={"scaling": scaling})


def refuse_run_options(tree: SweepTree) -> None:
    """Raises ConfigError for options of a run that a sweep does not take."""
    if tree.run.name is not None or tree.run.extend is not None:
        raise ConfigError("a sweep has no --run.name and no --run.extend; use --sweep.name and --sweep.trials")


class TrialResources(NamedTuple):
    """What the trials take of a cluster."""

    concurrent: int
    """Trials at a time."""

    workers: int
    """Training processes of a trial."""

    cpus: int
    """Processors of each process."""

    gpus: float
    """GPUs of each process, or the part of one; 0 where there are none."""


def allocate_trials(tree: SweepTree, nodes: Sequence[Node]) -> TrialResources:
    """What each trial takes of a cluster.

    Args:
        tree: the settings of the sweep.
        nodes: the cluster's machines.

    Raises:
        ConfigError: the trials that are to run at a time take more than there is.
    """
    processors = [node.processors for node in nodes]
    gpus = [node.gpus for node in nodes]
    workers = tree.sweep.workers_per_trial
    fraction = 0.0 if not sum(gpus) else tree.sweep.gpu_fraction if workers == 1 else 1.0
    asked = tree.sweep.max_concurrent
    room = room_for_trials(processors, gpus, workers, tree.scaling.cpus_per_worker if workers > 1 else None, fraction)
    concurrent = min(asked or room, tree.sweep.trials)
    if (asked is not None and asked > room) or room == 0:
        each = f"{workers} workers of a processor" if workers > 1 else "a processor"
        each += f" and {fraction:g} of a GPU" if fraction else ""
        each += f" ({tree.scaling.cpus_per_worker} processors a worker)" if tree.scaling.cpus_per_worker else ""
        raise ConfigError(
            f"{asked or 1} trials at a time were asked for (--sweep.max_concurrent), each of at least {each}, but the "
            f"cluster has {sum(processors)} processors and {sum(gpus)} GPUs, which is room for {room}; ask for fewer"
            + (", or for fewer --sweep.workers_per_trial" if workers > 1 else "")
            + (", or for a smaller --sweep.gpu_fraction" if fraction and workers == 1 else "")
        )
    cpus = (tree.scaling.cpus_per_worker if workers > 1 else None) or cpus_per_worker(processors, concurrent * workers)
    return TrialResources(concurrent, workers, cpus, fraction)


def room_for_trials(
    processors: list[int], gpus: list[int], workers: int, cpus: int | None = None, fraction: float = 0.0
) -> int:
    """How many trials fit at a time.

    Args:
        processors, gpus: of each node.
        workers: processes of a trial, which may be on several nodes.
        cpus: processors that each process needs; without it one.
        fraction: the part of a GPU that each process needs, 0 for none.
    """
    each = cpus or 1
    processes = 0
    for have, devices in zip(processors, gpus, strict=True):
        by_processor = have // each
        processes += min(by_processor, devices * int(1 / fraction + 1e-9)) if fraction else by_processor
    return processes // workers
