"""The folder of a sweep: the only record that a sweep goes on from, and what it has found.

STORAGE/NAME/
  sweep.json        the settings that all trials share, the search space, and which process has the sweep
  baseline.json     the classic FBP on the validation part, the same for all trials
  trials/0007/      a run folder (fbp_ray.run), and trial.json: the parameters of this trial
  results.csv       a trial a row, the best first
  best/             the checkpoint of the best trial; best_config.yaml: its settings
  *.png, index.html (fbp_ray.sweep.report)
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml

from fbp_ray.baseline import Baseline
from fbp_ray.checkpoint import MANIFEST, Checkpoint, read_manifest, write_checkpoint
from fbp_ray.errors import CheckpointError, RunError
from fbp_ray.run import ResolvedConfig, RunFolder, epochs_of, is_alive, this_process
from fbp_ray.settings import flatten
from fbp_ray.storage import Place, is_begun, open_folder
from fbp_ray.sweep.config import Metric, SweepTree, objective, training_config
from fbp_ray.sweep.space import Parameters, Space, describe

SWEEP = "sweep.json"
TRIAL = "trial.json"
BASELINE = "baseline.json"
BEST_CONFIG = "best_config.yaml"
FINISHED = ("completed", "stopped", "failed")
NOT_IN_BEST_CONFIG = ("run", "ray", "scaling", "track")


class Outcome(NamedTuple):
    """What a trial's folder says."""

    number: int
    parameters: Parameters
    status: str
    """completed, stopped (early), failed, or running: it is, or it was interrupted."""

    reason: str
    epochs: int
    seconds: float
    """The time that its epochs took."""

    history: list[dict[str, float]]
    best_epoch: int | None
    metrics: dict[str, float]
    """Validation figures of its best checkpoint; empty where there is none."""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.number:04d}"

    def objective(self, metric: Metric, baseline: Baseline) -> float | None:
        """The figure it is ranked by; None where it has failed, or has not ended."""
        if self.status not in ("completed", "stopped") or not {"psnr", "ssim"} <= self.metrics.keys():
            return None
        return objective(metric, self.metrics["psnr"], self.metrics["ssim"], baseline)


class SweepFolder:
    """The folder of one sweep.

    Args:
        place: STORAGE/NAME, a path or a URI.
    """

    def __init__(self, place: Place) -> None:
        self.folder = open_folder(place)
        self.trials = self.folder / "trials"
        self.run = RunFolder(self.folder)  # for the files that a run folder has too

    def __str__(self) -> str:
        return str(self.folder)

    def begin(self, tree: SweepTree, space: Space) -> None:
        """Makes the folder, or takes over one of the same settings and space.

        Raises:
            RunError: another process has the sweep, it has other settings, or the folder cannot be used.
        """
        try:
            record = self.check_resumable(tree, space)
            record["owner"] = this_process()
            self.run.write_json(SWEEP, record)
        except OSError as error:
            raise RunError(f"the folder {self} cannot be used: {error}; choose another --sweep.storage") from None

    def check_resumable(self, tree: SweepTree, space: Space) -> dict[str, Any]:
        """Checks what `begin` checks and changes nothing; raises the same, and OSError. Returns what to record."""
        if not self.folder.has(SWEEP) and is_begun(self.folder):
            raise RunError(f"{self} exists and is no sweep; choose another --sweep.name or --sweep.storage")
        known = self.run.read_json(SWEEP) or {}
        owner = known.get("owner", {})
        if owner.get("pid") != os.getpid() and is_alive(owner):
            raise RunError(
                f"the process {owner['pid']} on this machine is at work on {self}; wait for it or stop it, or "
                "choose another --sweep.name"
            )
        record = {
            "settings": _shared_settings(tree, space),
            "space": {key: describe(values) for key, values in space.items()},
        }
        for part, content in record.items():
            if part in known and known[part] != content:
                changed = [key for key in {**known[part], **content} if known[part].get(key) != content.get(key)]
                raise RunError(
                    f"the sweep {self} was begun with other {part} ({', '.join(sorted(changed))}); give the same, "
                    "or choose another --sweep.name"
                )
        return record

    @property
    def baseline(self) -> Baseline:
        """The figures of the classic FBP."""
        found = self.run.read_json(BASELINE)
        if found is None:
            raise RunError(f"{self} has no {BASELINE}; give the command of the sweep again, which makes it")
        return Baseline.model_validate(found)

    def trial(self, number: int) -> RunFolder:
        """The run folder of a trial."""
        return RunFolder(self.trials / f"{number:04d}")

    def begin_trial(self, tree: SweepTree, number: int, parameters: Parameters) -> tuple[RunFolder, ResolvedConfig]:
        """Makes a trial's run folder, or takes over one that was interrupted; returns its configuration too."""
        run = self.trial(number)
        if not run.folder.has(TRIAL):  # which is written last: a process was killed while it made this folder
            for name in run.folder.names():
                run.folder.remove(name)
        config = run.begin(run_config(tree, parameters, run))
        run.write_json(BASELINE, self.baseline.model_dump())
        run.write_json(TRIAL, {"number": number, "parameters": parameters})
        return run, config

    def outcomes(self) -> list[Outcome]:
        """All trials that were begun, by number."""
        names = sorted((name for name in self.trials.folders() if name.isdigit()), key=int)
        return [outcome for name in names if (outcome := self.outcome(int(name))) is not None]

    def outcome(self, number: int) -> Outcome | None:
        """What a trial's folder says; None where the trial was not begun."""
        run = self.trial(number)
        trial = run.read_json(TRIAL)
        if trial is None:
            return None
        status = run.status()
        state, reason = str(status.get("state", "running")), str(status.get("reason", ""))
        epoch, metrics = None, {}
        try:
            if run.best.has(MANIFEST):
                manifest = read_manifest(run.best)
                epoch, metrics = manifest.epoch, manifest.metrics
        except CheckpointError as error:
            state, reason = "failed", str(error)
        history = run.read_history()
        seconds = sum(row["seconds"] for row in history)
        return Outcome(
            number,
            trial["parameters"],
            state,
            reason,
            epochs_of(history),
            seconds,
            history,
            best_epoch=epoch,
            metrics=metrics,
        )


def _shared_settings(tree: SweepTree, space: Space) -> dict[str, Any]:
    """The settings that all trials of a sweep have in common, by key."""
    left_out = {"run", "scaling", "ray", "track", "sweep"}
    settings = flatten(tree.model_dump(mode="json", exclude=left_out))
    return {key: value for key, value in settings.items() if key not in space}


class Results(NamedTuple):
    """The trials of a sweep, and how good each is."""

    keys: list[str]
    """The keys of the search space."""

    log_keys: set[str]
    """Those that are searched evenly in the logarithm."""

    metric: Metric
    baseline: Baseline
    outcomes: list[Outcome]
    """By number."""

    objectives: dict[int, float]
    """What the trials are ranked by, by number; without those that failed or have not ended."""

    front: set[int]
    """The numbers of the trials that no other beats in PSNR and SSIM at once."""

    @property
    def ranked(self) -> list[Outcome]:
        """The trials that are ranked, the best first."""
        found = [outcome for outcome in self.outcomes if outcome.number in self.objectives]
        return sorted(found, key=lambda outcome: -self.objectives[outcome.number])

    @property
    def ranked_and_others(self) -> list[Outcome]:
        """All trials: those that are ranked, the best first, then the others."""
        return self.ranked + [outcome for outcome in self.outcomes if outcome.number not in self.objectives]


def read_results(folder: SweepFolder, keys: list[str], metric: Metric) -> Results:
    """The results so far, from the folders of the trials alone."""
    outcomes, baseline = folder.outcomes(), folder.baseline
    found = {outcome.number: outcome.objective(metric, baseline) for outcome in outcomes}
    objectives = {number: value for number, value in found.items() if value is not None}
    ranked = [outcome for outcome in outcomes if outcome.number in objectives]
    flags = pareto_front([(outcome.metrics["psnr"], outcome.metrics["ssim"]) for outcome in ranked])
    front = {outcome.number for outcome, flag in zip(ranked, flags, strict=True) if flag}
    space = (folder.run.read_json(SWEEP) or {}).get("space", {})
    log_keys = {key for key, values in space.items() if values.startswith("LogRange")}
    return Results(keys, log_keys, metric, baseline, outcomes, objectives, front)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points of (PSNR, SSIM) are on the Pareto front: no other is as good in both and better in one."""
    return [
        not any(q[0] >= p[0] and q[1] >= p[1] and (q[0] > p[0] or q[1] > p[1]) for q in points if q is not p)
        for p in points
    ]


def write_results(folder: SweepFolder, results: Results) -> None:
    """Writes results.csv, and best/ and best_config.yaml of the best trial so far, if there is one.

    Raises:
        RunError: they cannot be written.
    """
    try:
        folder.folder.write("results.csv", _as_csv(results))
        if results.ranked:
            best = folder.trial(results.ranked[0].number)
            manifest = read_manifest(best.best)
            contents = {role: best.best.read(name) for role, name in manifest.files.items()}
            write_checkpoint(folder.run.best, Checkpoint(manifest, contents))
            folder.folder.write(BEST_CONFIG, _settings(best))
    except OSError as error:
        raise RunError(f"the results cannot be written to {folder}: {error}; the trials themselves are kept") from None


def _as_csv(results: Results) -> str:
    names = list(dict.fromkeys(name for outcome in results.outcomes for name in outcome.metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    about = ["status", "merit", "pareto", "best_epoch", "epochs", "seconds"]
    writer.writerow(["trial", *results.keys, *about, *(f"validation_{name}" for name in names), "reason"])
    for outcome in results.ranked_and_others:
        writer.writerow(
            [
                outcome.name,
                *(outcome.parameters[key] for key in results.keys),
                outcome.status,
                results.objectives.get(outcome.number, ""),
                int(outcome.number in results.front),
                outcome.best_epoch or "",
                outcome.epochs,
                f"{outcome.seconds:.3f}",
                *(outcome.metrics.get(name, "") for name in names),
                outcome.reason,
            ]
        )
    return text.getvalue()


def _settings(run: RunFolder) -> str:
    """The settings of a trial, as `python -m fbp_ray.train --config` takes them."""
    settings: dict[str, Any] = yaml.safe_load(run.folder.read("config.yaml"))
    return yaml.safe_dump(
        {name: part for name, part in settings.items() if name not in NOT_IN_BEST_CONFIG}, sort_keys=False
    )


def run_config(tree: SweepTree, parameters: Parameters, run: RunFolder) -> ResolvedConfig:
    """The configuration of a training in a run folder of the sweep; `tree` has been resolved."""
    config = training_config(tree, parameters).model_dump()
    config["run"] |= {"name": run.folder.name, "storage": str(run.folder.parent.absolute())}
    return ResolvedConfig.model_validate(config)
