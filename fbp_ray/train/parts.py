"""The data of a training: its two parts, each process's share of them, and the noise that is drawn anew."""

from __future__ import annotations

from typing import Any

from fbp_ray.config import TrainConfig
from fbp_ray.data import Batches, LoDoPaB, SharedCache, describe, photons_of
from fbp_ray.data.layout import check_data, has_truth, thins
from fbp_ray.errors import ConfigError
from fbp_ray.run import ResolvedConfig
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
        draw=Noise(config.data, dataset.geometry, config.train.seed).draw if shuffle and config.data.photons else None,
        pin=process.device.type == "cuda",
    )


def known_photons(config: ResolvedConfig) -> float | None:
    """Those of the training's data, None where they are not known or differ from sample to sample."""
    if config.data.photons is None:
        return photons_of(config.data.dir)
    low, high = config.data.photons
    return low if low == high else None


def describe_parts(config: ResolvedConfig, training_set: LoDoPaB, validation_set: LoDoPaB) -> dict[str, Any]:
    """What a checkpoint says of the data it was trained on."""
    return {
        "dir": str(config.data.dir),
        "every": config.data.every,
        "first_angles": config.data.first_angles,
        "photons": config.data.photons,
        "train_samples": len(training_set),
        "validation_samples": len(validation_set),
        "description": describe(config.data.dir),
    }


def kept_in_memory(cache: SharedCache | None, dataset: LoDoPaB) -> str:
    """What of the training part is kept in memory, as a sentence; empty for nothing."""
    if cache is None:
        return ""
    which = "all" if cache.samples == len(dataset) else f"the first {cache.samples} of {len(dataset)}"
    return f"keeping {which} training samples in memory once read: {cache.bytes / 1e9:.2f} GB a machine ({cache.mode})"
