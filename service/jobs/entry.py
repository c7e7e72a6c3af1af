"""What runs inside a job: `python -m service.jobs.entry KIND`, with the configuration in the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from fbp_ray.cli import on_recipe, run_program
from fbp_ray.errors import ConfigError
from fbp_ray.settings import explain
from service.jobs.commands import SPACES, VARIABLE, unpack


def main(argv: Sequence[str]) -> None:
    """Trains, sweeps or evaluates, as the program of the package does with the same settings.

    Raises:
        FbpRayError: what that program raises; ConfigError where the environment has no configuration.
    """
    try:
        (kind,) = argv
        request = unpack(os.environ.pop(VARIABLE))
        work = {"train": _train, "sweep": _sweep, "evaluate": _evaluate}[kind]
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"this is for jobs of the service: a kind (train, sweep, evaluate), and its configuration in {VARIABLE} "
            f"({type(error).__name__}: {error}); use python -m fbp_ray.train, a program in sweeps/, or python -m "
            "fbp_ray.evaluate"
        ) from None
    work(request)


def _train(request: dict[str, Any]) -> None:
    from fbp_ray.config import TrainConfig
    from fbp_ray.train.program import train

    train(on_recipe(TrainConfig, request["config"]))


def _sweep(request: dict[str, Any]) -> None:
    from fbp_ray.sweep.config import SweepTree
    from fbp_ray.sweep.program import run_sweep

    module = SPACES[request["space"]]
    run_sweep(import_module(module).SPACE, on_recipe(SweepTree, request["config"]), module.replace(".", "/") + ".py")


def _evaluate(request: dict[str, Any]) -> None:
    from pydantic import ValidationError

    from fbp_ray.evaluate import EvaluateConfig, evaluate

    try:
        config = EvaluateConfig.model_validate(request["config"])
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
    evaluate(config)


if __name__ == "__main__":
    run_program(main)
