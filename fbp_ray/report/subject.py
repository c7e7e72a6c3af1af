"""What a report is about: a run, its checkpoint and an evaluation, as far as they are there and can be read."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray

from fbp_ray.baseline import Baseline
from fbp_ray.checkpoint import MANIFEST, Manifest, load_model, read_manifest
from fbp_ray.errors import CheckpointError, FbpRayError
from fbp_ray.model import LearnableFBP
from fbp_ray.run import RunFolder
from fbp_ray.runs import Run, summary
from fbp_ray.settings import as_text, this_python, what_is_wrong
from fbp_ray.shipped import is_shipped, open_place, shipped_models
from fbp_ray.storage import Folder, Place, open_folder

T = TypeVar("T")

EVALUATION, METRICS, MEASURED, KEPT = "evaluation.json", "metrics.json", "measured.json", "images.npz"
"""The files of an evaluation that a report reads."""

PREFERRED = ("evaluation-test", "evaluation-validation", "evaluation-train")


class Evaluation(NamedTuple):
    """What is in an evaluation's files."""

    folder: Folder
    about: dict[str, Any]
    metrics: dict[str, dict[str, float | None]]
    measured: dict[str, Any]
    images: dict[str, NDArray[np.floating[Any]]]

    def title(self, method: str) -> str:
        """What a method is called."""
        return str(self.about.get("titles", {}).get(method, method))

    def figure(self, method: str, figure: str) -> float | None:
        """The mean of a figure; None where there is none."""
        return self.metrics.get(method, {}).get(figure)


class Subject(NamedTuple):
    """One run of a report. What cannot be read is None or empty, and `problems` says why."""

    name: str
    place: Folder
    """Where its report goes."""

    given: str
    """What the evaluate command takes for it."""

    summary: Run | None
    config: dict[str, Any]
    history: list[dict[str, float]]
    baseline: Baseline | None
    versions: dict[str, Any]
    manifest: Manifest | None
    model: LearnableFBP | None
    evaluation: Evaluation | None
    problems: list[str]

    @property
    def data(self) -> dict[str, Any]:
        """What is known of the data that it was trained on."""
        return self.manifest.data if self.manifest else dict(self.config.get("data") or {})

    @property
    def cutoffs(self) -> list[float]:
        """Of the Hanns that it is compared with."""
        about = self.evaluation.about if self.evaluation else {}
        found = [about.get("hann_psnr_cutoff"), about.get("hann_ssim_cutoff")]
        if self.baseline and None in found:
            found = [self.baseline.hann_psnr_cutoff, self.baseline.hann_ssim_cutoff]
        return sorted({cutoff for cutoff in found if isinstance(cutoff, int | float)})

    @property
    def parameters(self) -> int | None:
        """How many numbers were learned."""
        return None if self.model is None else sum(parameter.numel() for parameter in self.model.parameters())

    def evaluate(self) -> str:
        """The command that evaluates it."""
        data = "" if self.data.get("dir") else " --data.dir DIR"
        again = " --overwrite" if self.evaluation else ""
        return f"{this_python()} -m fbp_ray.evaluate --checkpoint {self.given}{data}{again}"


def read_subject(place: Place) -> Subject:
    """Reads a run folder, a checkpoint folder, an evaluation's folder, or a model that comes with the package.

    Raises:
        CheckpointError: the place is none of these.
    """
    folder = open_place(place)
    evaluation: Folder | None = None
    problems: list[str] = []
    try:
        if folder.has(EVALUATION):
            evaluation = folder
            about = _json(folder, EVALUATION, problems)
            folder = open_folder(str(about["checkpoint"])) if isinstance(about.get("checkpoint"), str) else folder
            if not folder.exists():
                problems.append(f"the checkpoint {folder} is no longer there")
        run = next((one for one in (folder, folder.parent) if _is_run(one)), None)
        checkpoint = next((one for one in (folder, folder / "best", folder / "last") if one.has(MANIFEST)), None)
    except OSError as error:
        raise CheckpointError(f"{place} cannot be read: {error}") from None
    if run is None and checkpoint is None and evaluation is None:
        there = "is neither a run nor a checkpoint nor an evaluation" if folder.exists() else "does not exist"
        raise CheckpointError(
            f"{place} {there}; give a run folder (runs/NAME), or the name of a "
            f"model that comes with fbp-ray: {', '.join(shipped_models())}"
        )
    shipped = folder.name if is_shipped(folder.name) and str(open_place(folder.name)) == str(folder) else None
    beside = open_folder("runs") / shipped if shipped else run or folder
    if evaluation is None:
        found = [name for name in beside.folders() if (beside / name).has(EVALUATION)]
        found.sort(key=lambda name: (PREFERRED.index(name) if name in PREFERRED else len(PREFERRED), name))
        evaluation = beside / found[0] if found else None
    return _read(shipped, beside, run, checkpoint, evaluation, problems)


def _read(
    shipped: str | None,
    place: Folder,
    run: Folder | None,
    checkpoint: Folder | None,
    evaluation: Folder | None,
    problems: list[str],
) -> Subject:
    def attempt(read: Callable[[], T], what: str) -> T | None:
        try:
            return read()
        except FbpRayError as error:
            problems.append(str(error))
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            problems.append(f"{what} cannot be read: {what_is_wrong(error)}")
        return None

    known = summary(run) if run else None
    folder = RunFolder(run) if run else None
    config = baseline = None
    if run and run.has("config.yaml"):
        config = attempt(lambda: dict(yaml.safe_load(run.read("config.yaml"))), "config.yaml")
    if run and run.has("baseline.json"):
        content = attempt(lambda: as_text(run.read("baseline.json")), "baseline.json")
        baseline = attempt(lambda: Baseline.model_validate_json(content or ""), "baseline.json")
    history = attempt(folder.read_history, "history.csv") if folder else None
    versions = attempt(lambda: folder.read_json("versions.json"), "versions.json") if folder else None
    manifest = attempt(lambda: read_manifest(checkpoint), "the checkpoint") if checkpoint else None
    model = attempt(lambda: load_model(checkpoint), "the checkpoint") if checkpoint and manifest else None
    return Subject(
        name=shipped or place.name,
        place=place,
        given=shipped or str(run or checkpoint or place),
        summary=known,
        config=config or {},
        history=history or [],
        baseline=baseline,
        versions=versions or (manifest.versions if manifest else {}),
        manifest=manifest,
        model=model,
        evaluation=_read_evaluation(evaluation, problems) if evaluation else None,
        problems=problems,
    )


def _read_evaluation(folder: Folder, problems: list[str]) -> Evaluation:
    images: dict[str, NDArray[np.floating[Any]]] = {}
    if folder.has(KEPT):
        try:
            archive = np.load(io.BytesIO(folder.read(KEPT)), allow_pickle=False)
            images = {name: archive[name] for name in archive.files}
        except Exception as error:  # of zip files and arrays almost anything is raised
            problems.append(f"{folder}/{KEPT} cannot be read ({type(error).__name__}); evaluate again")
    about, metrics, measured = (_json(folder, name, problems) for name in (EVALUATION, METRICS, MEASURED))
    return Evaluation(folder, about, metrics, measured, images)


def _json(folder: Folder, name: str, problems: list[str]) -> dict[str, Any]:
    """The content of a file; nothing where it is missing or damaged."""
    if not folder.has(name):
        return {}
    try:
        return dict(json.loads(folder.read(name)))
    except (OSError, TypeError, ValueError) as error:
        problems.append(f"{folder}/{name} cannot be read: {what_is_wrong(error)}; evaluate again")
        return {}


def _is_run(folder: Folder) -> bool:
    return folder.has("config.yaml") or folder.has("status.json")
