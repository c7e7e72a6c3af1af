"""An evaluation without ground truth: the squared error as the scan itself tells it, noise, and resolution.

    squared error   `fbp_ray.self_target.self_risk`, beside every Hann: an estimate that compares methods, no more
    noise           half the difference of the images of either half of the scan: the noise of the image of all
    resolution      up to where the Fourier ring correlation of those images meets the half-bit criterion (`frc.py`)

risks.csv has the squared errors of each image, metrics.json the means, measured.json the curves.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from fbp_ray.baseline import hann
from fbp_ray.cli import progress
from fbp_ray.data import LoDoPaB
from fbp_ray.data.layout import photons_of, unit_of
from fbp_ray.errors import ConfigError
from fbp_ray.evaluate import EvaluateConfig
from fbp_ray.evaluate.details import milliseconds, timed
from fbp_ray.evaluate.frc import Rings
from fbp_ray.evaluate.inputs import BATCH
from fbp_ray.evaluate.phantom import noise_power
from fbp_ray.geometry import FanBeam, Geometry
from fbp_ray.model import LearnableFBP, fbp
from fbp_ray.pictures import Scale, as_png, evenly_spaced, strip
from fbp_ray.self_target import Reconstruct, self_risks
from fbp_ray.split import ByAngles, ByPhotons, Split

CUTOFFS = [round(0.05 * number, 2) for number in range(4, 21)]
"""Of the Hanns: 0.2 to 1."""

MIDDLE = 0.6
"""Of an image's shorter side: the square in its middle in which noise is looked at, and grey values are chosen."""

DIFFERENCES = 0.2
"""Differences are shown from minus to plus so much of the range that images are shown in."""


class Method(NamedTuple):
    """One of the methods that are compared."""

    title: str
    some: Reconstruct
    """Of some of the angles."""

    whole: Callable[[Tensor], Tensor]
    """Of all: (B, A, D) -> (B, H, W)."""


class Seen(NamedTuple):
    """What an evaluation without ground truth finds."""

    titles: dict[str, str]
    metrics: dict[str, dict[str, float]]
    """Of each method the mean squared error, the noise in 1/m, the resolution in cycles a mm, and on which share of the
    images its squared error is less than that of the best Hann."""

    measured: dict[str, Any]
    cutoff: float
    """Of the Hann with the least squared error on these images."""

    risks_csv: str
    pictures: dict[str, bytes]
    kept: bytes


def refuse_what_needs_truth(config: EvaluateConfig, folder: object) -> None:
    """Raises ConfigError where an option asks for what needs ground truth."""
    given = {
        "--protocol": config.protocol is not None,
        "--metrics.own": bool(config.metrics.own),
        "--hann_psnr": config.hann_psnr is not None,
        "--hann_ssim": config.hann_ssim is not None,
    }
    for option, there in given.items():
        if there:
            raise ConfigError(
                f"{option} needs ground truth, and the {config.split} part of {folder} has no "
                f"ground_truth_{config.split}_*.hdf5; add it, or leave {option} out"
            )


def look(model: LearnableFBP, dataset: LoDoPaB, panels: int, device: torch.device) -> Seen:
    """Compares a model with the ramp and every Hann, on a part without ground truth.

    Args:
        model: what is judged.
        dataset: the part.
        panels: how many images are shown.
        device: where the model is.

    Raises:
        ConfigError: the scan has too few angles to be split.
    """
    geometry = dataset.geometry
    ramp = Method("FBP, ramp", lambda rays, some: fbp(rays, some, "none"), lambda rays: fbp(rays, geometry, "none"))
    learned = Method("learned FBP", lambda rays, some: model(rays, some=some), model)
    split = _split(dataset, model.config.window.photons)
    risks = _risks([ramp.some, learned.some, *map(hann, CUTOFFS)], dataset, split, device)
    least = int(risks[2:].mean(1).argmin())
    cutoff = CUTOFFS[least]
    best = Method(
        f"FBP, Hann {cutoff:.2f} (least here)", hann(cutoff), lambda rays: fbp(rays, geometry, "hann", cutoff)
    )
    methods = {"ramp": ramp, "hann_risk": best, "learned": learned}
    of = {"ramp": risks[0], "hann_risk": risks[2 + least], "learned": risks[1]}
    metrics, curves, times = _halves(methods, dataset, split, device)
    for name, row in metrics.items():
        row["risk"] = float(of[name].mean())
        row["less_than_hann"] = float((of[name] < of["hann_risk"]).mean())
    pictures, kept, grey = _pictures(methods, dataset, panels, device)
    measured = {
        "milliseconds": times,
        "batch": BATCH,
        "machine": f"{device.type}, {torch.get_num_threads()} threads",
        "alone": {
            "cutoffs": CUTOFFS,
            "risks": risks[2:].mean(1).tolist(),
            "grey": grey,
            "unit": unit_of(dataset.folder),
            **curves,
        },
    }
    titles = {name: method.title for name, method in methods.items()}
    return Seen(titles, metrics, measured, cutoff, _as_csv(dataset, of), pictures, kept)


def _split(dataset: LoDoPaB, told: object) -> Split:
    """By angles; those of a fan beam, which cannot be rebinned without some of them, by photons.

    Args:
        dataset: the part.
        told: the photons of a ray that the model was told; they count where the data do not say.
    """
    geometry = dataset.geometry
    if not isinstance(geometry, FanBeam):
        return ByAngles(geometry)
    photons = photons_of(dataset.folder)
    if photons is None and isinstance(told, float):
        photons = told
    if photons is None:
        raise ConfigError(
            "without ground truth a fan-beam scan is judged by holding out some photons of each ray, and neither "
            f"{dataset.folder} nor the model says how many a ray has that meets nothing (the flats less the darks, "
            "divided by the detector's counts for a photon); add `photons` to its dataset.json"
        )
    return ByPhotons(geometry, photons, unit_of(dataset.folder))


def _risks(
    reconstructs: list[Reconstruct], dataset: LoDoPaB, split: Split, device: torch.device
) -> NDArray[np.float64]:
    """The squared error of each image, as the scan tells it: (methods, images)."""
    found = []
    with progress("Estimating squared errors", len(dataset)) as advance, torch.no_grad():
        for batch in DataLoader(dataset, BATCH):
            sinogram, index = batch.observation.to(device), torch.as_tensor(batch.index)
            found.append(self_risks(reconstructs, sinogram, index, split).cpu().numpy())
            advance(len(index))
    return np.concatenate(found, axis=1)


def _halves(
    methods: dict[str, Method], dataset: LoDoPaB, split: Split, device: torch.device
) -> tuple[dict[str, dict[str, float]], dict[str, Any], dict[str, float]]:
    """Each method's noise and resolution from the images of either half of the scan; curves; ms an image."""
    geometry = dataset.geometry
    shape = geometry.image_shape
    rings = {name: Rings(shape) for name in methods}
    power: dict[str, list[NDArray[np.float64]]] = {name: [] for name in methods}
    variance: dict[str, list[float]] = {name: [] for name in methods}
    times: dict[str, list[float]] = {name: [] for name in methods}
    middle = _middle(shape)
    frequency = np.zeros(0)
    with progress("Comparing halves of the scans", len(dataset)) as advance, torch.no_grad():
        for batch in DataLoader(dataset, BATCH):
            sinogram = batch.observation.to(device)
            parts = split.halves(sinogram, torch.as_tensor(batch.index))
            halves = (parts.seen, parts.seen_scan), (parts.held_out, parts.held_out_scan)
            for name, method in methods.items():
                one, other = (method.some(*half).double().cpu().numpy() for half in halves)
                rings[name].add(one, other)
                noise = (one - other)[:, *middle] * (unit_of(dataset.folder) / 2)
                variance[name] += noise.var((-2, -1)).tolist()
                frequency, spectrum = noise_power(noise)
                power[name] += [spectrum] * len(noise)
                if len(sinogram) == BATCH:
                    times[name].append(timed(method.whole, sinogram)[1])
            advance(len(sinogram))
        each = {name: milliseconds(one.whole, times[name], sinogram, BATCH) for name, one in methods.items()}
    pixel = 1e3 * geometry.pixel_size  # mm
    metrics = {
        name: {
            "noise": float(np.sqrt(np.mean(variance[name]))),
            "resolved": rings[name].resolved(rings["ramp"]) / pixel,
        }
        for name in methods
    }
    curves = {
        "ring_frequency": (rings["learned"].frequency / pixel).tolist(),
        "half_bit": rings["learned"].half_bit.tolist(),
        "correlation": {name: rings[name].correlation.tolist() for name in methods},
        "noise_frequency": (frequency / pixel).tolist(),
        "noise_power": {name: (np.mean(power[name], 0) * pixel**2).tolist() for name in methods},
    }
    return metrics, curves, each


def _pictures(
    methods: dict[str, Method], dataset: LoDoPaB, panels: int, device: torch.device
) -> tuple[dict[str, bytes], bytes, list[float]]:
    """Pictures of evenly spaced images by file name, the content of images.npz, and the range that all are shown in."""
    chosen = evenly_spaced(len(dataset), panels)
    images: dict[str, list[Tensor]] = {"hann_risk": [], "learned": []}
    with torch.no_grad():
        for index in chosen:
            sinogram = dataset[index].observation[None].to(device)
            for name, found in images.items():
                found.append(methods[name].whole(sinogram)[0].float().cpu())
    content = io.BytesIO()
    arrays: dict[str, Any] = {name: np.stack(found[:3]) for name, found in images.items() if found}
    np.savez(content, **arrays)
    if not chosen:
        return {}, content.getvalue(), []
    inner = torch.stack(images["hann_risk"]).numpy()[:, *_middle(dataset.geometry.image_shape)]  # no bright border
    low, high = (float(f"{edge:.2g}") for edge in np.percentile(inner, [0.5, 99.5]))
    high = max(high, low + 1e-9)
    reach = float(f"{DIFFERENCES * (high - low):.1g}")
    grey, difference = Scale(low, high, "gray"), Scale(-reach, reach, "RdBu_r")
    title = methods["hann_risk"].title.removesuffix(" (least here)")
    pictures = {
        f"image_{index:04d}.png": as_png(strip(classic, learned, None, title, grey, difference))
        for index, classic, learned in zip(chosen, images["hann_risk"], images["learned"], strict=True)
    }
    return pictures, content.getvalue(), [low, high, reach]


def _middle(shape: tuple[int, int]) -> tuple[slice, slice]:
    """The square in the middle of an image, of an even number of pixels a side."""
    side = max(4, int(MIDDLE * min(shape)) // 2 * 2)
    first, second = (slice((length - side) // 2, (length - side) // 2 + side) for length in shape)
    return first, second


def _as_csv(dataset: LoDoPaB, risks: dict[str, NDArray[np.float64]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "name", *risks])
    for index in range(len(dataset)):
        writer.writerow([index, dataset.name(index), *(float(of[index]) for of in risks.values())])
    return text.getvalue()


def alone_table(part: str, images: int, seen: Seen, geometry: Geometry) -> Table:
    """The figures on the terminal."""
    caption = (
        "squared error: in the data's unit, squared, estimated without ground truth; it compares methods, and is too "
        "low for each. Resolution: the shortest period of which images of half the angles each agree (half-bit), and "
        "of which a tenth is left"
    )
    table = Table(title=f"{part} part, {images} images, without ground truth", caption=caption)
    table.add_column("method")
    for column in ("squared error", "less than the Hann's on", "noise 1/m", "resolution mm", "ms an image"):
        table.add_column(column, justify="right")
    for name, row in seen.metrics.items():
        table.add_row(
            seen.titles[name],
            f"{row['risk']:.4g}",
            "" if name == "hann_risk" else f"{row['less_than_hann']:.0%}",
            f"{row['noise']:.3g}",
            resolution(row["resolved"], geometry),
            f"{seen.measured['milliseconds'][name]:.2f}",
        )
    return table


def resolution(resolved: float, geometry: Geometry) -> str:
    """The shortest period that is resolved, in mm."""
    if not resolved:
        return "none"
    finest = resolved * 1e3 * geometry.pixel_size >= 0.5
    return f"{'below ' if finest else ''}{1 / resolved:.3g}"
