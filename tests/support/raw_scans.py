"""Raw scans with a known object, axis and counts, and the files that they are written to."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from scipy import io as matlab

from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.projector import project


class Raw(NamedTuple):
    """Counts of a scan."""

    projections: NDArray[np.uint16]
    """(A, R, D)"""
    flats: NDArray[np.uint16]
    darks: NDArray[np.uint16]
    degrees: NDArray[np.float64]
    integrals: NDArray[np.float64]
    """(R, A, D), without noise."""


def simulated(
    rows: int = 6,
    angles: int = 90,
    cells: int = 48,
    axis: float = 24.0,
    photons: float = 4096,
    rings: float = 0.02,
    turn: float = 180.0,
    seed: int = 0,
) -> Raw:
    """An ellipse with discs in it, turned about a column; each column of each row counts a little more or less."""
    random = np.random.default_rng(seed)
    size = 2 * int(min(axis, cells - 1 - axis) * 0.68)
    geometry = ParallelBeam(
        angles=RegularAngles(count=angles, first=0.0, step=math.radians(turn) / angles),
        cells=cells,
        cell_size=1 / cells,
        image_shape=(size, size),
        pixel_size=1 / cells,
        axis_offset=(axis - (cells - 1) / 2) / cells,
    )
    x, y = np.meshgrid(*2 * [np.linspace(-1, 1, size)], indexing="ij")
    images = np.zeros((rows, size, size))
    for image in images:
        image[(x / 0.9) ** 2 + (y / 0.75) ** 2 < 1] = 1.5
        for _ in range(6):
            centre, radius = random.uniform(-0.45, 0.45, 2), random.uniform(0.08, 0.3)
            image[np.hypot(x - centre[0], y - centre[1]) < radius] += random.uniform(-1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        integrals = project(torch.from_numpy(images), geometry).numpy()
    gain = 1 + rings * random.standard_normal((rows, 1, cells))
    profile = photons * (1 + 0.1 * np.cos(np.linspace(-1, 1, cells)))
    counts = random.poisson(profile * np.exp(-integrals)) * gain + 100
    flats = random.poisson(profile, (9, rows, cells)) * 1.0 + 100
    return Raw(
        counts.transpose(1, 0, 2).round().astype(np.uint16),
        flats.round().astype(np.uint16),
        np.full((2, rows, cells), 100, np.uint16),
        np.rad2deg(geometry.theta),
        integrals,
    )


def write_nexus(path: Path, raw: Raw) -> Path:
    """Half of the flats before the projections and the others after, as NXtomo."""
    before, after = raw.flats[:4], raw.flats[4:]
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry1/tomo_entry")
        detector = entry.create_group("instrument/detector")
        detector["data"] = np.concatenate([before, raw.darks, raw.projections, after])
        counts = (len(before), len(raw.darks), len(raw.projections), len(after))
        detector["image_key"] = np.repeat([1, 2, 0, 1], counts)
        around = [np.full(counts[0] + counts[1], raw.degrees[0]), raw.degrees, np.full(counts[3], raw.degrees[-1])]
        entry["sample/rotation_angle"] = np.concatenate(around)
        entry["sample/rotation_angle"].attrs["units"] = "degrees"
        entry["data/data"] = h5py.SoftLink("/entry1/tomo_entry/instrument/detector/data")
        entry["data/rotation_angle"] = h5py.SoftLink("/entry1/tomo_entry/sample/rotation_angle")
    return path


def write_dxchange(path: Path, raw: Raw) -> Path:
    """As DXchange has it."""
    with h5py.File(path, "w") as file:
        file["exchange/data"], file["exchange/theta"] = raw.projections, raw.degrees
        file["exchange/data_white"], file["exchange/data_dark"] = raw.flats, raw.darks
    return path


def write_tiffs(folder: Path, raw: Raw) -> Path:
    """A folder of TIFF files."""
    for name, images in (("projections", raw.projections), ("flats", raw.flats), ("darks", raw.darks)):
        (folder / name).mkdir(parents=True)
        for number, image in enumerate(images):
            tifffile.imwrite(folder / name / f"image_{number}.tif", image)
    np.savetxt(folder / "angles.txt", raw.degrees, fmt="%.17g")
    return folder


def write_variables(path: Path, raw: Raw) -> Path:
    """Named variables in .npz, or in .mat of version 5 or (`_73.mat`) 7.3; projections, or sinograms in .mat files."""
    sinograms = raw.projections.transpose(1, 0, 2)
    if path.suffix == ".npz":
        np.savez(path, projections=raw.projections, flat=raw.flats, dark=raw.darks, angles_deg=raw.degrees)
    elif path.stem.endswith("_73"):
        with h5py.File(path, "w") as file:
            file["sino"], file["angles"] = sinograms.T, raw.degrees[:, None]
            file["flats"], file["darks"] = raw.flats.T, raw.darks.T
    else:
        matlab.savemat(path, {"sino": sinograms, "angles": raw.degrees, "flats": raw.flats, "darks": raw.darks})
    return path
