"""What callers send about jobs, and what they get."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fbp_ray.config import TrainConfig
from fbp_ray.evaluate import EvaluateConfig
from fbp_ray.settings import Frozen
from fbp_ray.sweep.config import SweepTree

Kind = Literal["train", "sweep", "evaluate"]
SpaceName = Literal["loss_weights", "learning_rate"]
Status = Literal["pending", "running", "succeeded", "failed", "stopped", "lost"]
STATUSES: tuple[Status, ...] = ("pending", "running", "succeeded", "failed", "stopped", "lost")
ENDED: tuple[Status, ...] = ("succeeded", "failed", "stopped", "lost")


class TrainJob(Frozen):
    """A training: what `python -m fbp_ray.train` takes. What is not given is the recipe's."""

    kind: Literal["train"] = Field(description="train, sweep or evaluate")
    config: TrainConfig = Field(default=TrainConfig(), description="the settings of the run")


class SweepJob(Frozen):
    """A sweep: what the programs in `sweeps/` take."""

    kind: Literal["sweep"] = Field(description="train, sweep or evaluate")
    space: SpaceName = Field(description="what is searched: the program sweeps/SPACE.py has its ranges")
    config: SweepTree = Field(default=SweepTree(), description="the settings that trials share, and of the search")


class EvaluateJob(Frozen):
    """An evaluation: what `python -m fbp_ray.evaluate` takes."""

    kind: Literal["evaluate"] = Field(description="train, sweep or evaluate")
    config: EvaluateConfig = Field(description="what to evaluate, on what")


JobRequest = TrainJob | SweepJob | EvaluateJob

EXAMPLES: dict[str, Any] = {
    "train": {
        "summary": "Train on the sample CT",
        "value": {"kind": "train", "config": {"recipe": "quickstart", "train": {"epochs": 2}}},
    },
    "reference": {
        "summary": "Train on data of your own, under a name that goes on where it was interrupted",
        "value": {
            "kind": "train",
            "config": {"recipe": "reference", "data": {"dir": "/data/lodopab"}, "run": {"name": "reference-1"}},
        },
    },
    "sweep": {
        "summary": "Find the weights of the loss",
        "value": {
            "kind": "sweep",
            "space": "loss_weights",
            "config": {"sweep": {"trials": 16, "name": "weights"}, "train": {"epochs": 4}},
        },
    },
    "evaluate": {
        "summary": "Score a run beside the classic FBP",
        "value": {"kind": "evaluate", "config": {"checkpoint": "runs/reference-1", "split": "test"}},
    },
}


class JobActivation(BaseModel):
    """What the result of a job is to serve as."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "best"}]})

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = Field(
        default="best", description="the name of the model that requests ask for"
    )


class Figure(BaseModel):
    """The best value of a figure so far."""

    value: float | None = Field(description="on the validation part, or of an evaluation on its part")
    epoch: int | None = Field(default=None, description="the epoch that it is from")
    over_fbp: float | None = Field(default=None, description="the gain over the classic FBP with its best Hann window")


class Best(BaseModel):
    """The best metrics so far."""

    psnr: Figure | None = Field(default=None, description="peak signal-to-noise ratio, dB")
    ssim: Figure | None = Field(default=None, description="structural similarity")
    trial: str | None = Field(default=None, description="of a sweep, the trial that they are of")
    parameters: dict[str, Any] | None = Field(default=None, description="and its parameters")


class Progress(BaseModel):
    """How far a job is, told from its folder."""

    unit: Literal["epoch", "trial", "evaluation"] = Field(description="what is counted")
    done: int = Field(default=0, description="so many are finished")
    total: int | None = Field(default=None, description="of so many")
    rows: list[dict[str, Any]] = Field(
        default=[], description="one each: losses, PSNR and SSIM of an epoch; figures of a trial, or of a method"
    )
    best: Best = Field(default=Best(), description="the best metrics so far")
    problem: str = Field(default="", description="what of the folder cannot be read, if anything")


class JobSummary(BaseModel):
    """A job, in short."""

    id: str
    kind: Kind
    status: Status = Field(
        description="pending, running, succeeded, failed, stopped on request, or lost: its cluster is gone"
    )
    reason: str = Field(description="why it is pending, failed, stopped or lost; else empty")
    created: datetime
    started: datetime | None
    ended: datetime | None
    place: str = Field(description="the folder of its results")


class JobDocument(JobSummary):
    """A job, with all that is known of it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "5f1d20b39c",
                    "kind": "train",
                    "status": "running",
                    "reason": "",
                    "created": "2026-05-01T12:00:00Z",
                    "started": "2026-05-01T12:00:09Z",
                    "ended": None,
                    "place": "/data/runs/train-5f1d20b39c",
                    "request": {"kind": "train", "config": {"run": {"name": "train-5f1d20b39c"}}},
                    "progress": {
                        "unit": "epoch",
                        "done": 3,
                        "total": 12,
                        "rows": [{"epoch": 1, "lr": 0.01, "validation_psnr": 31.2}],
                        "best": {"psnr": {"value": 31.9, "epoch": 3, "over_fbp": 0.4}},
                    },
                }
            ]
        }
    )

    request: dict[str, Any] = Field(
        description="what was asked for, and what the service added (names, absolute places): to POST it again goes on "
        "with a run or a sweep that was interrupted"
    )
    progress: Progress


class JobList(BaseModel):
    """Jobs, the newest in front."""

    jobs: list[JobSummary]
