"""What a sweep has found, told from the folders of its trials alone: a table, the best checkpoint and its settings."""

from __future__ import annotations

import csv
import io
from typing import Any, NamedTuple

import yaml

from fbp_ray.baseline import Baseline
from fbp_ray.checkpoint import Checkpoint, read_manifest, write_checkpoint
from fbp_ray.errors import RunError
from fbp_ray.run import RunFolder
from fbp_ray.sweep.folder import Outcome, SweepFolder
from fbp_ray.sweep.objective import Metric, on_front

CONFIG = "best_config.yaml"
NOT_OF_THE_MODEL = ("run", "ray", "scaling", "track")


class Results(NamedTuple):
    """The trials of a sweep, and how good each is."""

    keys: list[str]
    """Of the search space."""

    metric: Metric
    baseline: Baseline
    outcomes: list[Outcome]
    """By number."""

    merits: dict[int, float]
    """By number, of the trials that are to be ranked."""

    front: set[int]
    """The numbers of those that no other beats in PSNR and SSIM at once."""

    @property
    def ranked(self) -> list[Outcome]:
        """The trials that are to be ranked, the best in front."""
        found = [outcome for outcome in self.outcomes if outcome.number in self.merits]
        return sorted(found, key=lambda outcome: -self.merits[outcome.number])


def read_results(folder: SweepFolder, keys: list[str], metric: Metric) -> Results:
    """The results so far."""
    outcomes, baseline = folder.outcomes(), folder.baseline
    merits = {outcome.number: outcome.merit(metric, baseline) for outcome in outcomes}
    known = {number: value for number, value in merits.items() if value is not None}
    there = [outcome for outcome in outcomes if outcome.number in known]
    flags = on_front([(outcome.metrics["psnr"], outcome.metrics["ssim"]) for outcome in there])
    front = {outcome.number for outcome, flag in zip(there, flags, strict=True) if flag}
    return Results(keys, metric, baseline, outcomes, known, front)


def write_results(folder: SweepFolder, results: Results) -> None:
    """Writes results.csv, and best/ and best_config.yaml of the best trial so far, if there is one.

    Raises:
        RunError: they cannot be written.
    """
    try:
        folder.folder.write("results.csv", as_csv(results))
        if results.ranked:
            best = folder.trial(results.ranked[0].number)
            _copy_checkpoint(best, folder)
            folder.folder.write(CONFIG, _settings(best))
    except OSError as error:
        raise RunError(f"the results cannot be written to {folder}: {error}; the trials themselves are kept") from None


def as_csv(results: Results) -> str:
    """A trial a row, the best in front, those without a merit last."""
    names = list(dict.fromkeys(name for outcome in results.outcomes for name in outcome.metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    about = ["status", "merit", "pareto", "best_epoch", "epochs", "seconds"]
    writer.writerow(["trial", *results.keys, *about, *(f"validation_{name}" for name in names), "reason"])
    for outcome in ranked_and_others(results):
        writer.writerow(
            [
                outcome.name,
                *(outcome.parameters[key] for key in results.keys),
                outcome.status,
                results.merits.get(outcome.number, ""),
                int(outcome.number in results.front),
                outcome.best_epoch or "",
                outcome.epochs,
                f"{outcome.seconds:.3f}",
                *(outcome.metrics.get(name, "") for name in names),
                outcome.reason,
            ]
        )
    return text.getvalue()


def ranked_and_others(results: Results) -> list[Outcome]:
    """All trials: the best in front, then those without a merit."""
    return results.ranked + [outcome for outcome in results.outcomes if outcome.number not in results.merits]


def _copy_checkpoint(best: RunFolder, folder: SweepFolder) -> None:
    manifest = read_manifest(best.best)
    contents = {role: best.best.read(name) for role, name in manifest.files.items()}
    write_checkpoint(folder.run.best, Checkpoint(manifest, contents))


def _settings(run: RunFolder) -> str:
    """The settings of a trial, as `python -m fbp_ray.train --config` takes them."""
    settings: dict[str, Any] = yaml.safe_load(run.folder.read("config.yaml"))
    kept = {name: part for name, part in settings.items() if name not in NOT_OF_THE_MODEL}
    return yaml.safe_dump(kept, sort_keys=False)
