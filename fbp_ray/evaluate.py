"""`python -m fbp_ray.evaluate --checkpoint runs/NAME --data.dir DIR`: scores a trained model beside the classic FBP."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from fbp_ray.baseline import BestCutoffs, Quality, best_hann, mean_quality, quality
from fbp_ray.checkpoint import check_geometry, find_checkpoint, load_model, read_manifest, versions
from fbp_ray.cli import parse, progress, run_program
from fbp_ray.data import LoDoPaB, geometry_of
from fbp_ray.errors import DataError, RunError
from fbp_ray.filters import TableWindow
from fbp_ray.model import LearnableFBP, fbp
from fbp_ray.pictures import as_png, comparison, evenly_spaced, window_figure
from fbp_ray.settings import Frozen, LocalPath, PlaceName, as_json
from fbp_ray.storage import Folder, open_folder

BATCH = 8  # images at a time: enough to keep the kernels busy, small enough for any machine

Cutoff = Annotated[float, Field(gt=0, le=1)]


class EvaluateData(Frozen):
    """What to evaluate on."""

    dir: LocalPath | None = Field(
        default=None, description="data folder; without it the one that the model was trained on"
    )
    samples: Annotated[int, Field(ge=1)] | None = Field(default=None, description="use the first so many samples")


class EvaluateConfig(Frozen):
    """Scores a trained model beside the classic FBP: PSNR, SSIM, pictures."""

    checkpoint: PlaceName = Field(description="run folder (its best checkpoint) or checkpoint folder, or its URI")
    data: EvaluateData = EvaluateData()
    split: Literal["train", "validation", "test"] = Field(default="test", description="part of the data to score")
    out: PlaceName | None = Field(
        default=None, description="new folder for the results; without it evaluation-SPLIT beside the checkpoint"
    )
    panels: Annotated[int, Field(ge=0)] = Field(default=4, description="pictures of images, evenly spaced")
    hann_psnr: Cutoff | None = Field(
        default=None, description="Hann cut-off to compare with; without it the best for PSNR on the validation part"
    )
    hann_ssim: Cutoff | None = Field(
        default=None, description="Hann cut-off to compare with; without it the best for SSIM on the validation part"
    )


class Method(NamedTuple):
    """One of the methods that are compared."""

    title: str
    reconstruct: Callable[[Tensor], Tensor]
    """(B, A, D) -> (B, H, W)."""


def main(argv: Sequence[str]) -> None:
    """Evaluates the model that the options name."""
    evaluate(parse(EvaluateConfig, argv, "python -m fbp_ray.evaluate"))


def evaluate(config: EvaluateConfig) -> None:
    """Evaluates a model, writes the results and prints them.

    Raises:
        FbpRayError: the checkpoint or the data cannot be used, or the output folder has results already.
    """
    checkpoint = find_checkpoint(config.checkpoint)
    out = open_folder(config.out) if config.out else checkpoint.parent / f"evaluation-{config.split}"
    if out.names() or out.folders():
        raise RunError(f"{out} holds results already; choose another --out, nothing was changed")

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(checkpoint, device)
    dataset = _open_data(config, checkpoint, model, config.split)
    cutoffs = _choose_cutoffs(config, checkpoint, model, device)
    methods = _methods(model, cutoffs)

    qualities: dict[str, list[Quality]] = {name: [] for name in methods}  # of each image, by method
    with progress("Scoring", len(dataset) * len(methods)) as advance, torch.no_grad():
        for batch in DataLoader(dataset, BATCH):
            observation, target = batch.observation.to(device), batch.ground_truth.to(device)
            for name, method in methods.items():
                qualities[name] += quality(method.reconstruct(observation), target)
                advance(len(target))
    means = {name: mean_quality(of_images) for name, of_images in qualities.items()}
    without_range = sum(math.isnan(row.psnr) for row in qualities["ramp"])
    about = {
        "checkpoint": str(checkpoint.absolute()),
        "epoch": read_manifest(checkpoint).epoch,
        "data": str(dataset.folder.absolute()),
        "split": config.split,
        "samples": len(dataset),
        "samples_without_range": without_range,
        "hann_psnr_cutoff": cutoffs.psnr,
        "hann_ssim_cutoff": cutoffs.ssim,
        "versions": versions(),
    }
    pictures = _draw(dataset, config.panels, methods, qualities, device)
    if isinstance(model.filter, TableWindow):
        pictures["window.png"] = as_png(window_figure(model.filter, model.geometry.cells))

    for name, content in pictures.items():
        out.write(name, content)
    out.write("images.csv", _as_csv(dataset, qualities))
    out.write("evaluation.json", as_json(about))
    out.write("metrics.json", as_json({name: mean._asdict() for name, mean in means.items()}))
    console = Console(soft_wrap=True)
    console.print(_table(f"{config.split} part, {len(dataset)} images", methods, means))
    if without_range:
        console.print(
            f"{without_range} of the {len(dataset)} images have one value throughout: the means of PSNR and SSIM leave "
            "them out, those of the fixed range do not",
            highlight=False,
        )
    console.print(f"figures  {out}/metrics.json, {out}/images.csv", highlight=False)
    console.print("pictures " + ", ".join(f"{out}/{name}" for name in pictures), highlight=False)


def _open_data(config: EvaluateConfig, checkpoint: Folder, model: LearnableFBP, part: str) -> LoDoPaB:
    folder = config.data.dir
    if folder is None:
        folder = Path(read_manifest(checkpoint).data["dir"])
    if folder.is_dir():
        check_geometry(checkpoint, geometry_of(folder))
    return LoDoPaB(folder, part, model.geometry, config.data.samples if part == config.split else None)


def _choose_cutoffs(
    config: EvaluateConfig, checkpoint: Folder, model: LearnableFBP, device: torch.device
) -> BestCutoffs:
    """The Hann cut-offs that the options give, and otherwise the best on the validation part."""
    if config.hann_psnr is not None and config.hann_ssim is not None:
        return BestCutoffs(config.hann_psnr, config.hann_ssim)
    try:
        validation = _open_data(config, checkpoint, model, "validation")

        def pairs() -> Iterator[tuple[Tensor, Tensor]]:
            for batch in DataLoader(validation, BATCH):
                yield batch.observation.to(device), batch.ground_truth.to(device)

        best = best_hann(pairs, validation.geometry)
    except DataError as error:
        raise DataError(
            f"the Hann cut-offs are chosen on the validation part, which cannot be used: {error}\n       "
            "give both instead: --hann_psnr C --hann_ssim C"
        ) from None
    return BestCutoffs(config.hann_psnr or best.psnr, config.hann_ssim or best.ssim)


def _methods(model: LearnableFBP, cutoffs: BestCutoffs) -> dict[str, Method]:
    """The methods that are compared, by their names in metrics.json."""

    def hann(cutoff: float, title: str) -> Method:
        return Method(title, lambda observation: fbp(observation, model.geometry, "hann", cutoff))

    return {
        "ramp": Method("FBP, ramp", lambda observation: fbp(observation, model.geometry, "none")),
        "hann_psnr": hann(cutoffs.psnr, f"FBP, Hann {cutoffs.psnr:.2f} (best PSNR)"),
        "hann_ssim": hann(cutoffs.ssim, f"FBP, Hann {cutoffs.ssim:.2f} (best SSIM)"),
        "learned": Method("learned FBP", model),
    }


def _draw(
    dataset: LoDoPaB, count: int, methods: dict[str, Method], qualities: dict[str, list[Quality]], device: torch.device
) -> dict[str, bytes]:
    """Pictures of evenly spaced images, by file name."""
    titles = {"hann_ssim": "FBP (Hann, best SSIM)", "learned": "learned FBP"}
    pictures = {}
    for index in evenly_spaced(len(dataset), count):
        sample = dataset[index]
        observation = sample.observation[None].to(device)
        with torch.no_grad():
            images = {
                title: (methods[name].reconstruct(observation)[0].cpu(), qualities[name][index])
                for name, title in titles.items()
            }
        figure = comparison(dataset.name(index), sample.observation, images, sample.ground_truth)
        pictures[f"image_{index:04d}.png"] = as_png(figure)
    return pictures


def _as_csv(dataset: LoDoPaB, qualities: dict[str, list[Quality]]) -> str:
    """A row for every image and method."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "name", "method", *Quality._fields])
    for index in range(len(dataset)):
        writer.writerows([index, dataset.name(index), name, *rows[index]] for name, rows in qualities.items())
    return text.getvalue()


def _table(title: str, methods: dict[str, Method], means: dict[str, Quality]) -> Table:
    def add_row(name: str, figures: Quality, sign: str = "") -> None:
        decimals = (3, 4, 3, 4)
        table.add_row(name, *(f"{figure:{sign}.{places}f}" for figure, places in zip(figures, decimals, strict=True)))

    table = Table(title=title)
    table.add_column("method")
    for column in ("PSNR dB", "SSIM", "PSNR-FR dB", "SSIM-FR"):
        table.add_column(column, justify="right")
    for name, method in methods.items():
        add_row(method.title, means[name])
    table.add_section()
    for name in ("hann_psnr", "hann_ssim"):
        gain = Quality(*(ours - theirs for ours, theirs in zip(means["learned"], means[name], strict=True)))
        add_row("gain over " + methods[name].title.removeprefix("FBP, "), gain, "+")
    return table


if __name__ == "__main__":
    run_program(main)
