"""The folder of a sweep, and what its trials have left in it: the only record that a sweep goes on from.

STORAGE/NAME/
  sweep.json        the settings that all trials share, the search space, and which process has the sweep
  baseline.json     the classic FBP on the validation part, the same for all trials
  trials/0007/      a run folder (fbp_ray.run), and trial.json: the parameters of this trial
  results.csv, best/, best_config.yaml, *.png, index.html   (fbp_ray.sweep.results)
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from fbp_ray.baseline import Baseline
from fbp_ray.checkpoint import MANIFEST, read_manifest
from fbp_ray.config import TrainConfig
from fbp_ray.errors import CheckpointError, RunError
from fbp_ray.run import RunFolder, State, is_alive, this_process
from fbp_ray.settings import flatten
from fbp_ray.storage import Place, open_folder
from fbp_ray.sweep.config import SweepTree, training_config
from fbp_ray.sweep.objective import Metric, merit
from fbp_ray.sweep.space import Parameters, Space

SWEEP = "sweep.json"
TRIAL = "trial.json"
BASELINE = "baseline.json"
FINISHED = ("completed", "stopped", "failed")


class Outcome(NamedTuple):
    """What a trial's folder says."""

    number: int
    parameters: Parameters
    status: str
    """completed, stopped (early), failed, or running: it is, or it was interrupted."""

    reason: str
    epochs: int
    seconds: float
    """Of its epochs."""

    history: list[dict[str, float]]
    best_epoch: int | None
    metrics: dict[str, float]
    """Of its best checkpoint, on the validation part; nothing where there is none."""

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.number:04d}"

    def merit(self, metric: Metric, baseline: Baseline) -> float | None:
        """What it is ranked by; None where it has failed, or has not ended."""
        if self.status not in ("completed", "stopped") or not self.metrics:
            return None
        return merit(metric, self.metrics["psnr"], self.metrics["ssim"], baseline)


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
        """Makes the folder, or takes up one of the same settings and space.

        Raises:
            RunError: another process has the sweep, it has other settings, or the folder cannot be used.
        """
        try:
            mine = self.check_resumable(tree, space)
            mine["owner"] = this_process()
            self.run.write_json(SWEEP, mine)
        except OSError as error:
            raise RunError(f"the folder {self} cannot be used: {error}; choose another --sweep.storage") from None

    def check_resumable(self, tree: SweepTree, space: Space) -> dict[str, Any]:
        """What `begin` finds out before it changes anything: raises the same, and OSError; returns what to record."""
        if not self.folder.has(SWEEP) and (self.folder.names() or self.folder.folders()):
            raise RunError(f"{self} exists and is no sweep; choose another --sweep.name or --sweep.storage")
        known = self.run.read_json(SWEEP) or {}
        owner = known.get("owner", {})
        if owner.get("pid") != os.getpid() and is_alive(owner):
            raise RunError(
                f"the process {owner['pid']} on this machine is at work on {self}; wait for it or stop it, or "
                "choose another --sweep.name"
            )
        mine = {"settings": _shared(tree, space), "space": {key: repr(values) for key, values in space.items()}}
        for part, content in mine.items():
            if part in known and known[part] != content:
                changed = [key for key in {**known[part], **content} if known[part].get(key) != content.get(key)]
                raise RunError(
                    f"the sweep {self} was begun with other {part} ({', '.join(sorted(changed))}); give the same, "
                    "or choose another --sweep.name"
                )
        return mine

    @property
    def baseline(self) -> Baseline:
        """The figures of the classic FBP."""
        found = self.run.read_json(BASELINE)
        if found is None:
            raise RunError(f"{self} has no {BASELINE}; give the command of the sweep again, which makes it")
        return Baseline.model_validate(found)

    def trial(self, number: int, session: str = "") -> RunFolder:
        """The run folder of a trial."""
        return RunFolder(self.trials / f"{number:04d}", session)

    def begin_trial(self, tree: SweepTree, number: int, parameters: Parameters) -> tuple[RunFolder, TrainConfig]:
        """Makes a trial's folder, or takes it up, with what it shares with the others; also its configuration."""
        run = self.trial(number)
        config = training_config(tree, parameters)
        name = {"name": run.folder.name, "storage": str(self.trials.absolute())}
        config = run.begin(config.model_copy(update={"run": config.run.model_copy(update=name)}))
        run.write_json(BASELINE, self.baseline.model_dump())
        run.write_json(TRIAL, {"number": number, "parameters": parameters})
        return run, config

    def end_trial(self, number: int, state: State, reason: str = "") -> None:
        """Says in a trial's folder how it ended."""
        self.trial(number).set_status(state, reason)

    def outcomes(self) -> list[Outcome]:
        """All trials that were begun, by number."""
        found = []
        for name in self.trials.folders():
            run = RunFolder(self.trials / name)
            known = run.read_json(TRIAL) if name.isdigit() else None
            if known is not None:
                found.append(_outcome(run, int(name), known["parameters"]))
        return sorted(found, key=lambda outcome: outcome.number)


def _outcome(run: RunFolder, number: int, parameters: Parameters) -> Outcome:
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
    return Outcome(
        number=number,
        parameters=parameters,
        status=state,
        reason=reason,
        epochs=len(history),
        seconds=sum(row["seconds"] for row in history),
        history=history,
        best_epoch=epoch,
        metrics=metrics,
    )


def _shared(tree: SweepTree, space: Space) -> dict[str, Any]:
    """The settings that all trials of a sweep must have in common, by key."""
    left_out = {"run", "scaling", "ray", "track", "sweep"}
    return {
        key: value for key, value in flatten(tree.model_dump(mode="json", exclude=left_out)).items() if key not in space
    }
