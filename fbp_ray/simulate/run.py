"""One simulation from beginning to end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fbp_ray.data.layout import describe
from fbp_ray.errors import ConfigError, DataError
from fbp_ray.geometry import ParallelBeam
from fbp_ray.progress import progress
from fbp_ray.simulate.config import SimulateConfig
from fbp_ray.simulate.dicom import dicom_folder
from fbp_ray.simulate.phantoms import phantoms
from fbp_ray.simulate.protocol import finer, generator, ground_truth, observe
from fbp_ray.simulate.rays import LANES, project_rays
from fbp_ray.simulate.sample import FetchError, sample
from fbp_ray.simulate.source import Part, Slice, Source
from fbp_ray.simulate.split import divide
from fbp_ray.simulate.stacks import INDEX, stack_folder
from fbp_ray.simulate.writer import (
    ROWS,
    attribution,
    check_room,
    file_pair,
    whole_folder,
    write_description,
    write_patients,
)

STAND_INS: dict[Part | None, int] = {"train": 48, "validation": 16, "test": 64}
"""Phantoms in the place of the sample's slices, as many as those, where they cannot be fetched."""


def sample_data(folder: Path = Path("data/sample")) -> Path:
    """The sample data, made at first use; returns their folder. Errors as of `simulate`."""
    simulate(SimulateConfig(sample=True, out=folder, test=32))
    return folder


def simulate(config: SimulateConfig) -> None:
    """Writes the data that `config` asks for, or finds that they are there already.

    The data depend on the request alone, not on the number of threads. (Another kind of processor may round the line
    integrals differently, and with them now and then a photon count.)

    Raises:
        ConfigError: the target folder holds something else, or the options do not fit the source.
        DataError: the source is missing, damaged or of another kind.
        RunError: the folder could not be written.
    """
    if _is_there(config):
        return
    geometry = config.scan()
    source = _source(config, geometry)
    parts = divide(source, config)
    patients = {name: number for number, name in enumerate(sorted({piece.patient for piece in source.slices}))}
    total = sum(len(slices) for slices in parts.values())
    check_room(config.out.absolute(), total, geometry)
    with whole_folder(config.out.absolute()) as folder, progress("Simulating", total) as advance:
        for part, slices in parts.items():
            for number, first in enumerate(range(0, len(slices), ROWS)):
                rows = slices[first : first + ROWS]
                with file_pair(folder, part, number, len(rows), geometry) as (observations, images):
                    for batch in _batches(len(rows)):
                        observations[batch], images[batch] = scan(rows[batch], geometry, config.photons, config.seed)
                        advance(len(rows[batch]))
            write_patients(folder, part, [patients[piece.patient] for piece in slices])
        write_description(folder, _description(config, geometry, source, parts, patients))
        if source.origins:
            (folder / "ATTRIBUTION.md").write_text(attribution(source.origins), encoding="utf-8")
    counts = ", ".join(f"{len(slices)} {part}" for part, slices in parts.items())
    print(f"Wrote {config.out}: {counts} samples from {source.kind} ({config.photons:g} photons, seed {config.seed})")
    if source.origins:
        print(f"\n{attribution(source.origins)}")


def scan(
    slices: list[Slice], geometry: ParallelBeam, photons: float, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Observations (B, A, D) and ground truths (B, H, W) of some slices, both divided by MU_MAX."""
    randoms = [generator(seed, piece.name) for piece in slices]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        images = list(
            pool.map(lambda piece, random: ground_truth(piece.load(), geometry, random, piece.name), slices, randoms)
        )
        line_integrals = project_rays(np.stack(list(pool.map(finer, images))), geometry)
        observations = list(pool.map(lambda line, random: observe(line, photons, random), line_integrals, randoms))
    return np.stack(observations), np.stack(images)


def _batches(rows: int) -> Iterator[slice]:
    return (slice(first, first + LANES) for first in range(0, rows, LANES))


def _is_there(config: SimulateConfig) -> bool:
    """Whether the data are there already; raises ConfigError where something else is."""
    out = config.out
    if not out.exists():
        return False
    if not out.is_dir():
        raise ConfigError(f"{out} is a file; choose another --out")
    if not any(out.iterdir()):
        return False
    description = describe(out)
    if description is None or description.get("request") != config.request():
        held = "data of another request" if description else "something else"
        raise ConfigError(f"{out} holds {held}; choose another --out, or remove it first: nothing is overwritten")
    print(f"{out} holds these data already ({description.get('source')}); nothing to do")
    if description.get("note"):
        print(f"{description['note']} Remove {out} to try again.")
    return True


def _source(config: SimulateConfig, geometry: ParallelBeam) -> Source:
    if config.phantoms is not None:
        return phantoms({None: config.phantoms}, geometry.image_shape, config.seed)
    if config.images is not None:
        return _folder(config.images)
    try:
        return sample()
    except FetchError as error:
        print(f"The sample's scans are not to be had: {error}. Using phantoms instead.", file=sys.stderr)
        return phantoms({**STAND_INS}, geometry.image_shape, config.seed)


def _folder(folder: Path) -> Source:
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; --images takes a folder of DICOM files, or of .npz files")
    if (folder / INDEX).is_file():
        return stack_folder(folder)
    if any(folder.glob("*.npz")):
        raise DataError(f"{folder} has .npz files but no {INDEX} that says whose they are (fbp_ray/simulate/stacks.py)")
    return dicom_folder(folder)


def _description(
    config: SimulateConfig,
    geometry: ParallelBeam,
    source: Source,
    parts: dict[Part, list[Slice]],
    patients: dict[str, int],
) -> dict[str, Any]:
    instead = config.sample and not source.origins
    return {
        "source": source.kind,
        "note": "Phantoms stand in for the sample's scans, which could not be fetched." if instead else None,
        "geometry": geometry.model_dump(mode="json"),
        "photons": config.photons,
        "seed": config.seed,
        "samples": {part: len(slices) for part, slices in parts.items()},
        "split": source.split or "by patient, drawn with the seed",
        "patients": {
            part: {name: patients[name] for name in sorted({piece.patient for piece in slices})}
            for part, slices in parts.items()
        },
        "origins": [vars(origin) for origin in source.origins],
        "request": config.request(),
    }
