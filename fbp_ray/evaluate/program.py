"""What an evaluation does: figures and pictures of a trained model beside the classic FBP."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from fbp_ray.baseline import CUTOFF_SAMPLES, PASSES, Baseline, BestCutoffs, Quality, best_hann, mean_quality, quality
from fbp_ray.checkpoint import Manifest, check_geometry, find_checkpoint, load_model, read_manifest
from fbp_ray.cli import progress
from fbp_ray.data import LoDoPaB, describe, geometry_of
from fbp_ray.data.layout import find_observations, has_truth
from fbp_ray.errors import DataError, RunError
from fbp_ray.evaluate import EvaluateConfig
from fbp_ray.model import LearnableFBP, fbp
from fbp_ray.own import own_metrics
from fbp_ray.pictures import as_png, comparison, evenly_spaced, window_figure
from fbp_ray.settings import as_json, as_text
from fbp_ray.shipped import shipped_models
from fbp_ray.storage import Folder, open_folder
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
    """Evaluates a model, writes the results and prints them.

    Raises:
        FbpRayError: the checkpoint or the data cannot be used, or the output folder has results already.
    """
    checkpoint = find_checkpoint(config.checkpoint)
    beside = open_folder("runs") / config.checkpoint if config.checkpoint in shipped_models() else checkpoint.parent
    out = open_folder(config.out) if config.out else beside / f"evaluation-{config.split}"
    check_out(out, config.overwrite)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(checkpoint, device)
    dataset = open_part(config, checkpoint, config.split)
    best = _best_cutoffs(config, checkpoint, device)
    cutoffs = BestCutoffs(config.hann_psnr or best.psnr, config.hann_ssim or best.ssim)
    methods = _methods(model, cutoffs, config)

    qualities: dict[str, list[Quality]] = {name: [] for name in methods}  # of each image, by method
    metrics = own_metrics(config.metrics)
    own: dict[str, list[tuple[float, ...]]] = {name: [] for name in methods}
    with progress("Scoring", len(dataset) * len(methods)) as advance, torch.no_grad():
        for batch in DataLoader(dataset, BATCH):
            observation, target = batch.observation.to(device), batch.ground_truth.to(device)
            for name, method in methods.items():
                images = method.reconstruct(observation)
                qualities[name] += quality(images, target)
                columns = [metric(images, target).tolist() for metric in metrics.values()]
                own[name] += zip(*columns, strict=True) if columns else [()] * len(target)
                advance(len(target))
    means = {name: mean_quality(of_images) for name, of_images in qualities.items()}
    own_means = {name: tuple(map(fmean, zip(*rows, strict=True))) for name, rows in own.items()}
    without_range = sum(math.isnan(row.psnr) for row in qualities["ramp"])
    about = {
        "checkpoint": str(checkpoint.absolute()),
        "epoch": read_manifest(checkpoint).epoch,
        "data": str(dataset.folder.absolute()),
        "every": dataset.every,
        "split": config.split,
        "samples": len(dataset),
        "samples_without_range": without_range,
        "hann_psnr_cutoff": cutoffs.psnr,
        "hann_ssim_cutoff": cutoffs.ssim,
        "versions": versions(),
    }
    pictures = _draw(dataset, config.panels, methods, qualities, device)
    if (window := window_figure(model.filter, model.geometry.cells)) is not None:
        pictures["window.png"] = as_png(window)

    for name, content in pictures.items():
        out.write(name, content)
    out.write("images.csv", _as_csv(dataset, qualities, own, tuple(metrics)))
    out.write("evaluation.json", as_json(about))
    out.write(
        "metrics.json",
        as_json(
            {name: mean._asdict() | dict(zip(metrics, own_means[name], strict=True)) for name, mean in means.items()}
        ),
    )
    for name in out.names():
        if name.endswith(".png") and name not in pictures:  # of the evaluation that is overwritten
            out.remove(name)
    console = Console(soft_wrap=True)
    console.print(_table(f"{config.split} part, {len(dataset)} images", methods, means, own_means, tuple(metrics)))
    if without_range:
        have, them = ("has", "it") if without_range == 1 else ("have", "them")
        console.print(
            f"{without_range} of the {len(dataset)} images {have} one value throughout: the means of PSNR and SSIM "
            f"leave {them} out, those of the fixed range do not",
            highlight=False,
        )
    console.print(f"figures  {out}/metrics.json, {out}/images.csv", highlight=False)
    console.print("pictures " + ", ".join(f"{out}/{name}" for name in pictures), highlight=False)


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
    geometry, every = manifest.model.geometry, config.data.every or 1
    if folder.is_dir():
        geometry = geometry_of(folder)
        if config.data.every is None and geometry != manifest.model.geometry:
            every = manifest.data.get("every", 1)
        check_geometry(checkpoint, geometry.every(every))
    if folder.is_dir() and find_observations(folder, part) and not has_truth(folder, part):
        raise DataError(
            f"{folder} has no ground_truth_{part}_*.hdf5, which PSNR and SSIM need; add it, evaluate on other data of "
            "this geometry (--data.dir DIR), or reconstruct without figures: fbp_ray.load_model"
        )
    return LoDoPaB(folder, part, geometry, config.data.samples if part == config.split else None, every)


def _best_cutoffs(config: EvaluateConfig, checkpoint: Folder, device: torch.device) -> BestCutoffs:
    """The best Hann cut-offs on the validation part: those of the run where it was trained on these data."""
    if config.hann_psnr is not None and config.hann_ssim is not None:
        return BestCutoffs(config.hann_psnr, config.hann_ssim)
    manifest, run = read_manifest(checkpoint), checkpoint.parent
    trained_on, folder = manifest.data, data_folder(config, manifest)
    same = folder.absolute() == Path(trained_on.get("dir", "")) and describe(folder) == trained_on.get("description")
    same = same and trained_on.get("photons") is None  # its noise was drawn anew
    known = Baseline.model_validate_json(as_text(run.read("baseline.json"))) if run.has("baseline.json") else None
    if same and known is not None and known.hann_psnr is not None:
        return BestCutoffs(known.hann_psnr_cutoff, known.hann_ssim_cutoff)
    try:
        validation = open_part(config, checkpoint, "validation")
        chosen = Subset(validation, range(min(CUTOFF_SAMPLES, len(validation))))
        with progress("Choosing the Hann cut-offs", PASSES * len(chosen)) as advance:

            def pairs() -> Iterator[tuple[Tensor, Tensor]]:
                for batch in DataLoader(chosen, BATCH):
                    yield batch.observation.to(device), batch.ground_truth.to(device)
                    advance(len(batch.index))

            return best_hann(pairs, validation.geometry)
    except DataError as error:
        raise DataError(
            f"the Hann cut-offs are chosen on the validation part, which cannot be used: {error}\n       "
            "give both instead: --hann_psnr C --hann_ssim C"
        ) from None


def _methods(model: LearnableFBP, cutoffs: BestCutoffs, config: EvaluateConfig) -> dict[str, Method]:
    """The methods that are compared, by their names in metrics.json."""

    def hann(cutoff: float, given: float | None, best: str) -> Method:
        title = f"FBP, Hann {cutoff:.2f} ({'given' if given else best})"
        return Method(title, lambda observation: fbp(observation, model.geometry, "hann", cutoff))

    return {
        "ramp": Method("FBP, ramp", lambda observation: fbp(observation, model.geometry, "none")),
        "hann_psnr": hann(cutoffs.psnr, config.hann_psnr, "best PSNR"),
        "hann_ssim": hann(cutoffs.ssim, config.hann_ssim, "best SSIM"),
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
        with torch.no_grad():
            images = {
                methods[name].title: (methods[name].reconstruct(observation)[0].cpu(), qualities[name][index])
                for name in ("hann_ssim", "learned")
            }
        figure = comparison(dataset.name(index), sample.observation, images, sample.ground_truth)
        pictures[f"image_{index:04d}.png"] = as_png(figure)
    return pictures


def _as_csv(
    dataset: LoDoPaB, qualities: dict[str, list[Quality]], own: dict[str, list[tuple[float, ...]]], titles: Titles
) -> str:
    """A row for every image and method."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "name", "method", *Quality._fields, *titles])
    for index in range(len(dataset)):
        for name, rows in qualities.items():
            writer.writerow([index, dataset.name(index), name, *rows[index], *own[name][index]])
    return text.getvalue()


def _table(
    title: str,
    methods: dict[str, Method],
    means: dict[str, Quality],
    own: dict[str, tuple[float, ...]],
    titles: Titles,
) -> Table:
    def add_row(name: str, figures: Iterable[float], sign: str = "") -> None:
        decimals = (3, 4, 3, 4, *(4 for _ in titles))
        table.add_row(name, *(f"{figure:{sign}.{places}f}" for figure, places in zip(figures, decimals, strict=True)))

    table = Table(title=title, caption=FOOT)
    table.add_column("method")
    for column in ("PSNR dB", "SSIM", "PSNR-FR dB", "SSIM-FR", *titles):
        table.add_column(column, justify="right")
    for name, method in methods.items():
        add_row(method.title, (*means[name], *own[name]))
    table.add_section()
    for name in ("hann_psnr", "hann_ssim"):
        pairs = zip((*means["learned"], *own["learned"]), (*means[name], *own[name]), strict=True)
        gain = [ours - theirs for ours, theirs in pairs]
        add_row("gain over " + methods[name].title.removeprefix("FBP, "), gain, "+")
    return table
