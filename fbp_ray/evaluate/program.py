"""`python -m fbp_ray.evaluate --checkpoint runs/NAME --data.dir DIR`: scores a trained model beside the classic FBP."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from rich.console import Console
from rich.table import Table

from fbp_ray.baseline import BestCutoffs, Quality
from fbp_ray.checkpoint import check_geometry, find_checkpoint, load_model, read_manifest, versions
from fbp_ray.cli import parse
from fbp_ray.data import LoDoPaB, geometry_of
from fbp_ray.errors import DataError, RunError
from fbp_ray.evaluate.scores import Score, as_csv, choose_cutoffs, means, methods, score
from fbp_ray.filters import TableWindow
from fbp_ray.model import LearnableFBP
from fbp_ray.pictures import comparison, evenly_spaced, window_plot
from fbp_ray.progress import progress
from fbp_ray.settings import Frozen
from fbp_ray.storage import Folder, open_folder

Cutoff = Annotated[float, Field(gt=0, le=1)]


class EvaluateData(Frozen):
    """What to evaluate on."""

    dir: Path | None = Field(default=None, description="data folder; without it the one that the model was trained on")
    samples: Annotated[int, Field(ge=1)] | None = Field(default=None, description="use the first so many samples")


class EvaluateConfig(Frozen):
    """Scores a trained model beside the classic FBP: PSNR, SSIM, pictures."""

    checkpoint: str = Field(description="run folder (its best checkpoint) or checkpoint folder, or its URI")
    data: EvaluateData = EvaluateData()
    split: Literal["train", "validation", "test"] = Field(default="test", description="part of the data to score")
    out: str | None = Field(
        default=None, description="new folder for the results; without it evaluation-SPLIT beside the checkpoint"
    )
    panels: Annotated[int, Field(ge=0)] = Field(default=4, description="pictures of images, evenly spaced")
    hann_psnr: Cutoff | None = Field(
        default=None, description="Hann cut-off to compare with; without it the best for PSNR on the validation part"
    )
    hann_ssim: Cutoff | None = Field(
        default=None, description="Hann cut-off to compare with; without it the best for SSIM on the validation part"
    )


def main(argv: Sequence[str]) -> None:
    """Evaluates the model that the options name."""
    evaluate(parse(EvaluateConfig, argv, "python -m fbp_ray.evaluate"))


def evaluate(config: EvaluateConfig) -> None:
    """Evaluates a model, writes the results and prints them.

    Raises:
        FbpRayError: the checkpoint or the data cannot be used, or there are results already.
    """
    checkpoint = find_checkpoint(config.checkpoint)
    out = open_folder(config.out) if config.out else checkpoint.parent / f"evaluation-{config.split}"
    if out.names() or out.folders():
        raise RunError(f"{out} holds results already; choose another --out, nothing was changed")

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(checkpoint, device)
    dataset = _open(config, checkpoint, model, config.split)
    cutoffs = _cutoffs(config, checkpoint, model, device)
    compared = methods(model, cutoffs)

    scores = []
    with progress("Scoring", len(dataset) * len(compared)) as advance:
        for entry in score(dataset, compared, device):
            scores.append(entry)
            advance(1)
    pictures = _pictures(config, dataset, compared, scores, device)
    if isinstance(model.filter, TableWindow):
        pictures["window.png"] = window_plot(model.filter, model.geometry.cells)

    figures = means(scores)
    about = {
        "checkpoint": str(checkpoint.absolute()),
        "epoch": read_manifest(checkpoint).epoch,
        "data": str(dataset.folder.absolute()),
        "split": config.split,
        "samples": len(dataset),
        "hann_psnr_cutoff": cutoffs.psnr,
        "hann_ssim_cutoff": cutoffs.ssim,
        "versions": versions(),
    }
    for name, content in pictures.items():
        out.write(name, content)
    out.write("images.csv", as_csv(scores))
    out.write("evaluation.json", json.dumps(about, indent=2))
    out.write("metrics.json", json.dumps(figures, indent=2))
    console = Console(soft_wrap=True)
    _print(console, figures, cutoffs, f"{config.split} part, {len(dataset)} images")
    console.print(f"figures  {out}/metrics.json, {out}/images.csv", highlight=False)
    console.print("pictures " + ", ".join(f"{out}/{name}" for name in pictures), highlight=False)


def _open(config: EvaluateConfig, checkpoint: Folder, model: LearnableFBP, part: str) -> LoDoPaB:
    folder = config.data.dir
    if folder is None:
        folder = Path(read_manifest(checkpoint).data["dir"])
    if folder.is_dir():
        check_geometry(checkpoint, geometry_of(folder))
    return LoDoPaB(folder, part, model.geometry, config.data.samples if part == config.split else None)


def _cutoffs(config: EvaluateConfig, checkpoint: Folder, model: LearnableFBP, device: torch.device) -> BestCutoffs:
    if config.hann_psnr is not None and config.hann_ssim is not None:
        return BestCutoffs(config.hann_psnr, config.hann_ssim)
    try:
        validation = _open(config, checkpoint, model, "validation")
    except DataError as error:
        raise DataError(
            f"the Hann cut-offs are chosen on the validation part, which cannot be read: {error}\n       "
            "give both instead: --hann_psnr C --hann_ssim C"
        ) from None
    best = choose_cutoffs(validation, device)
    return BestCutoffs(config.hann_psnr or best.psnr, config.hann_ssim or best.ssim)


def _pictures(
    config: EvaluateConfig, dataset: LoDoPaB, compared: dict[str, Any], scores: list[Score], device: torch.device
) -> dict[str, bytes]:
    """Panels of evenly spaced images, by file name."""
    labels = {"hann_ssim": "FBP (Hann, best SSIM)", "learned": "learned FBP"}
    merit: dict[tuple[int, str], Quality] = {(entry.image, entry.method): entry.quality for entry in scores}
    pictures = {}
    for index in evenly_spaced(len(dataset), config.panels):
        sample = dataset[index]
        with torch.no_grad():
            images = {
                label: (compared[method](sample.observation[None].to(device))[0].cpu(), merit[index, method])
                for method, label in labels.items()
            }
        pictures[f"image_{index:04d}.png"] = comparison(
            dataset.name(index), sample.observation, images, sample.ground_truth
        )
    return pictures


def _print(console: Console, figures: dict[str, dict[str, float]], cutoffs: BestCutoffs, what: str) -> None:
    names = {
        "ramp": "FBP, ramp",
        "hann_psnr": f"FBP, Hann {cutoffs.psnr:.2f} (best PSNR)",
        "hann_ssim": f"FBP, Hann {cutoffs.ssim:.2f} (best SSIM)",
        "learned": "learned FBP",
    }
    table = Table(title=what)
    for column in ("method", "PSNR dB", "SSIM", "PSNR-FR dB", "SSIM-FR"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for method, row in figures.items():
        cells = f"{row['psnr']:.3f}", f"{row['ssim']:.4f}", f"{row['psnr_fr']:.3f}", f"{row['ssim_fr']:.4f}"
        table.add_row(names[method], *cells)
    table.add_section()
    for method in ("hann_psnr", "hann_ssim"):
        gain = {name: figures["learned"][name] - figures[method][name] for name in Quality._fields}
        cells = f"{gain['psnr']:+.3f}", f"{gain['ssim']:+.4f}", f"{gain['psnr_fr']:+.3f}", f"{gain['ssim_fr']:+.4f}"
        table.add_row("gain over " + names[method].removeprefix("FBP, "), *cells)
    console.print(table)
