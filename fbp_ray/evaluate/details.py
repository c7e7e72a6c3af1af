"""What an evaluation leaves for its report beside the figures: time, noise, resolution, and three images as they are.

measured.json   milliseconds an image, noise power spectra, transfer functions, which images are kept
images.npz      of these the ground truth and the reconstructions, (n, H, W) float16, or float32 where they are no CT
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fbp_ray.baseline import Quality
from fbp_ray.data import LoDoPaB
from fbp_ray.data.layout import MU_MAX, unit_of
from fbp_ray.data.values import BRIGHTEST, in_hounsfield
from fbp_ray.evaluate.phantom import look_apart
from fbp_ray.geometry import Geometry
from fbp_ray.versions import processor

Reconstruct = Callable[[Tensor], Tensor]

ROUNDS, BRIEFLY = 3, 0.3  # rounds of a timing of its own, and seconds after which no other begins
MOST_SCANS, LEAST_SCANS, SCANNING = 8, 4, 0.4  # of the phantom; seconds that they may take a method


def timed(reconstruct: Reconstruct, sinograms: Tensor) -> tuple[Tensor, float]:
    """The images, and the milliseconds that each took."""
    began = time.perf_counter()
    images = reconstruct(sinograms)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return images, 1e3 * (time.perf_counter() - began) / len(sinograms)


def milliseconds(reconstruct: Reconstruct, seen: Sequence[float], few: Tensor, batch: int) -> float:
    """The median time of an image in a whole batch.

    Args:
        reconstruct: the method.
        seen: the times in whole batches so far; the first, in which something may be compiled, does not count.
        few: some sinograms (n, A, D), which are repeated and timed where there were no batches.
        batch: its size.
    """
    times = list(seen[1:])
    if not times:
        sinograms = few.repeat(-(-batch // len(few)), 1, 1)[:batch]
        began = time.perf_counter()
        while not times or (len(times) < ROUNDS and time.perf_counter() - began < BRIEFLY):
            times.append(timed(reconstruct, sinograms)[1])
    return median(times)


def measure(
    methods: Mapping[str, Reconstruct],
    times: Mapping[str, float],
    batch: int,
    geometry: Geometry,
    photons: float | None,
    device: torch.device,
    unit: float = MU_MAX,
    high: float = BRIGHTEST,
) -> dict[str, Any]:
    """Time, noise and resolution of methods, for measured.json.

    Args:
        methods: by name.
        times: milliseconds an image of each.
        batch: in which they were taken.
        geometry: the scan.
        photons: as `look_apart` takes them.
        device: where the methods are.
        unit: 1/m that the value 1 of the images stands for.
        high: what the densest things of images have.
    """
    apart, scans = {}, {}
    for name, reconstruct in methods.items():
        scans[name] = max(LEAST_SCANS, min(MOST_SCANS, int(1e3 * SCANNING / times[name])))
        apart[name] = look_apart(reconstruct, geometry, photons, scans[name], device, unit, high)
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "milliseconds": dict(times),
        "batch": batch,
        "machine": f"{on}, {torch.get_num_threads()} threads",
        "photons": photons,
        "unit": unit,
        "brightest": high,
        "scans": scans,
        "noise": {
            name: {"hu": one.noise, "frequency": one.frequency.tolist(), "power": one.power.tolist()}
            for name, one in apart.items()
        },
        "edges": {
            name: {
                edge: {"half": one.half(edge), "frequency": frequency.tolist(), "transfer": transfer.tolist()}
                for edge, (frequency, transfer) in one.edges.items()
            }
            for name, one in apart.items()
        },
    }


def chosen(gains: Sequence[float]) -> dict[str, int]:
    """Which images have the highest, the median and the lowest gain; one that has no gain is none of them."""
    order = [index for index in np.argsort(gains, kind="stable") if np.isfinite(gains[index])] or [0]
    places = {"best": -1, "median": len(order) // 2, "worst": 0}
    return {what: int(order[place]) for what, place in places.items()}


def kept_images(
    dataset: LoDoPaB,
    methods: Mapping[str, Reconstruct],
    qualities: Mapping[str, Sequence[Quality]],
    patients: Sequence[str] | None,
    device: torch.device,
) -> tuple[list[dict[str, Any]], bytes]:
    """The images with the best, the median and the worst gain of "learned" over "hann_psnr", and images.npz.

    The gain is one in PSNR, which does not depend on the range: so a blank image has one too.
    """
    learned, hann = qualities["learned"], qualities["hann_psnr"]
    gains = [one.psnr_fr - other.psnr_fr for one, other in zip(learned, hann, strict=True)]
    kind = torch.float16 if in_hounsfield(unit_of(dataset.folder)) else torch.float32  # values of any size
    about: list[dict[str, Any]] = []
    arrays: dict[str, list[Any]] = {name: [] for name in ("truth", *methods)}
    for what, index in chosen(gains).items():
        if any(index == other["index"] for other in about):
            continue
        sample = dataset[index]
        arrays["truth"].append(sample.ground_truth.to(kind).numpy())
        for name, reconstruct in methods.items():
            arrays[name].append(reconstruct(sample.observation[None].to(device))[0].to(kind).cpu().numpy())
        about.append(
            {
                "what": what,
                "index": index,
                "name": dataset.name(index),
                "patient": patients[index] if patients else None,
                "gain": gains[index],
                "quality": {name: qualities[name][index]._asdict() for name in methods},
            }
        )
    content = io.BytesIO()
    stacked: dict[str, Any] = {name: np.stack(rows) for name, rows in arrays.items()}
    np.savez(content, **stacked)
    return about, content.getvalue()
