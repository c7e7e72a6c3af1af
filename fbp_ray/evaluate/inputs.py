"""What an evaluation takes in: a part of the data with its noise, whose each image is, the Hanns to compare with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from fbp_ray.baseline import (
    CUTOFF_SAMPLES,
    PASSES,
    Baseline,
    BestCutoffs,
    best_hann,
    content_key,
    keep_cutoffs,
    known_cutoffs,
)
from fbp_ray.checkpoint import Manifest, check_geometry
from fbp_ray.cli import progress
from fbp_ray.config import DataConfig
from fbp_ray.data import LoDoPaB, describe, geometry_of, patients_of
from fbp_ray.data.layout import find_observations, has_truth, photons_of, thins
from fbp_ray.errors import DataError
from fbp_ray.evaluate import EvaluateConfig
from fbp_ray.evaluate.submission import PART
from fbp_ray.settings import as_text
from fbp_ray.storage import Folder
from fbp_ray.train.noise import FixedNoise, Noise

BATCH = 8  # images at a time: enough to keep the kernels busy, small enough for any machine


def data_folder(config: EvaluateConfig, manifest: Manifest) -> Path:
    """The data folder that the options name, or else the one that the model was trained on; DataError without one."""
    folder = config.data.dir or manifest.data.get("dir")
    if folder is None:
        raise DataError(f"what {config.checkpoint} was trained on is not known; name a data folder: --data.dir DIR")
    return Path(folder)


def open_part(config: EvaluateConfig, manifest: Manifest, part: str, needs_truth: bool = True) -> LoDoPaB:
    """A part of the data that the options name, or else of those that the model was trained on.

    Without ground truth (`LoDoPaB.truth`) where there is none and it is not needed.

    Raises:
        CheckpointError: they are of another geometry than the model.
        DataError: they cannot be used.
    """
    folder = data_folder(config, manifest)
    geometry, every, first = manifest.model.geometry, config.data.every, config.data.first_angles
    truth = part != PART
    if folder.is_dir():
        geometry = geometry_of(folder)
        if geometry != manifest.model.geometry:
            every = every or manifest.data.get("every")
            first = first or manifest.data.get("first_angles")
        check_geometry(config.checkpoint, manifest, geometry.part(first, every or 1))
    if truth and folder.is_dir() and find_observations(folder, part) and not has_truth(folder, part):
        if needs_truth:
            raise DataError(
                f"{folder} has no ground_truth_{part}_*.hdf5, which PSNR and SSIM need; add it, or choose other data "
                "of this geometry: --data.dir DIR"
            )
        truth = False
    samples = config.data.samples if part == config.split else None
    given = (folder, part, geometry, samples, every or 1, truth, first)
    photons = drawn_photons(config, manifest)
    if photons is None or part == PART:
        return LoDoPaB(*given)
    drawn = DataConfig(dir=folder, photons=photons)
    if not truth and not thins(drawn):  # nothing to project, and not so many photons to leave some out
        if config.data.photons is None:
            return LoDoPaB(*given)
        raise DataError(
            f"{folder} has no ground_truth_{part}_*.hdf5, from which noise could be drawn anew, and is not known to "
            f"have been measured with {photons[1]:g} photons or more; leave out --data.photons"
        )
    return FixedNoise(Noise(drawn, geometry.part(first, every or 1)), *given)


def drawn_photons(config: EvaluateConfig, manifest: Manifest) -> tuple[float, float] | None:
    """The photons of noise that is drawn anew: those of the options, or the one number that the model was trained for.

    None where the noise is the data's own.
    """
    if config.data.photons is not None:
        return config.data.photons
    trained = manifest.data.get("photons")
    return (trained[0], trained[1]) if trained and trained[0] == trained[1] else None


def known_photons(config: EvaluateConfig, manifest: Manifest) -> float | None:
    """Those of every sample, None where they are not known or differ."""
    drawn = drawn_photons(config, manifest)
    if drawn is None:
        return photons_of(data_folder(config, manifest))
    return drawn[0] if drawn[0] == drawn[1] else None


def patients_in(dataset: LoDoPaB, whole: bool) -> list[str] | None:
    """Whose each image is; None where the folder does not say, or not rightly, and it need not (`whole`).

    Raises:
        DataError: the list of the whole part is missing, or of another length.
    """
    if not whole:
        with contextlib.suppress(DataError):
            return patients_of(dataset.folder, dataset.part, len(dataset))
        return None
    patients = patients_of(dataset.folder, dataset.part, len(dataset), whole=True)
    if patients is None:
        raise DataError(
            f"{dataset.folder} has no patient_ids_rand_{dataset.part}.csv, without which there are no intervals over "
            "patients; add the file of the data set, or leave out --protocol"
        )
    return patients


def best_cutoffs(config: EvaluateConfig, manifest: Manifest, run: Folder, device: torch.device) -> BestCutoffs:
    """The Hann cut-offs that are given, and otherwise the best on the validation part.

    Those are known where the `run` was trained on these data, or where they were found before.
    """
    given = config.hann_psnr, config.hann_ssim
    if given[0] is not None and given[1] is not None:
        return BestCutoffs(given[0], given[1])
    best = _of_run(config, manifest, run) or _searched(config, manifest, device)
    return BestCutoffs(given[0] or best.psnr, given[1] or best.ssim)


def _of_run(config: EvaluateConfig, manifest: Manifest, run: Folder) -> BestCutoffs | None:
    """The cut-offs of the run's baseline, None where it is that of other data."""
    trained_on, folder = manifest.data, data_folder(config, manifest)
    described = describe(folder)
    # What was simulated by the same request is the same anywhere.
    same = folder.absolute() == Path(trained_on.get("dir", "")) or (described is not None and "request" in described)
    same = same and described == trained_on.get("description")
    same = same and list(drawn_photons(config, manifest) or ()) == list(trained_on.get("photons") or ())
    if not same or not run.has("baseline.json"):
        return None
    known = Baseline.model_validate_json(as_text(run.read("baseline.json")))
    return None if known.hann_psnr is None else BestCutoffs(known.hann_psnr_cutoff, known.hann_ssim_cutoff)


def _searched(config: EvaluateConfig, manifest: Manifest, device: torch.device) -> BestCutoffs:
    try:
        validation = open_part(config, manifest, "validation")
        chosen = Subset(validation, range(min(CUTOFF_SAMPLES, len(validation))))

        def pairs() -> Iterator[tuple[Tensor, Tensor]]:
            for batch in DataLoader(chosen, BATCH):
                yield batch.observation.to(device), batch.ground_truth.to(device)

        key = content_key(pairs(), validation.geometry)
        if (kept := known_cutoffs(key)) is not None:
            return kept
        with progress("Choosing the Hann cut-offs", PASSES * len(chosen)) as advance:

            def counted() -> Iterator[tuple[Tensor, Tensor]]:
                for pair in pairs():
                    yield pair
                    advance(len(pair[0]))

            best = best_hann(counted, validation.geometry)
        keep_cutoffs(key, best)
        return best
    except DataError as error:
        raise DataError(
            f"the Hann cut-offs are chosen on the validation part, which cannot be used: {error}\n       "
            "give both instead: --hann_psnr C --hann_ssim C"
        ) from None
