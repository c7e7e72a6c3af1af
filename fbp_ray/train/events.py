"""Events of a training run, sent by the loop and by Ray's controller and shown on the terminal."""

from __future__ import annotations

from dataclasses import dataclass, field

from fbp_ray.baseline import Baseline
from fbp_ray.config import LoopConfig


@dataclass(frozen=True)
class Started:
    """The training begins, or begins again after workers were lost."""

    epoch: int
    """Finished epochs."""

    epochs: int
    """Epochs of the whole run."""

    steps: int
    """Steps of an epoch."""

    workers: int
    shares: tuple[int, ...]
    """Samples of each worker in a step."""

    cache: str
    """What is kept in memory, in a sentence; empty for nothing."""

    baseline: Baseline

    loop: LoopConfig = field(default_factory=LoopConfig)
    """Says which epoch is the best."""


@dataclass(frozen=True)
class Doing:
    """Something has begun that takes a while, before the first step."""

    text: str


@dataclass(frozen=True)
class Step:
    """A step is done. Steps are reported about once a second."""

    epoch: int
    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class EpochEnd:
    """An epoch is done."""

    row: dict[str, float]
    """Its row of history.csv."""


@dataclass(frozen=True)
class Warned:
    """Something is wrong that does not end the training."""

    text: str


@dataclass(frozen=True)
class WorkersLost:
    """Workers were lost; the training starts again from the last finished epoch."""

    text: str
    failures: int
    """So far, this one included."""

    max_failures: int


Event = Started | Doing | Step | EpochEnd | Warned | WorkersLost
