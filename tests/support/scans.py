"""Small simulated data sets for tests of training and evaluation: smooth random images, real noise, a coarse scan."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from fbp_ray.geometry import FanBeam, ParallelBeam, RegularAngles
from fbp_ray.projector import project

MU_MAX = 81.35858
COARSE = ParallelBeam(
    angles=RegularAngles(count=60, first=math.pi / 120, step=math.pi / 60),
    cells=67,
    cell_size=0.0055,
    image_shape=(47, 47),
    pixel_size=0.26 / 47,
)
PARALLEL = ParallelBeam(
    angles=tuple(k * math.pi / 40 for k in range(40)),
    cells=31,
    cell_size=1e-3,
    image_shape=(20, 18),
    pixel_size=1e-3,
)
FAN = FanBeam(
    angles=RegularAngles(count=48, first=0, step=math.pi / 24),
    cells=30,
    cell_size=2e-3,
    image_shape=(20, 18),
    pixel_size=1e-3,
    source_to_axis=0.1,
    source_to_detector=0.2,
)


def smooth_images(
    count: int, geometry: ParallelBeam, seed: int, widths: tuple[float, float] = (0.1, 0.25)
) -> NDArray[np.float32]:
    """Sums of a few broad Gaussians, (count, H, W), values about 0 to 0.5, nothing near the border."""
    rng = np.random.default_rng(seed)
    x, y = geometry.x[:, None] / geometry.x[-1], geometry.y[None, :] / geometry.y[-1]
    images = np.zeros((count, *geometry.image_shape))
    for image in images:
        for _ in range(6):
            centre, width = rng.uniform(-0.5, 0.5, 2), rng.uniform(*widths)
            image += rng.uniform(0.1, 0.3) * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * width**2))
    return images.astype(np.float32)


def write_scan(
    folder: Path,
    geometry: ParallelBeam = COARSE,
    *,
    train: int = 12,
    validation: int = 5,
    test: int = 4,
    photons: float = 1000.0,
) -> Path:
    """Writes the three parts in the layout of LoDoPaB-CT, with `dataset.json` for the geometry."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (part, count) in enumerate({"train": train, "validation": validation, "test": test}.items()):
        images = smooth_images(count, geometry, seed)
        integrals = project(torch.from_numpy(images).double(), geometry).numpy() * MU_MAX
        counts = np.random.default_rng(100 + seed).poisson(photons * np.exp(-integrals))
        observations = (-np.log(np.maximum(counts, 0.1) / photons) / MU_MAX).astype(np.float32)
        for kind, array in (("observation", observations), ("ground_truth", images)):
            with h5py.File(folder / f"{kind}_{part}_000.hdf5", "w") as file:
                file.create_dataset("data", data=array, chunks=(1, *array.shape[1:]))
    (folder / "dataset.json").write_text(f'{{"geometry": {geometry.model_dump_json()}}}')
    return folder
