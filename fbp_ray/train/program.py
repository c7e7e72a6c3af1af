"""`python -m fbp_ray.train`: trains a learnable FBP. On two processors: `python -m fbp_ray.train --train.epochs 2`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime

import torch

from fbp_ray.checkpoint import check_geometry
from fbp_ray.cli import parse_with_recipe
from fbp_ray.config import TrainConfig
from fbp_ray.errors import ConfigError, FbpRayError, RunError
from fbp_ray.losses import composite_loss
from fbp_ray.run import ResolvedConfig as ResolvedConfig
from fbp_ray.run import RunFolder
from fbp_ray.storage import absolute, open_folder
from fbp_ray.trackers import check_trackers
from fbp_ray.train.display import TrainingDisplay
from fbp_ray.train.loop import check_shares, open_parts


def main(argv: Sequence[str]) -> None:
    """Trains the run that the options describe."""
    train(parse_with_recipe(TrainConfig, argv, "python -m fbp_ray.train"))


def train(config: TrainConfig) -> RunFolder:
    """Checks a configuration, begins its run and trains it; raises FbpRayError."""
    resolved = resolve(config)
    check(resolved)
    run = RunFolder(open_folder(resolved.run.storage) / resolved.run.name)
    resolved = run.begin(resolved)
    print(f"run {run}", flush=True)
    train_run(resolved, run)
    print(f"best and last checkpoint: {run.best}, {run.last}")
    return run


def train_run(config: ResolvedConfig, run: RunFolder) -> None:
    """Trains a run that has been begun, shows its progress, and writes to its folder how it ended."""
    from fbp_ray.train.launch import launch  # after the options are known to hold: Ray takes seconds to import

    try:
        with TrainingDisplay() as display:
            launch(config, run, display.show)
        run.check_owner()
    except FbpRayError as error:
        _set_failed(run, str(error))
        raise
    run.set_status("completed")


def _set_failed(run: RunFolder, reason: str) -> None:
    """Writes to the run folder that the run failed, unless another process has it or it cannot be written any more."""
    try:
        run.check_owner()
        run.set_status("failed", reason)
    except (OSError, RunError) as error:
        print(f"the run's status could not be written: {error}", file=sys.stderr)


def check(config: ResolvedConfig) -> None:
    """Finds out now, on this machine, what would otherwise stop every worker later."""
    training, validation = open_parts(config.data)
    check_shares(config, len(training), len(validation), config.scaling.num_workers or 1)
    image = torch.zeros(1, *training.geometry.image_shape)
    composite_loss(image, image, config.loss)
    check_settings(config)
    if config.init.checkpoint is not None:
        check_geometry(config.init.checkpoint, training.geometry)


def check_settings(config: TrainConfig) -> None:
    """The part of `check` that needs no data."""
    check_trackers(config.track)
    if config.window.kind == "fixed":
        raise ConfigError("a fixed window learns nothing; use --window.kind frequency or angle_frequency")


def resolve(config: TrainConfig) -> ResolvedConfig:
    """Fills in what is open: the sample data, a name; and makes places absolute, so that every worker finds them."""
    folder = config.data.dir
    if folder is None:
        from fbp_ray.simulate import sample_data  # here, not above: it compiles, and those with data do not need it

        folder = sample_data()
    tree = config.model_dump()
    tree["data"]["dir"] = folder.absolute()
    tree["run"]["name"] = config.run.name or f"{config.recipe}-{datetime.now():%Y%m%d-%H%M%S}"
    tree["init"]["checkpoint"] = config.init.checkpoint and absolute(config.init.checkpoint)
    return ResolvedConfig.model_validate(tree)
