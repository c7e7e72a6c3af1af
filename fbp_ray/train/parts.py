"""The data of a training: its two parts, each process's share of them, and the noise that is drawn anew."""

from __future__ import annotations

from typing import Any

from fbp_ray.config import TrainConfig
from fbp_ray.data import Batches, LoDoPaB, SharedCache, describe, electronic_noise_of, photons_of, unit_of
from fbp_ray.data.hdf5_reader import Array
from fbp_ray.data.layout import MU_MAX, check_data, has_truth, thins
from fbp_ray.data.loader import Draw
from fbp_ray.data.values import brightest_of, in_hounsfield
from fbp_ray.errors import ConfigError
from fbp_ray.geometry import FanBeam, Geometry
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.run import ResolvedConfig
from fbp_ray.split import ByAngles, ByPhotons, Split
from fbp_ray.train.augment import Augment
from fbp_ray.train.noise import FixedNoise, Noise
from fbp_ray.train.process import Process


def open_parts(config: TrainConfig) -> tuple[LoDoPaB, LoDoPaB]:
    """The training and the validation part, with as many angles and samples as the settings say.

    Ground truth is read of the training part where it is used, of the validation part where it is there.

    Raises:
        ConfigError, DataError, GeometryError: they cannot be used.
    """
    data = config.data
    geometry = check_data(data, config.target)
    assert data.dir is not None
    if config.train.monitor != "loss" and not has_truth(data.dir, "validation"):
        raise ConfigError(
            f"--train.monitor {config.train.monitor} needs ground truth, which the validation part in {data.dir} has "
            "not; leave it out: the loss is monitored"
        )
    needed = config.target == "truth" or (data.photons is not None and not thins(data))
    training = LoDoPaB(data.dir, "train", geometry, data.train_samples, data.every, needed, data.first_angles)
    there = has_truth(data.dir, "validation")
    validation = (data.dir, "validation", geometry, data.validation_samples, data.every, there, data.first_angles)
    if data.photons is None:
        return training, LoDoPaB(*validation)
    return training, FixedNoise(Noise(data, training.geometry), *validation)


def check_shares(config: TrainConfig, training: int, validation: int, workers: int) -> None:
    """Raises ConfigError where a step, or the validation part, has too little for so many workers."""
    batch = config.train.batch_size
    if batch > training:
        raise ConfigError(
            f"--train.batch_size {batch} is more than the {training} training samples; use a smaller batch or more data"
        )
    if batch < workers:
        raise ConfigError(
            f"--train.batch_size {batch} leaves some of the {workers} workers without a sample; use a batch of "
            f"{workers} or more, or a smaller --scaling.num_workers"
        )
    if validation < workers:
        raise ConfigError(
            f"{validation} validation samples are fewer than the {workers} workers; use more samples or a smaller "
            "--scaling.num_workers"
        )


def batches_of(
    config: ResolvedConfig, dataset: LoDoPaB, process: Process, shuffle: bool, cache: SharedCache | None
) -> Batches:
    """This process's share of a part, in an order drawn anew each epoch (`shuffle`) or in that of the files."""
    if cache is None and config.data.cache != "none":
        cache = SharedCache(dataset, config.data.cache)
    return Batches(
        dataset,
        config.train.batch_size,
        process.rank,
        process.world_size,
        seed=config.train.seed if shuffle else None,
        cache=cache,
        draw=drawing(config, dataset.geometry) if shuffle else None,
        pin=process.device.type == "cuda",
    )


def drawing(config: TrainConfig, geometry: Geometry) -> Draw | None:
    """What changes a training sample in each epoch: noise drawn anew, then another position; None for nothing."""
    draws: list[Draw] = []
    if config.data.photons is not None:
        draws.append(Noise(config.data, geometry, config.train.seed).draw)
    if config.data.augment != "none":
        draws.append(Augment(config.data.augment, geometry, config.train.seed).draw)

    def draw(sample: int, epoch: int, observation: Array, truth: Array) -> None:
        for change in draws:
            change(sample, epoch, observation, truth)

    return draw if draws else None


def build_model(config: TrainConfig, geometry: Geometry, cutoff: float = 1.0) -> LearnableFBP:
    """The model at its start; `cutoff` is the best of a Hann. Raises ConfigError where it learns nothing."""
    unit = unit_of(config.data.dir) if config.data.dir else None
    window = config.window.with_best(cutoff, known_photons(config), unit)
    model = LearnableFBP(ModelConfig(geometry=geometry, window=window, postprocessing=config.postprocessing))
    model.filter.requires_grad_(not config.window.frozen)
    model.checkpointing = config.train.checkpointing
    if not any(parameter.requires_grad for parameter in model.parameters()):
        what = "frozen" if config.window.frozen else config.window.kind
        raise ConfigError(
            f"a {what} window learns nothing; use --window.kind spline or adaptive, or a network after it: "
            "--postprocessing.kind tiny"
        )
    return model


def known_photons(config: TrainConfig) -> float | None:
    """Those of the training's data, None where they are not known or differ from sample to sample."""
    if config.data.photons is None:
        return photons_of(config.data.dir) if config.data.dir else None
    low, high = config.data.photons
    return low if low == high else None


def split_of(config: TrainConfig, geometry: Geometry) -> Split | None:
    """How scans are split where a run learns without ground truth, None where it has it.

    Raises:
        ConfigError: there are too few angles, or the counts of photons are not known, or not known alone.
    """
    if config.target == "truth":
        return None
    if config.split == "angles":
        return ByAngles(geometry)
    fan = isinstance(geometry, FanBeam)  # whose angles cannot be held out
    instead = "learn from ground truth: --target truth" if fan else "hold out angles: --split angles"
    if config.data.dir and electronic_noise_of(config.data.dir):
        raise ConfigError(
            f"--split photons holds out some of the photons of a ray, but the counts in {config.data.dir} have "
            f"electronic noise, which both parts would share; {instead}"
        )
    given = config.window.photons
    photons = given if isinstance(given, float) else known_photons(config)
    if photons is None:
        why = "differ from sample to sample" if config.data.photons else f"are not known of {config.data.dir}"
        raise ConfigError(
            f"--split photons holds out some of the photons of a ray, which {why}; say how many a ray has that meets "
            "nothing (the flats less the darks, divided by the detector's counts for a photon): --window.photons N, or "
            f"`photons` in dataset.json; or {instead}"
        )
    unit = config.window.unit
    if unit == "data":
        unit = unit_of(config.data.dir) if config.data.dir else MU_MAX
    return ByPhotons(geometry, photons, unit)


def describe_parts(config: ResolvedConfig, training_set: LoDoPaB, validation_set: LoDoPaB) -> dict[str, Any]:
    """What a checkpoint says of the data it was trained on; of those that are not CT's also how bright they are."""
    unit = unit_of(config.data.dir) if config.data.dir else MU_MAX
    return {
        "dir": str(config.data.dir),
        "every": config.data.every,
        "first_angles": config.data.first_angles,
        "photons": config.data.photons,
        "train_samples": len(training_set),
        "validation_samples": len(validation_set),
        "description": describe(config.data.dir),
        **({} if in_hounsfield(unit) else {"brightest": brightest_of(training_set, unit)}),
    }


def kept_in_memory(cache: SharedCache | None, dataset: LoDoPaB) -> str:
    """What of the training part is kept in memory, as a sentence; empty for nothing."""
    if cache is None:
        return ""
    which = "all" if cache.samples == len(dataset) else f"the first {cache.samples} of {len(dataset)}"
    return f"keeping {which} training samples in memory once read: {cache.bytes / 1e9:.2f} GB a machine ({cache.mode})"
