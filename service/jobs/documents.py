"""What callers get to see of a job, and how far it is, told from the folder of its results."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from fbp_ray.baseline import Figure as FigureName
from fbp_ray.checkpoint import MANIFEST
from fbp_ray.cli import on_recipe
from fbp_ray.config import TrainConfig
from fbp_ray.errors import FbpRayError
from fbp_ray.report.program import REPORT
from fbp_ray.run import NEWEST, RunFolder
from fbp_ray.runs import Best as BestOfRun
from fbp_ray.runs import summary
from fbp_ray.settings import what_is_wrong
from fbp_ray.storage import Folder, open_folder
from fbp_ray.sweep.config import SweepTree
from fbp_ray.sweep.folder import FINISHED, SWEEP, Outcome, SweepFolder, read_results
from service.places import without_secrets

Kind = Literal["train", "sweep", "evaluate", "reconstruct"]
Status = Literal["pending", "running", "succeeded", "failed", "stopped", "lost"]
STATUSES: tuple[Status, ...] = get_args(Status)
Unit = Literal["epoch", "trial", "evaluation", "slab", "volume"]
REPORTS = (REPORT, "index.html")  # of a run or an evaluation, and of a sweep
UNITS: dict[Kind, Unit] = {"train": "epoch", "sweep": "trial", "evaluate": "evaluation", "reconstruct": "slab"}


class JobActivation(BaseModel):
    """What the result of a job is to serve as."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "best"}]})

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = Field(
        default="best", description="the name of the model that requests ask for"
    )


class Figure(BaseModel):
    """A figure of the best weights so far."""

    value: float | None = Field(description="on the validation part, or of an evaluation on its part")
    epoch: int | None = Field(default=None, description="the epoch that it is from")
    over_fbp: float | None = Field(default=None, description="the gain over the classic FBP with its best Hann window")


class Best(BaseModel):
    """The metrics of the best weights so far: those of the lowest validation loss."""

    psnr: Figure | None = Field(default=None, description="peak signal-to-noise ratio, dB")
    ssim: Figure | None = Field(default=None, description="structural similarity")
    trial: str | None = Field(default=None, description="of a sweep, the trial that they are of")
    parameters: dict[str, Any] | None = Field(default=None, description="and its parameters")


class Progress(BaseModel):
    """How far a job is, told from its folder."""

    unit: Unit = Field(description="what is counted")
    done: int = Field(default=0, description="so many are finished")
    total: int | None = Field(default=None, description="of so many")
    rows: list[dict[str, Any]] = Field(
        default=[],
        description="one each: losses, PSNR and SSIM of an epoch; figures of a trial, or of a method; a slab",
    )
    best: Best = Field(default=Best(), description="the best metrics so far")
    model: bool = Field(default=False, description="whether a model is there that can serve")
    picture: bool = Field(default=False, description="whether GET /jobs/{id}/newest has a picture")
    reports: list[str] = Field(default=[], description="places whose report GET /report gives")
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
    place: str = Field(description="the folder of its results, or the volume")


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


def read_progress(
    kind: Kind, place: str, config: dict[str, Any], open_place: Callable[[str], Folder] = open_folder
) -> Progress:
    """How far the job with these settings and results is. What cannot be read is said in `problem`, never raised."""
    read = {
        "train": _read_training,
        "sweep": _read_sweep,
        "evaluate": _read_evaluation,
        "reconstruct": _read_volume,
    }[kind]
    try:
        folder = open_place(place)
        progress = read(folder, config)
        if kind != "reconstruct":  # which makes a file
            progress.model = kind != "evaluate" and has_model(folder)
            progress.picture = folder.has(NEWEST)
            progress.reports = reports_in(folder)
        return Progress.model_validate(showable(progress.model_dump()))
    except Exception as error:  # whatever somebody has made of the files
        why = str(error) if isinstance(error, FbpRayError) else what_is_wrong(error)
        return Progress(unit=UNITS[kind], problem=showable(f"{place} cannot be read: {why}"))


def has_model(folder: Folder) -> bool:
    """Whether a run or a sweep has weights that can serve."""
    return (folder / "best").has(MANIFEST)


def reports_in(folder: Folder) -> list[str]:
    """The places in a folder that have a report: itself, and the evaluations in it."""
    inner = [folder, *(folder / name for name in sorted(folder.folders()) if name.startswith("evaluation"))]
    return [without_secrets(str(place)) for place in inner if report_of(place)]


def report_of(folder: Folder) -> str:
    """The name of the report in a folder; empty where there is none."""
    return next((name for name in REPORTS if folder.has(name)), "")


def how_to_resume(kind: Kind, progress: Progress) -> str:
    """What to do about a job that was lost."""
    if kind == "evaluate":
        return "submit it again (POST its `request` to /jobs, with another `out`)"
    if kind == "reconstruct":
        return "submit it again (POST its `request` to /jobs) to do the slabs that lack"
    first = f"from {progress.unit} {progress.done + 1}" if progress.done else "from its begin"
    return f"submit it again (POST its `request` to /jobs) to go on {first}"


def _read_training(folder: Folder, config: dict[str, Any]) -> Progress:
    run = summary(folder)
    return Progress(
        unit="epoch",
        done=run.epochs_done,
        total=run.epochs or on_recipe(TrainConfig, config).train.epochs,
        rows=[
            {name: int(value) if name in ("epoch", "workers") else _finite(value) for name, value in row.items()}
            for row in RunFolder(folder).read_history()
        ],
        best=Best(psnr=_best_of_run(run.psnr), ssim=_best_of_run(run.ssim)),
        problem=run.reason if run.state == "damaged" else "",
    )


def _read_sweep(place: Folder, config: dict[str, Any]) -> Progress:
    folder = SweepFolder(place)
    tree = on_recipe(SweepTree, config)
    sweep = folder.run.read_json(SWEEP)
    if sweep is None or folder.run.read_json("baseline.json") is None:
        return Progress(unit="trial", total=tree.sweep.trials)
    results = read_results(folder, list(sweep["space"]), tree.sweep.metric)

    def ended(trial: Outcome) -> tuple[bool, datetime | None, int]:
        changed = folder.trial(trial.number).folder.changed("status.json")
        return changed is None, changed, trial.number

    finished = [trial for trial in results.outcomes if trial.status in FINISHED]
    rows = [  # in the order in which they ended, so that one that ends is the last
        {
            "trial": trial.name,
            "status": trial.status,
            "parameters": trial.parameters,
            "merit": _finite(results.objectives.get(trial.number)),
            "psnr": _finite(trial.metrics.get("psnr")),
            "ssim": _finite(trial.metrics.get("ssim")),
            "epochs": trial.epochs,
            "reason": trial.reason,
        }
        for trial in sorted(finished, key=ended)
    ]
    best = Best()
    if results.ranked:
        first = results.ranked[0]

        def figure(name: FigureName) -> Figure:
            value = first.metrics[name]
            return _figure(value, results.baseline.gain(name, value), first.best_epoch)

        best = Best(psnr=figure("psnr"), ssim=figure("ssim"), trial=first.name, parameters=first.parameters)
    return Progress(unit="trial", done=len(rows), total=tree.sweep.trials, rows=rows, best=best)


def _read_evaluation(folder: Folder, config: dict[str, Any]) -> Progress:
    if not folder.has("metrics.json"):
        return Progress(unit="evaluation", total=1)
    read: dict[str, dict[str, float | None]] = json.loads(folder.read("metrics.json"))
    figures = {
        method: {name: math.nan if value is None else value for name, value in row.items()}
        for method, row in read.items()
    }
    if "psnr" not in figures["learned"]:  # without ground truth
        rows = [
            {"method": method} | {name: _finite(value) for name, value in row.items()}
            for method, row in figures.items()
        ]
        return Progress(unit="evaluation", done=1, total=1, rows=rows)
    psnr, ssim = (
        _figure(figures["learned"][name], figures["learned"][name] - figures[f"hann_{name}"][name])
        for name in ("psnr", "ssim")
    )
    rows = [
        {"method": method} | {name: _finite(value) for name, value in row.items()} for method, row in figures.items()
    ]
    return Progress(unit="evaluation", done=1, total=1, rows=rows, best=Best(psnr=psnr, ssim=ssim))


def _read_volume(volume: Folder, config: dict[str, Any]) -> Progress:
    """How many slabs are there while the volume is made; done when it has its name."""
    from fbp_ray.reconstruct.partial import DONE, PLAN
    from fbp_ray.reconstruct.plan import Plan

    partial = volume.parent / f"{volume.name}.partial"
    if not partial.has(PLAN):
        return Progress(unit="volume", done=int(volume.exists()), total=1)
    plan = Plan.model_validate_json(partial.read(PLAN))
    done = len((partial / DONE).names())
    rows = [{"slab": number, "of": plan.slabs} for number in range(1, done + 1)]
    return Progress(unit="slab", done=done, total=plan.slabs, rows=rows)


def _best_of_run(best: BestOfRun | None) -> Figure | None:
    return best and _figure(best.value, best.gain, best.epoch)


def _figure(value: float, gain: float | None, epoch: int | None = None) -> Figure:
    return Figure(value=_finite(value), epoch=epoch, over_fbp=_finite(gain))


def _finite(value: Any) -> Any:
    """A value as JSON may hold it: None for a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def showable(value: Any) -> Any:
    """A value from elsewhere as JSON in UTF-8 may hold it: what has no place there is replaced."""
    if isinstance(value, dict):
        return {showable(key): showable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [showable(inner) for inner in value]
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else _finite(value)
