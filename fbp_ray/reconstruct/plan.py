"""What a command asks for with nothing left open: the same command is known again, and any machine can do it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fbp_ray.checkpoint import Manifest, check_geometry, read_manifest
from fbp_ray.data import describe, geometry_of, photons_of
from fbp_ray.data.layout import DESCRIPTION, find_observations, find_parts, unit_of
from fbp_ray.errors import CheckpointError, ConfigError
from fbp_ray.geometry import Geometry
from fbp_ray.reconstruct import ReconstructConfig
from fbp_ray.reconstruct.rows import Run, find_rows
from fbp_ray.reconstruct.volume import Layout
from fbp_ray.settings import Frozen
from fbp_ray.shipped import shipped_models
from fbp_ray.stage_settings import WindowConfig, WindowName
from fbp_ray.storage import absolute

BY_NOISE = ("ray_noise", "adaptive", "zeng")
"""Kinds of windows that go by the photons of a ray."""

MOST_ROWS = 32  # more at a time are no faster
MEMORY = 3.2e9  # bytes that the rows of a slab may take


class Classic(Frozen):
    """The classic FBP."""

    window: WindowName
    cutoff: float


class Trained(Frozen):
    """A model that was trained."""

    checkpoint: str
    weights: str
    """Their SHA-256: the checkpoint may be another one later."""

    photons: float | Literal["estimate"] | None
    """What its window is told, None where it goes by no photons, or by those that it was trained for."""


class Plan(Frozen):
    """A volume that is to be made."""

    data: str
    files: str
    """A digest of the names, sizes and times of the data's files."""

    geometry: Geometry
    every: int = 1
    first_angles: int | None = None
    """The angles of the data that are taken."""

    unit: float
    """The attenuation in 1/m that the value 1 of the data stands for."""

    row_size: float
    """Metres from one of the rows to the next."""

    runs: tuple[Run, ...]
    method: Classic | Trained = Field(union_mode="smart")
    slab: Annotated[int, Field(ge=1)]

    @property
    def scan(self) -> Geometry:
        """The geometry of the sinograms that are reconstructed."""
        return self.geometry.part(self.first_angles, self.every)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, H, W) of the volume."""
        return (sum(run.length for run in self.runs), *self.geometry.image_shape)

    @property
    def slabs(self) -> int:
        """How many there are."""
        return -(-self.shape[0] // self.slab)

    def rows_of(self, slab: int) -> tuple[int, int]:
        """The first of a slab's rows in the volume, and the one after its last."""
        return slab * self.slab, min((slab + 1) * self.slab, self.shape[0])

    @property
    def layout(self) -> Layout:
        """What the volume holds."""
        pixel = self.geometry.pixel_size
        about = {
            "unit": "1/m",
            "axes": ["row", "x", "y"],
            "voxel_size_m": [self.row_size, pixel, pixel],
            "rows": self._rows,
            "method": self.method.model_dump(),
            "data": self.data,
            "geometry": self.scan.model_dump(mode="json"),
            "request": self.request,
        }
        return Layout(self.shape, self.slab, about)

    @property
    def _rows(self) -> list[list[int]]:
        """The scan's rows as [first, end], without the end itself."""
        joined: list[list[int]] = []
        for run in self.runs:
            if joined and joined[-1][1] == run.row:
                joined[-1][1] += run.length
            else:
                joined.append([run.row, run.row + run.length])
        return joined

    @property
    def request(self) -> str:
        """Twelve digits that name what was asked for; the data's files may have been copied since."""
        return hashlib.sha256(self.model_copy(update={"files": ""}).model_dump_json().encode()).hexdigest()[:12]

    def differs_from(self, other: Plan) -> str:
        """What another one has else, in words; empty for the same."""
        named = {
            "data": "of other data",
            "geometry": "of another geometry",
            "every": "of other angles",
            "first_angles": "of other angles",
            "runs": "of other rows",
            "method": "by another method",
            "slab": "in slabs of another size (--slab)",
            "files": "of these data as they were before they changed",
        }
        return next((words for name, words in named.items() if getattr(self, name) != getattr(other, name)), "")


def make_plan(config: ReconstructConfig) -> Plan:
    """What the options ask for.

    Raises:
        CheckpointError: there is no checkpoint, or it is for another geometry than that of the data.
        ConfigError: a model by noise is not told the photons.
        DataError: the data cannot be used, or have no such rows.
    """
    folder = config.data.dir.absolute()
    find_observations(folder, config.part or find_parts(folder)[0])
    geometry = geometry_of(folder)
    every, first = 1, None
    method: Classic | Trained
    if config.window is not None:
        method = Classic(window=config.window, cutoff=config.cutoff or 1.0)
        network = noise = False
    else:
        manifest = read_manifest(str(config.checkpoint))
        if geometry != manifest.model.geometry:
            every, first = manifest.data.get("every") or 1, manifest.data.get("first_angles")
        check_geometry(str(config.checkpoint), manifest, geometry.part(first, every))
        method = _trained(config, manifest, folder)
        network = manifest.model.postprocessing.kind != "identity"
        noise = manifest.model.window.kind in BY_NOISE
    runs = find_rows(folder, geometry, config.part, config.rows)
    plan = Plan(
        data=str(folder),
        files=_digest(folder, {run.part for run in runs}),
        geometry=geometry,
        every=every,
        first_angles=first,
        unit=unit_of(folder),
        row_size=_row_size(folder, geometry, runs),
        runs=tuple(runs),
        method=method,
        slab=config.slab or 1,
    )
    if config.slab is None:
        rows = rows_a_slab(plan.scan, noise or network)
        plan = plan.model_copy(update={"slab": min(rows, plan.shape[0])})
    return plan


def rows_a_slab(geometry: Geometry, costly: bool) -> int:
    """How many rows are reconstructed at a time where nobody says: by the geometry alone, as the bytes depend on it.

    The sinograms are there three times, as read, filtered and those that are read meanwhile, and so are the images.

    Args:
        geometry: of the sinograms.
        costly: the window or the network takes about as much again.
    """
    row = 12 * (math.prod(geometry.sinogram_shape) + math.prod(geometry.image_shape)) * (2 if costly else 1)
    return next((rows for rows in (MOST_ROWS, 16, 8, 4, 2) if rows * row <= MEMORY), 1)


def _trained(config: ReconstructConfig, manifest: Manifest, folder: Path) -> Trained:
    window = manifest.model.window
    place = str(config.checkpoint)
    try:
        weights = manifest.sha256["weights"]
    except KeyError:
        raise CheckpointError(f"the manifest of {place} names no weights; use another checkpoint") from None
    return Trained(
        checkpoint=place if place in shipped_models() else absolute(place),
        weights=weights,
        photons=_photons(config, window, folder),
    )


def _photons(config: ReconstructConfig, window: WindowConfig, folder: Path) -> float | Literal["estimate"] | None:
    """What the window is told of the photons: what the options say, else the data; None where it wants to know none."""
    if window.kind not in BY_NOISE:
        if config.photons is not None:
            raise ConfigError(
                f"--photons is for a window that goes by the noise, {', '.join(BY_NOISE)}, but that of "
                f"{config.checkpoint} is {window.kind}; leave it out"
            )
        return None
    if config.photons is not None or not isinstance(window.photons, float):
        return config.photons
    photons = photons_of(folder)
    if photons is None:
        raise ConfigError(
            f"the window of {config.checkpoint} ({window.kind}) goes by the photons of a ray, as it was trained with "
            f"{window.photons:g}, but {folder / DESCRIPTION} has no `photons`; say how many a ray has that meets "
            "nothing: --photons N, or have them estimated from each sinogram: --photons estimate"
        )
    return None if photons == window.photons else photons


def _row_size(folder: Path, geometry: Geometry, runs: Sequence[Run]) -> float:
    """Metres from row to row: as the data say, else the width of a cell, as cells are square."""
    size = (describe(folder) or {}).get("row_size")
    pitch = float(size) if isinstance(size, int | float) and size > 0 else geometry.parallel.cell_size
    steps = {after.row - run.row for run, after in pairwise(runs)}
    return pitch * (steps.pop() if len(steps) == 1 and all(run.length == 1 for run in runs) else 1)


def _digest(folder: Path, parts: Collection[str]) -> str:
    files = [file for part in sorted(parts) for file in find_observations(folder, part)]
    about = [(file.name, (of := file.stat()).st_size, of.st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]
