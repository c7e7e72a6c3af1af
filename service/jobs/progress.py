"""How far a job is, told from its folder: the record of the run, the sweep or the evaluation itself."""

from __future__ import annotations

import json
import math
from typing import Any

from fbp_ray.cli import on_recipe
from fbp_ray.config import TrainConfig
from fbp_ray.errors import FbpRayError
from fbp_ray.run import RunFolder
from fbp_ray.runs import Best as BestOfRun
from fbp_ray.runs import summary
from fbp_ray.storage import open_folder
from fbp_ray.sweep.config import SweepTree
from fbp_ray.sweep.folder import FINISHED, SWEEP, SweepFolder, read_results
from service.jobs.documents import Best, Figure, Progress
from service.jobs.store import Job


def read_progress(job: Job) -> Progress:
    """How far a job is; what cannot be read is said in it, never raised."""
    read, unit = {
        "train": (_of_training, "epoch"),
        "sweep": (_of_sweep, "trial"),
        "evaluate": (_of_evaluation, "evaluation"),
    }[job.kind]
    try:
        return read(job)
    except (FbpRayError, OSError, ValueError, KeyError, TypeError) as error:
        return Progress(unit=unit, problem=f"{job.place} cannot be read: {error}")


def _of_training(job: Job) -> Progress:
    folder = open_folder(job.place)
    found = summary(folder)
    total = found.epochs or on_recipe(TrainConfig, job.request["config"]).train.epochs
    rows = [_finite(row) for row in RunFolder(folder).read_history()]
    best = Best(psnr=_figure(found.psnr), ssim=_figure(found.ssim))
    problem = found.reason if found.state == "damaged" else ""
    return Progress(unit="epoch", done=found.epochs_done, total=total, rows=rows, best=best, problem=problem)


def _of_sweep(job: Job) -> Progress:
    folder = SweepFolder(job.place)
    tree = on_recipe(SweepTree, job.request["config"])
    known = folder.run.read_json(SWEEP)
    if known is None or folder.run.read_json("baseline.json") is None:
        return Progress(unit="trial", total=tree.sweep.trials)
    results = read_results(folder, list(known["space"]), tree.sweep.metric)
    rows = [
        _finite(
            {
                "trial": outcome.name,
                "status": outcome.status,
                "parameters": outcome.parameters,
                "merit": results.objectives.get(outcome.number),
                "psnr": outcome.metrics.get("psnr"),
                "ssim": outcome.metrics.get("ssim"),
                "epochs": outcome.epochs,
                "reason": outcome.reason,
            }
        )
        for outcome in results.outcomes
        if outcome.status in FINISHED
    ]
    best = Best()
    if results.ranked:
        first = results.ranked[0]
        psnr, ssim = (
            Figure(
                value=_number(first.metrics[name]),
                epoch=first.best_epoch,
                over_fbp=_number(first.metrics[name] - results.baseline.of(name)),
            )
            for name in ("psnr", "ssim")
        )
        best = Best(psnr=psnr, ssim=ssim, trial=first.name, parameters=first.parameters)
    return Progress(unit="trial", done=len(rows), total=tree.sweep.trials, rows=rows, best=best)


def _of_evaluation(job: Job) -> Progress:
    folder = open_folder(job.place)
    if not folder.has("metrics.json"):
        return Progress(unit="evaluation", total=1)
    figures: dict[str, dict[str, float]] = json.loads(folder.read("metrics.json"))
    psnr, ssim = (
        Figure(
            value=_number(figures["learned"][name]),
            over_fbp=_number(figures["learned"][name] - figures[f"hann_{name}"][name]),
        )
        for name in ("psnr", "ssim")
    )
    rows = [_finite({"method": method, **row}) for method, row in figures.items()]
    return Progress(unit="evaluation", done=1, total=1, rows=rows, best=Best(psnr=psnr, ssim=ssim))


def _figure(best: BestOfRun | None) -> Figure | None:
    if best is None:
        return None
    return Figure(value=_number(best.value), epoch=best.epoch, over_fbp=_number(best.gain))


def _number(value: float | None) -> float | None:
    """A number as JSON may have it."""
    return value if value is not None and math.isfinite(value) else None


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    found = {name: _number(value) if isinstance(value, float) else value for name, value in row.items()}
    return found | {name: int(row[name]) for name in ("epoch", "workers") if isinstance(row.get(name), float)}
