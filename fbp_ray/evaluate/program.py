"""What an evaluation does: figures and pictures of a trained model beside the classic FBP."""

from __future__ import annotations

import contextlib
import csv
import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from fbp_ray.baseline import (
    CUTOFF_SAMPLES,
    PASSES,
    Baseline,
    BestCutoffs,
    Quality,
    best_hann,
    content_key,
    keep_cutoffs,
    known_cutoffs,
    quality,
)
from fbp_ray.checkpoint import Manifest, check_geometry, find_checkpoint, load_model, read_manifest
from fbp_ray.cli import progress
from fbp_ray.config import DataConfig, WindowConfig
from fbp_ray.data import LoDoPaB, describe, geometry_of, patients_of
from fbp_ray.data.layout import find_observations, has_truth, photons_of
from fbp_ray.errors import DataError, RunError
from fbp_ray.evaluate import EvaluateConfig
from fbp_ray.evaluate.details import IMAGES as KEPT
from fbp_ray.evaluate.details import MEASURED, kept_images, measure, milliseconds, timed
from fbp_ray.evaluate.scores import DRAWS, SEED, Interval, Scores
from fbp_ray.evaluate.submission import PART, write_submission
from fbp_ray.model import LearnableFBP, ModelConfig, fbp
from fbp_ray.own import own_metrics
from fbp_ray.pictures import as_png, comparison, evenly_spaced, window_figure
from fbp_ray.report.program import write_report
from fbp_ray.report.published import IMAGES, PUBLISHED, are_the_published_images, headings
from fbp_ray.settings import as_json, as_text
from fbp_ray.shipped import shipped_models
from fbp_ray.storage import Folder, open_folder
from fbp_ray.train.noise import FixedNoise, Noise
from fbp_ray.versions import versions

BATCH = 8  # images at a time: enough to keep the kernels busy, small enough for any machine

FOOT = "PSNR-FR and SSIM-FR take the fixed range 1 instead of each image's own; never compare one kind with the other"


Titles = tuple[str, ...]  # of metrics of somebody's own


class Method(NamedTuple):
    """One of the methods that are compared."""

    title: str
    reconstruct: Callable[[Tensor], Tensor]
    """(B, A, D) -> (B, H, W)."""


def evaluate(config: EvaluateConfig) -> None:
    """Evaluates a model, writes the results and prints them; or writes a submission.

    Raises:
        FbpRayError: the checkpoint or the data cannot be used, or the output folder has results already.
    """
    checkpoint = find_checkpoint(config.checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.submission is not None:
        _submit(config, checkpoint, config.submission, device)
        return
    beside = open_folder("runs") / config.checkpoint if config.checkpoint in shipped_models() else checkpoint.parent
    out = open_folder(config.out) if config.out else beside / f"evaluation-{config.split}"
    check_out(out, config.overwrite)
    model = load_model(checkpoint, device)
    dataset = open_part(config, checkpoint, config.split)
    patients = _patients(dataset, whole=config.protocol is not None)
    best = _best_cutoffs(config, checkpoint, device)
    cutoffs = BestCutoffs(config.hann_psnr or best.psnr, config.hann_ssim or best.ssim)
    photons = _photons(config, read_manifest(checkpoint))
    known = photons_of(dataset.folder) if photons is None else photons[0] if photons[0] == photons[1] else None
    methods = _methods(model, cutoffs, config, known, device)

    qualities: dict[str, list[Quality]] = {name: [] for name in methods}  # of each image, by method
    metrics = own_metrics(config.metrics)
    own: dict[str, list[tuple[float, ...]]] = {name: [] for name in methods}
    times: dict[str, list[float]] = {name: [] for name in methods}  # milliseconds an image of each whole batch
    with progress("Scoring", len(dataset) * len(methods)) as advance, torch.no_grad():
        for batch in DataLoader(dataset, BATCH):
            observation, target = batch.observation.to(device), batch.ground_truth.to(device)
            for name, method in methods.items():
                images, took = timed(method.reconstruct, observation)
                times[name] += [took] * (len(target) == BATCH)
                qualities[name] += quality(images, target)
                columns = [metric(images, target).tolist() for metric in metrics.values()]
                own[name] += zip(*columns, strict=True) if columns else [()] * len(target)
                advance(len(target))
    scores = {name: Scores(of_images, patients) for name, of_images in qualities.items()}
    own_means = {name: tuple(map(fmean, zip(*rows, strict=True))) for name, rows in own.items()}
    without_range = sum(math.isnan(row.psnr) for row in qualities["ramp"])
    about = {
        "checkpoint": str(checkpoint.absolute()),
        "epoch": read_manifest(checkpoint).epoch,
        "data": str(dataset.folder.absolute()),
        "every": dataset.every,
        "first_angles": dataset.first_angles,
        "photons": photons,
        "photons_known": known,
        "same_as_published": are_the_published_images(dataset.part, len(dataset), describe(dataset.folder)),
        "split": config.split,
        "protocol": config.protocol,
        "samples": len(dataset),
        "samples_without_range": without_range,
        "patients": None if patients is None else len(set(patients)),
        "intervals_95": {name: of.intervals() for name, of in scores.items()},
        "gains_95": {
            name: {figure: scores["learned"].interval(figure, scores[name]) for figure in Quality._fields}
            for name in methods
            if name != "learned"
        },
        "titles": {name: method.title for name, method in methods.items()},
        "hann_psnr_cutoff": cutoffs.psnr,
        "hann_ssim_cutoff": cutoffs.ssim,
        "versions": versions(),
    }
    pictures = _draw(dataset, config.panels, methods, qualities, device)
    if (window := window_figure(model.filter, model.geometry.cells, sorted({*cutoffs}))) is not None:
        pictures["window.png"] = as_png(window)

    few = torch.stack([dataset[index].observation for index in range(min(BATCH, len(dataset)))]).to(device)
    compared = {name: method.reconstruct for name, method in methods.items() if name != "ramp"}
    with torch.no_grad():
        each = {name: milliseconds(one.reconstruct, times[name], few, BATCH) for name, one in methods.items()}
    measured = measure(compared, each, BATCH, model.geometry, known, device)
    measured["shown"], kept = kept_images(
        dataset, {name: compared[name] for name in ("hann_psnr", "learned")}, qualities, patients, device
    )

    for name, content in pictures.items():
        out.write(name, content)
    out.write(KEPT, kept)
    out.write(MEASURED, as_json(measured))
    out.write("images.csv", _as_csv(dataset, patients, qualities, own, tuple(metrics)))
    out.write("evaluation.json", as_json(about))
    out.write(
        "metrics.json",
        as_json(
            {name: of.mean._asdict() | dict(zip(metrics, own_means[name], strict=True)) for name, of in scores.items()}
        ),
    )
    for name in out.names():
        if name.endswith(".png") and name not in pictures:  # of the evaluation that is overwritten
            out.remove(name)
    report = write_report(out)
    console = Console(soft_wrap=True)
    console.print(_table(config, len(dataset), methods, scores, own_means, tuple(metrics)))
    if config.protocol:
        _print_published(console, dataset)
    if without_range:
        have, them = ("has", "it") if without_range == 1 else ("have", "them")
        console.print(
            f"{without_range} of the {len(dataset)} images {have} one value throughout: the means of PSNR and SSIM "
            f"leave {them} out, those of the fixed range do not",
            highlight=False,
        )
    console.print(f"figures  {out}/metrics.json, {out}/images.csv", highlight=False)
    console.print("pictures " + ", ".join(f"{out}/{name}" for name in pictures), highlight=False)
    console.print(f"report   {report}", highlight=False)


def _submit(config: EvaluateConfig, checkpoint: Folder, path: Path, device: torch.device) -> None:
    """Writes a submission, and says that it is whole."""
    model = load_model(checkpoint, device)
    dataset = open_part(config, checkpoint, PART)
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


def _patients(dataset: LoDoPaB, whole: bool) -> list[str] | None:
    """Whose each image is; None where the folder does not say, or not rightly, and it need not (`whole`).

    Raises:
        DataError: the list of the whole part is missing, or of another length.
    """
    if not whole:
        with contextlib.suppress(DataError):
            return patients_of(dataset.folder, dataset.part, len(dataset))
        return None
    patients = patients_of(dataset.folder, dataset.part, len(dataset), whole=True)
    if patients is None:
        raise DataError(
            f"{dataset.folder} has no patient_ids_rand_{dataset.part}.csv, without which there are no intervals over "
            "patients; add the file of the data set, or leave out --protocol"
        )
    return patients


def check_out(out: Folder, overwrite: bool) -> None:
    """Raises RunError where the folder for the results holds something that is not to be replaced."""
    if not (out.names() or out.folders()):
        return
    if not out.has("evaluation.json"):
        raise RunError(f"{out} holds something else than an evaluation; choose another --out, nothing was changed")
    if not overwrite:
        raise RunError(f"{out} holds results already; --overwrite replaces them, or choose another --out")


def data_folder(config: EvaluateConfig, manifest: Manifest) -> Path:
    """The data folder that the options name, or else the one that the model was trained on; DataError without one."""
    folder = config.data.dir or manifest.data.get("dir")
    if folder is None:
        raise DataError(f"what {config.checkpoint} was trained on is not known; name a data folder: --data.dir DIR")
    return Path(folder)


def open_part(config: EvaluateConfig, checkpoint: Folder, part: str) -> LoDoPaB:
    """A part of the data that the options name, or else of those that the model was trained on.

    Raises:
        CheckpointError: they are of another geometry than the model.
        DataError: they cannot be used.
    """
    manifest = read_manifest(checkpoint)
    folder = data_folder(config, manifest)
    geometry, every, first = manifest.model.geometry, config.data.every, config.data.first_angles
    truth = part != PART
    if folder.is_dir():
        geometry = geometry_of(folder)
        if geometry != manifest.model.geometry:
            every = every or manifest.data.get("every")
            first = first or manifest.data.get("first_angles")
        check_geometry(checkpoint, geometry.part(first, every or 1))
    if truth and folder.is_dir() and find_observations(folder, part) and not has_truth(folder, part):
        raise DataError(
            f"{folder} has no ground_truth_{part}_*.hdf5, which PSNR and SSIM need; add it, evaluate on other data of "
            "this geometry (--data.dir DIR), or reconstruct without figures: fbp_ray.load_model"
        )
    samples = config.data.samples if part == config.split else None
    given = (folder, part, geometry, samples, every or 1, truth, first)
    photons = _photons(config, manifest)
    if photons is None or not truth:
        return LoDoPaB(*given)
    return FixedNoise(Noise(DataConfig(dir=folder, photons=photons), geometry.part(first, every or 1)), *given)


def _photons(config: EvaluateConfig, manifest: Manifest) -> tuple[float, float] | None:
    """The photons of the noise that is drawn anew; None where it is the data's own."""
    low, high = config.data.photons or manifest.data.get("photons") or (0, 1)
    return (low, high) if low == high or config.data.photons else None


def _best_cutoffs(config: EvaluateConfig, checkpoint: Folder, device: torch.device) -> BestCutoffs:
    """The best Hann cut-offs on the validation part: those of the run where it was trained on these data."""
    if config.hann_psnr is not None and config.hann_ssim is not None:
        return BestCutoffs(config.hann_psnr, config.hann_ssim)
    manifest, run = read_manifest(checkpoint), checkpoint.parent
    trained_on, folder = manifest.data, data_folder(config, manifest)
    described = describe(folder)
    # What was simulated by the same request is the same anywhere.
    same = folder.absolute() == Path(trained_on.get("dir", "")) or (described is not None and "request" in described)
    same = same and described == trained_on.get("description")
    same = same and list(_photons(config, manifest) or ()) == list(trained_on.get("photons") or ())
    known = Baseline.model_validate_json(as_text(run.read("baseline.json"))) if run.has("baseline.json") else None
    if same and known is not None and known.hann_psnr is not None:
        return BestCutoffs(known.hann_psnr_cutoff, known.hann_ssim_cutoff)
    try:
        validation = open_part(config, checkpoint, "validation")
        chosen = Subset(validation, range(min(CUTOFF_SAMPLES, len(validation))))

        def pairs() -> Iterator[tuple[Tensor, Tensor]]:
            for batch in DataLoader(chosen, BATCH):
                yield batch.observation.to(device), batch.ground_truth.to(device)

        key = content_key(pairs(), validation.geometry)
        if (kept := known_cutoffs(key)) is not None:
            return kept
        with progress("Choosing the Hann cut-offs", PASSES * len(chosen)) as advance:
            best = best_hann(lambda: _counted(pairs(), advance), validation.geometry)
        keep_cutoffs(key, best)
        return best
    except DataError as error:
        raise DataError(
            f"the Hann cut-offs are chosen on the validation part, which cannot be used: {error}\n       "
            "give both instead: --hann_psnr C --hann_ssim C"
        ) from None


def _counted(pairs: Iterator[tuple[Tensor, Tensor]], advance: Callable[[int], None]) -> Iterator[tuple[Tensor, Tensor]]:
    """The same, counted by `advance` when done with."""
    for pair in pairs:
        yield pair
        advance(len(pair[0]))


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
    dataset: LoDoPaB, count: int, methods: dict[str, Method], qualities: dict[str, list[Quality]], device: torch.device
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
        pictures[f"image_{index:04d}.png"] = as_png(comparison(title, sample.observation, images, sample.ground_truth))
    return pictures


def _as_csv(
    dataset: LoDoPaB,
    patients: list[str] | None,
    qualities: dict[str, list[Quality]],
    own: dict[str, list[tuple[float, ...]]],
    titles: Titles,
) -> str:
    """A row for every image and method."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "name", "method", *Quality._fields, *titles, *(["patient"] if patients else [])])
    for index in range(len(dataset)):
        patient = [patients[index]] if patients else []
        for name, rows in qualities.items():
            writer.writerow([index, dataset.name(index), name, *rows[index], *own[name][index], *patient])
    return text.getvalue()


DECIMALS = dict(zip(Quality._fields, (3, 4, 3, 4), strict=True))


def _table(
    config: EvaluateConfig,
    count: int,
    methods: dict[str, Method],
    scores: dict[str, Scores],
    own: dict[str, tuple[float, ...]],
    titles: Titles,
) -> Table:
    """The means of every method, and the learned one's gains; with intervals where the protocol asks for them."""

    def cell(figure: float, places: int, sign: str = "", between: Interval | None = None) -> str:
        text = f"{figure:{sign}.{places}f}"
        if between is None:
            return text
        places -= 1
        return f"{text} ({between[0]:{sign}.{places}f} to {between[1]:{sign}.{places}f})"

    def interval(name: str, figure: str, beside: Scores | None = None) -> Interval | None:
        return scores[name].interval(figure, beside) if config.protocol else None

    title = f"{config.split} part, {count} images"
    caption = FOOT
    if config.protocol and (patients := scores["ramp"].patients) is not None:
        number = len(set(patients))
        title += f" of {number} patient{'s'[: number != 1]}"
        caption += (
            f"\nin brackets: 95 % confidence intervals, bootstrap over patients ({DRAWS} draws, seed {SEED})"
            if number > 1
            else "\none patient: there are no intervals over patients"
        )
    table = Table(title=title, caption=caption)
    table.add_column("method")
    for column in ("PSNR dB", "SSIM", "PSNR-FR dB", "SSIM-FR", *titles):
        table.add_column(column, justify="right")
    for name, method in methods.items():
        mean = scores[name].mean._asdict()
        cells = (cell(mean[figure], places, "", interval(name, figure)) for figure, places in DECIMALS.items())
        table.add_row(method.title, *cells, *(cell(figure, 4) for figure in own[name]))
    table.add_section()
    learned = scores["learned"].mean._asdict()
    for name in ("hann_psnr", "hann_ssim"):
        theirs = scores[name].mean._asdict()
        cells = (
            cell(learned[figure] - theirs[figure], places, "+", interval("learned", figure, scores[name]))
            for figure, places in DECIMALS.items()
        )
        gains = (cell(one - other, 4, "+") for one, other in zip(own["learned"], own[name], strict=True))
        table.add_row("gain over " + methods[name].title.removeprefix("FBP, "), *cells, *gains)
    return table


def _print_published(console: Console, dataset: LoDoPaB) -> None:
    """What has been published, and whether it can be compared with."""
    genuine = are_the_published_images(dataset.part, len(dataset), describe(dataset.folder))
    for on, heading in headings(genuine).items():
        rows = [row for row in PUBLISHED if row.on == on]
        table = Table(title=heading, caption="source: " + "; ".join(dict.fromkeys(row.source for row in rows)))
        table.add_column("method")
        for column in ("PSNR dB", "SSIM"):
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(f"{row.method} (published)", f"{row.psnr:.2f}", f"{row.ssim:.3f}")
        console.print(table)
