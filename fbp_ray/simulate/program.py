"""What a simulation does: the data folder that it writes, whole or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from fbp_ray.cli import progress
from fbp_ray.data.layout import DESCRIPTION, describe, file_name
from fbp_ray.errors import ConfigError, DataError, RunError
from fbp_ray.geometry import Geometry
from fbp_ray.package_index import FetchError
from fbp_ray.simulate import SimulateConfig
from fbp_ray.simulate.dicom import dicom_folder
from fbp_ray.simulate.protocol import LANES, centre, finer, generator, ground_truth, observe, project_rays
from fbp_ray.simulate.sample import sample
from fbp_ray.simulate.sources import INDEX, INDEX_EXAMPLE, Origin, Part, Slice, Source, divide, phantoms, stack_folder

ROWS = 128
"""Samples a file, as in LoDoPaB-CT."""

STAND_INS: dict[Part | None, int] = {"train": 72, "validation": 32, "test": 64}
"""Phantoms that take the place of the sample's slices, as many as those, where they cannot be fetched."""


def write_data(config: SimulateConfig) -> None:
    """Writes the data that `config` asks for, or finds that they are there already; see `simulate`."""
    if _exists(config):
        return
    geometry = config.load_geometry()
    source = _source(config, geometry)
    limits: dict[Part, int | None] = {"train": config.train, "validation": config.validation, "test": config.test}
    others = ", ".join(f"{count} x {kind}" for kind, count in sorted(source.passed_over.items()))
    print(f"Found {_count(source.slices)} ({source.kind})" + (f"; passed over: {others}" if others else ""))
    parts = divide(source, config.split, limits, config.seed)
    for part, slices in parts.items():
        print(f"  {part}: {_count(slices)}")
    total = sum(len(slices) for slices in parts.values())
    target = config.out.absolute()
    _check_free_space(target, total, geometry)
    patients = {name: number for number, name in enumerate(sorted({piece.patient for piece in source.slices}))}
    with whole_folder(target) as folder, progress("Simulating", total) as advance:
        for part, slices in parts.items():
            for number, first in enumerate(range(0, len(slices), ROWS)):
                _write_files(folder, part, number, slices[first : first + ROWS], geometry, config, advance)
            numbers = "".join(f"{patients[piece.patient]}\n" for piece in slices)
            (folder / f"patient_ids_rand_{part}.csv").write_text(numbers, encoding="utf-8")
        description = _description(config, geometry, source, parts, patients)
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        if source.origins:
            (folder / "ATTRIBUTION.md").write_text(_attribution(source.origins), encoding="utf-8")
    counts = ", ".join(f"{len(slices)} {part}" for part, slices in parts.items())
    print(f"Wrote {config.out}: {counts} samples from {source.kind} ({config.photons:g} photons, seed {config.seed})")
    if source.origins:
        print(f"\n{_attribution(source.origins)}")


def _exists(config: SimulateConfig) -> bool:
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
        content = "data of another request" if description else "something else"
        raise ConfigError(f"{out} holds {content}; choose another --out, or remove it first: nothing is overwritten")
    print(f"{out} holds these data already ({description.get('source')}); nothing to do")
    if description.get("note"):
        print(f"{description['note']} Remove {out} to try again.")
    return True


def _source(config: SimulateConfig, geometry: Geometry) -> Source:
    if config.phantoms is not None:
        return phantoms({None: config.phantoms}, geometry.image_shape, config.seed)
    folder = config.images
    if folder is None:
        try:
            return sample()
        except FetchError as error:
            print(f"The sample's scans are not to be had: {error}. Using phantoms instead.", file=sys.stderr)
            return phantoms({**STAND_INS}, geometry.image_shape, config.seed)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; --images takes a folder of DICOM files, or of .npz files")
    if (folder / INDEX).is_file():
        source = stack_folder(folder)
        used = (centre(piece.load().T, geometry.image_shape) for piece in source.slices)
        bad = [piece.name for piece, image in zip(source.slices, used, strict=True) if not np.isfinite(image).all()]
        if bad:
            raise DataError(
                f"{len(bad)} of {len(source.slices)} slices have values that are NaN or infinite: "
                f"{', '.join(bad[:8])}{', ..' * (len(bad) > 8)}; take them out, or put -1000 HU (air) there"
            )
        return source
    if any(folder.glob("*.npz")):
        raise DataError(f"{folder} has .npz files but no {INDEX} that says whose they are: {INDEX_EXAMPLE}")
    return dicom_folder(folder)


def _count(slices: Sequence[Slice]) -> str:
    patients = len({piece.patient for piece in slices})
    return f"{len(slices)} slice{'s'[: len(slices) != 1]} of {patients} patient{'s'[: patients != 1]}"


def _check_free_space(target: Path, samples: int, geometry: Geometry) -> None:
    """Raises RunError where the disk has no room for so many samples: HDF5 takes a full disk badly."""
    needed = 4 * samples * (math.prod(geometry.sinogram_shape) + math.prod(geometry.image_shape))
    existing = next(folder for folder in target.parents if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed * 1.02 > free:
        raise RunError(
            f"{samples} samples take {needed / 1e9:.2f} GB, but the disk of {existing} has {free / 1e9:.2f} GB left; "
            "choose another --out, or fewer samples (--train, --validation, --test)"
        )


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder beside the target to write to; it becomes the target at the end, and is removed where that fails.

    Raises:
        RunError: the folder cannot be written.
    """
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        draft.mkdir(parents=True)
        yield draft
        draft.replace(target)
    except OSError as error:
        raise RunError(f"{target} could not be written: {error}; nothing was kept") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_files(
    folder: Path,
    part: Part,
    number: int,
    slices: list[Slice],
    geometry: Geometry,
    config: SimulateConfig,
    advance: Callable[[int], None],
) -> None:
    """Simulates an observation file and its ground-truth file, a chunk a row."""
    with (
        h5py.File(folder / file_name("observation", part, number), "w") as observation_file,
        h5py.File(folder / file_name("ground_truth", part, number), "w") as ground_truth_file,
    ):
        observations, ground_truths = (
            file.create_dataset("data", shape=(len(slices), *shape), dtype="float32", chunks=(1, *shape))
            for file, shape in (
                (observation_file, geometry.sinogram_shape),
                (ground_truth_file, geometry.image_shape),
            )
        )
        for first in range(0, len(slices), LANES):
            rows = slice(first, first + LANES)
            observations[rows], ground_truths[rows] = scan(slices[rows], geometry, config)
            advance(len(slices[rows]))


def scan(
    slices: list[Slice], geometry: Geometry, config: SimulateConfig
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Observations (B, A, D) and ground truths (B, H, W) of some slices, both divided by MU_MAX."""
    randoms = [generator(config.seed, piece.name) for piece in slices]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        images = list(
            pool.map(lambda piece, random: ground_truth(piece.load(), geometry, random, piece.name), slices, randoms)
        )
        line_integrals = project_rays(np.stack(list(pool.map(finer, images))), geometry)
        observations = list(
            pool.map(
                lambda line, random: observe(line, config.photons, random, config.electronic_noise),
                line_integrals,
                randoms,
            )
        )
    return np.stack(observations), np.stack(images)


def _description(
    config: SimulateConfig,
    geometry: Geometry,
    source: Source,
    parts: dict[Part, list[Slice]],
    patients: dict[str, int],
) -> dict[str, Any]:
    """The content of `dataset.json`: what the data are and how they were made."""
    fallback = config.sample and not source.origins
    return {
        "source": source.kind,
        "note": "Phantoms stand in for the sample's scans, which could not be fetched." if fallback else None,
        "geometry": geometry.model_dump(mode="json"),
        "photons": config.photons,
        **({"electronic_noise": config.electronic_noise} if config.electronic_noise else {}),
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


def _attribution(origins: Sequence[Origin]) -> str:
    """What the licences of the scans ask to be said, as Markdown."""
    lines = [
        "# Attribution",
        "",
        "These data were simulated from CT scans of the collections below: slices were cropped, converted to",
        "attenuation and projected with noise. Not for diagnosis.",
        "",
    ]
    for origin in origins:
        reference = f" Source: {origin.reference}." if origin.reference else ""
        lines.append(f"- {origin.collection}, patient {origin.patient}. Licence: {origin.licence}.{reference}")
    return "\n".join(lines) + "\n"
