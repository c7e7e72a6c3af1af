"""PSNR and SSIM of every image, by patient, and the time that an image takes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.quality.methods import Method
from fbp_ray.baseline import BestCutoffs, Quality, best_hann, quality
from fbp_ray.data import LoDoPaB, patients_of
from fbp_ray.evaluate.scores import Scores
from fbp_ray.geometry import Geometry

BATCH = 8
BATCHES = (1, 8, 32)


def best_cutoffs(data: Path, geometry: Geometry) -> BestCutoffs:
    """The Hanns with the best PSNR and the best SSIM on the whole validation part."""
    validation = LoDoPaB(data, "validation", geometry)

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in DataLoader(validation, BATCH):
            yield batch.observation, batch.ground_truth

    return best_hann(pairs, geometry)


def score(method: Method, part: LoDoPaB) -> Scores:
    """The figures of a method over a part."""
    images: list[Quality] = []
    with torch.inference_mode():
        for batch in DataLoader(part, BATCH):
            images += quality(method.reconstruct(batch.observation), batch.ground_truth)
    return Scores(images, patients_of(part.folder, part.part, len(part)))


def time_in_turns(methods: Sequence[Method], part: LoDoPaB, rounds: int) -> dict[str, dict[int, float]]:
    """Milliseconds an image by batch size, medians over rounds in which all methods take turns."""
    first = torch.stack([part[index].observation for index in range(min(max(BATCHES), len(part)))])
    found: dict[str, dict[int, list[float]]] = {method.name: {batch: [] for batch in BATCHES} for method in methods}
    with torch.inference_mode():
        for number in range(-1, rounds):  # the first is not counted: it compiles
            for batch in BATCHES:
                sinograms = first.repeat(-(-batch // len(first)), 1, 1)[:batch].contiguous()
                for method in methods:
                    began = time.perf_counter()
                    method.reconstruct(sinograms)
                    if number >= 0:
                        found[method.name][batch].append(1e3 * (time.perf_counter() - began) / batch)
    return {name: {batch: median(values) for batch, values in of.items()} for name, of in found.items()}
