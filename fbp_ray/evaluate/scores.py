"""The figures of merit of every method on every image of a part."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fbp_ray.baseline import BestCutoffs, Quality, best_hann, mean_quality, quality
from fbp_ray.data import LoDoPaB
from fbp_ray.model import LearnableFBP, fbp

BATCH = 8  # images at a time: enough to keep the kernels busy, small enough for any machine


class Score(NamedTuple):
    """One image by one method."""

    image: int
    name: str
    method: str
    quality: Quality


def choose_cutoffs(validation: LoDoPaB, device: torch.device) -> BestCutoffs:
    """The Hann cut-offs that are best on the validation part."""

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in DataLoader(validation, BATCH):
            yield batch.observation.to(device), batch.ground_truth.to(device)

    return best_hann(pairs, validation.geometry)


def methods(model: LearnableFBP, cutoffs: BestCutoffs) -> dict[str, Callable[[Tensor], Tensor]]:
    """What is compared, by the names in metrics.json: each maps (B, A, D) to (B, H, W)."""
    geometry = model.geometry
    return {
        "ramp": lambda observation: fbp(observation, geometry, "none"),
        "hann_psnr": lambda observation: fbp(observation, geometry, "hann", cutoffs.psnr),
        "hann_ssim": lambda observation: fbp(observation, geometry, "hann", cutoffs.ssim),
        "learned": model,
    }


def score(dataset: LoDoPaB, compared: dict[str, Callable[[Tensor], Tensor]], device: torch.device) -> Iterator[Score]:
    """Every method on every image, an image after the other."""
    with torch.no_grad():
        for batch in DataLoader(dataset, BATCH):
            target = batch.ground_truth.to(device)
            by_method = {
                method: quality(reconstruct(batch.observation.to(device)), target)
                for method, reconstruct in compared.items()
            }
            for row, index in enumerate(batch.index.tolist()):
                for method, qualities in by_method.items():
                    yield Score(index, dataset.name(index), method, qualities[row])


def means(scores: list[Score]) -> dict[str, dict[str, float]]:
    """The mean of each figure over the images, by method: the content of metrics.json."""
    order = dict.fromkeys(entry.method for entry in scores)
    return {
        method: mean_quality(entry.quality for entry in scores if entry.method == method)._asdict() for method in order
    }


def as_csv(scores: list[Score]) -> str:
    """A row for every image and method."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "name", "method", *Quality._fields])
    writer.writerows([entry.image, entry.name, entry.method, *entry.quality] for entry in scores)
    return text.getvalue()
