"""What an evaluation does: figures, pictures and a report of a trained model beside the classic FBP."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader

from fbp_ray.baseline import BestCutoffs, Quality, quality
from fbp_ray.checkpoint import Manifest, find_checkpoint, load_model, read_manifest
from fbp_ray.cli import progress
from fbp_ray.data import LoDoPaB, describe, unit_of
from fbp_ray.data.values import brightest_of
from fbp_ray.errors import CheckpointError, DataError, RunError
from fbp_ray.evaluate import EvaluateConfig
from fbp_ray.evaluate.alone import alone_table, look, refuse_what_needs_truth
from fbp_ray.evaluate.details import kept_images, measure, milliseconds, timed
from fbp_ray.evaluate.inputs import BATCH, best_cutoffs, drawn_photons, known_photons, open_part, patients_in
from fbp_ray.evaluate.scores import Scores
from fbp_ray.evaluate.submission import PART, write_submission
from fbp_ray.evaluate.tables import published_tables, results_table
from fbp_ray.model import LearnableFBP, ModelConfig, fbp
from fbp_ray.own import Figure, own_metrics
from fbp_ray.pictures import as_png, comparison, evenly_spaced, scales_for, window_figure
from fbp_ray.report.program import write_report
from fbp_ray.report.published import IMAGES, are_the_published_images
from fbp_ray.report.subject import EVALUATION, KEPT, MEASURED, METRICS
from fbp_ray.settings import as_json
from fbp_ray.shipped import shipped_models
from fbp_ray.stage_settings import WindowConfig
from fbp_ray.storage import Folder, is_begun, open_folder
from fbp_ray.train.noise import FixedNoise
from fbp_ray.versions import versions


class Method(NamedTuple):
    """One of the methods that are compared."""

    title: str
    reconstruct: Callable[[Tensor], Tensor]
    """(B, A, D) -> (B, H, W)."""


class Scored(NamedTuple):
    """What came out for one method."""

    images: list[Quality]
    own: list[tuple[float, ...]]
    """Of each image the metrics of somebody's own."""

    times: list[float]
    """Milliseconds an image of each whole batch."""


def evaluate(config: EvaluateConfig) -> None:
    """Evaluates a model, writes the results and prints them; or writes a submission.

    Raises:
        FbpRayError: the checkpoint or the data cannot be used, or the output folder has results already.
    """
    checkpoint = find_checkpoint(config.checkpoint)
    manifest = read_manifest(checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.submission is not None:
        _submit(config, load_model(checkpoint, device), manifest, config.submission, device)
        return
    beside = open_folder("runs") / config.checkpoint if config.checkpoint in shipped_models() else checkpoint.parent
    out = open_folder(config.out) if config.out else beside / f"evaluation-{config.split}"
    check_out(out, config.overwrite)
    model = load_model(checkpoint, device)
    dataset = open_part(config, manifest, config.split, needs_truth=False)
    if not dataset.truth:
        _without_truth(config, model, manifest, checkpoint, dataset, out, device)
        return
    patients = patients_in(dataset, whole=config.protocol is not None)
    cutoffs = best_cutoffs(config, manifest, checkpoint.parent, device)
    photons = known_photons(config, manifest)
    methods = _methods(model, cutoffs, config, photons, device)
    metrics = own_metrics(config.metrics)
    scored, last = _score(methods, dataset, metrics, device)
    qualities = {name: of.images for name, of in scored.items()}
    scores = {name: Scores(images, patients) for name, images in qualities.items()}
    own = {name: tuple(map(fmean, zip(*of.own, strict=True))) for name, of in scored.items()}
    without_range = sum(math.isnan(row.psnr) for row in qualities["ramp"])
    same_as_published = are_the_published_images(dataset.part, len(dataset), describe(dataset.folder))
    about = _about(manifest, checkpoint, dataset) | {
        "photons": drawn_photons(config, manifest),
        "photons_known": photons,
        "same_as_published": same_as_published,
        "protocol": config.protocol,
        "samples_without_range": without_range,
        "patients": None if patients is None else len(set(patients)),
        "intervals_95": {name: of.intervals() for name, of in scores.items()},
        "gains_95": {name: scores["learned"].intervals(of) for name, of in scores.items() if name != "learned"},
        "titles": {name: method.title for name, method in methods.items()},
        "hann_psnr_cutoff": cutoffs.psnr,
        "hann_ssim_cutoff": cutoffs.ssim,
    }
    unit = unit_of(dataset.folder)
    high = brightest_of(dataset, unit)
    pictures = _draw(dataset, config.panels, methods, qualities, high, device)
    if (window := window_figure(model.filter, model.geometry.parallel.cells, sorted({*cutoffs}))) is not None:
        pictures["window.png"] = as_png(window)
    with torch.no_grad():
        each = {name: milliseconds(one.reconstruct, scored[name].times, last, BATCH) for name, one in methods.items()}
        compared = {name: method.reconstruct for name, method in methods.items() if name != "ramp"}
        measured = measure(compared, each, BATCH, model.geometry, photons, device, unit, high)
        shown = {name: compared[name] for name in ("hann_psnr", "learned")}
        measured["shown"], kept = kept_images(dataset, shown, qualities, patients, device)

    figures = {name: of.mean._asdict() | dict(zip(metrics, own[name], strict=True)) for name, of in scores.items()}
    images_csv = _as_csv(dataset, patients, scored, metrics)
    files: dict[str, bytes | str] = {**pictures, KEPT: kept, MEASURED: as_json(measured), "images.csv": images_csv}
    report = _write(out, files | {EVALUATION: as_json(about), METRICS: as_json(figures)})
    console = Console(soft_wrap=True)
    titles = {name: method.title for name, method in methods.items()}
    console.print(results_table(config.split, titles, scores, own, tuple(metrics), config.protocol is not None))
    if config.protocol:
        console.print(*published_tables(same_as_published), sep="\n")
    if without_range:
        have, them = ("has", "it") if without_range == 1 else ("have", "them")
        console.print(
            f"{without_range} of the {len(dataset)} images {have} one value throughout: the means of PSNR and SSIM "
            f"leave {them} out, those of the fixed range do not",
            highlight=False,
        )
    console.print(f"figures  {out}/{METRICS}, {out}/images.csv", highlight=False)
    console.print("pictures " + ", ".join(f"{out}/{name}" for name in pictures), highlight=False)
    console.print(f"report   {report}", highlight=False)


def _without_truth(
    config: EvaluateConfig,
    model: LearnableFBP,
    manifest: Manifest,
    checkpoint: Folder,
    dataset: LoDoPaB,
    out: Folder,
    device: torch.device,
) -> None:
    """Evaluates a model on a part without ground truth."""
    refuse_what_needs_truth(config, dataset.folder)
    seen = look(model, dataset, config.panels, device)
    pictures = dict(seen.pictures)
    if (window := window_figure(model.filter, model.geometry.parallel.cells, [seen.cutoff])) is not None:
        pictures["window.png"] = as_png(window)
    about = _about(manifest, checkpoint, dataset) | {
        "photons": drawn_photons(config, manifest) if isinstance(dataset, FixedNoise) else None,
        "truth": False,
        "titles": seen.titles,
        "hann_risk_cutoff": seen.cutoff,
    }
    files: dict[str, bytes | str] = {**pictures, KEPT: seen.kept, MEASURED: as_json(seen.measured)}
    files |= {"risks.csv": seen.risks_csv, EVALUATION: as_json(about), METRICS: as_json(seen.metrics)}
    report = _write(out, files)
    console = Console(soft_wrap=True)
    console.print(alone_table(config.split, len(dataset), seen, model.geometry))
    console.print(f"figures  {out}/{METRICS}, {out}/risks.csv", highlight=False)
    console.print("pictures " + ", ".join(f"{out}/{name}" for name in pictures), highlight=False)
    console.print(f"report   {report}", highlight=False)


def _about(manifest: Manifest, checkpoint: Folder, dataset: LoDoPaB) -> dict[str, Any]:
    """What every evaluation.json says: of which model, on what."""
    return {
        "checkpoint": str(checkpoint.absolute()),
        "epoch": manifest.epoch,
        "data": str(dataset.folder.absolute()),
        "every": dataset.every,
        "first_angles": dataset.first_angles,
        "split": dataset.part,
        "samples": len(dataset),
        "versions": versions(),
    }


def _write(out: Folder, files: Mapping[str, bytes | str]) -> str:
    """Writes an evaluation's files in this order, and its page; gives the page's place.

    What another evaluation that is overwritten has left goes: its pictures and its table.
    """
    for name, content in files.items():
        out.write(name, content)
    for name in out.names():
        if (name.endswith(".png") or name in ("images.csv", "risks.csv")) and name not in files:
            out.remove(name)
    return write_report(out)


def _score(
    methods: Mapping[str, Method], dataset: LoDoPaB, metrics: Mapping[str, Figure], device: torch.device
) -> tuple[dict[str, Scored], Tensor]:
    """What comes out for each method, and the last batch of sinograms."""
    scored = {name: Scored([], [], []) for name in methods}
    with progress("Scoring", len(dataset) * len(methods)) as advance, torch.no_grad():
        for batch in DataLoader(dataset, BATCH):
            observation, target = batch.observation.to(device), batch.ground_truth.to(device)
            for name, method in methods.items():
                images, took = timed(method.reconstruct, observation)
                if not images.isfinite().all():
                    first = dataset.name(int(batch.index[0]))
                    raise CheckpointError(
                        f"{method.title} makes images of values that are not finite, of {first} or one of those after "
                        "it; its weights are damaged, or were made for other data"
                    )
                scored[name].images.extend(quality(images, target))
                columns = [metric(images, target).tolist() for metric in metrics.values()]
                scored[name].own.extend(zip(*columns, strict=True) if columns else [()] * len(target))
                if len(target) == BATCH:
                    scored[name].times.append(took)
                advance(len(target))
    return scored, observation


def _submit(config: EvaluateConfig, model: LearnableFBP, manifest: Manifest, path: Path, device: torch.device) -> None:
    """Writes a submission, and says that it is whole."""
    dataset = open_part(config, manifest, PART)
    if describe(dataset.folder) is None and len(dataset) != IMAGES["challenge"]:
        raise DataError(
            f"{dataset.folder} has {len(dataset)} observations of the challenge, which has {IMAGES['challenge']}; add "
            "the files that are missing"
        )
    with progress("Reconstructing", len(dataset)) as advance, torch.no_grad():

        def images() -> Iterator[NDArray[np.float32]]:
            for batch in DataLoader(dataset, BATCH):
                yield model(batch.observation.to(device)).float().cpu().numpy()
                advance(len(batch.index))

        write_submission(path, images(), len(dataset), model.geometry.image_shape, config.overwrite)
    print(f"{len(dataset)} images written to {path}")


def check_out(out: Folder, overwrite: bool) -> None:
    """Raises RunError where the folder for the results holds something that is not to be replaced."""
    if not is_begun(out):
        return
    if not out.has(EVALUATION):
        raise RunError(f"{out} holds something else than an evaluation; choose another --out, nothing was changed")
    if not overwrite:
        raise RunError(f"{out} holds results already; --overwrite replaces them, or choose another --out")


def _methods(
    model: LearnableFBP, cutoffs: BestCutoffs, config: EvaluateConfig, photons: float | None, device: torch.device
) -> dict[str, Method]:
    """The methods that are compared, by their names in metrics.json; None for photons that are not known."""

    def hann(cutoff: float, given: float | None, best: str) -> Method:
        title = f"FBP, Hann {cutoff:.2f} ({'given' if given else best})"
        return Method(title, lambda observation: fbp(observation, model.geometry, "hann", cutoff))

    window = WindowConfig(
        kind="zeng", init="hann", cutoff=cutoffs.psnr, photons=photons or "estimate", unit=model.config.window.unit
    )
    zeng = LearnableFBP(ModelConfig(geometry=model.geometry, window=window)).eval().to(device)
    return {
        "ramp": Method("FBP, ramp", lambda observation: fbp(observation, model.geometry, "none")),
        "hann_psnr": hann(cutoffs.psnr, config.hann_psnr, "best PSNR"),
        "hann_ssim": hann(cutoffs.ssim, config.hann_ssim, "best SSIM"),
        "zeng": Method(f"zeng, Hann {cutoffs.psnr:.2f}", zeng),
        "learned": Method("learned FBP", model),
    }


def _draw(
    dataset: LoDoPaB,
    count: int,
    methods: dict[str, Method],
    qualities: dict[str, list[Quality]],
    high: float,
    device: torch.device,
) -> dict[str, bytes]:
    """Pictures of evenly spaced images, by file name."""
    pictures = {}
    for index in evenly_spaced(len(dataset), count):
        sample = dataset[index]
        observation = sample.observation[None].to(device)
        better = max(("hann_psnr", "hann_ssim"), key=lambda name: qualities[name][index].psnr_fr)  # never nan
        with torch.no_grad():
            images = {
                title: (methods[name].reconstruct(observation)[0].cpu(), qualities[name][index])
                for name, title in ((better, methods[better].title), ("learned", methods["learned"].title))
            }
        title = f"{dataset.name(index)}, beside the Hann that has the higher PSNR here"
        shown = comparison(title, sample.observation, images, sample.ground_truth, *scales_for(high))
        pictures[f"image_{index:04d}.png"] = as_png(shown)
    return pictures


def _as_csv(
    dataset: LoDoPaB, patients: list[str] | None, scored: Mapping[str, Scored], metrics: Mapping[str, Figure]
) -> str:
    """A row for every image and method."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "name", "method", *Quality._fields, *metrics, *(["patient"] if patients else [])])
    for index in range(len(dataset)):
        patient = [patients[index]] if patients else []
        for name, of in scored.items():
            writer.writerow([index, dataset.name(index), name, *of.images[index], *of.own[index], *patient])
    return text.getvalue()
