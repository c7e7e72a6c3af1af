"""Starts trainings, each as a person would, and takes their figures from the run folders."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import yaml

from fbp_ray.checkpoint import read_manifest
from fbp_ray.cli import parse_with_recipe
from fbp_ray.config import TrainConfig
from fbp_ray.data import LoDoPaB, geometry_of
from fbp_ray.errors import RunError
from fbp_ray.run import RunFolder

By = Literal["torchrun", "Ray"]
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "RAY_USAGE_STATS_ENABLED": "0"}  # the same for both


class Case(NamedTuple):
    """A way to train."""

    by: By
    workers: int


CASES = tuple(Case(by, workers) for workers in (1, 2) for by in ("torchrun", "Ray"))


class Figures(NamedTuple):
    """What one training showed."""

    samples_per_second: float
    """Training samples through a whole epoch: steps, validation, checkpoint, what is shown."""

    steps_per_second: float
    """The same through the steps alone."""

    start_up: float
    """Seconds from the command to the first epoch: processes, imports, the classic FBP to compare with."""

    after: float
    """Seconds from the last epoch to the end of the command."""

    weights: str
    """A digest of the last weights."""


def make_data(folder: Path, train: int, validation: int) -> None:
    """Simulated scans of random thorax phantoms, of LoDoPaB-CT's size."""
    counts = ["--phantoms", str(2 * (train + validation)), "--train", str(train), "--validation", str(validation)]
    _run([sys.executable, "-m", "fbp_ray.simulate", "--out", str(folder), "--test", "1", *counts])


def measure(case: Case, data: Path, storage: Path, name: str, epochs: int) -> Figures:
    """Trains once."""
    words = ["--data.dir", str(data), "--run.storage", str(storage), "--run.name", name]
    words += ["--train.epochs", str(epochs), "--scaling.num_workers", str(case.workers)]
    folder = storage / name
    if case.by == "Ray":
        command = [sys.executable, "-m", "fbp_ray.train", *words]
    else:
        run = RunFolder(folder)
        config = run.begin(parse_with_recipe(TrainConfig, words, "benchmarks.training"))
        file = storage / f"{name}.yaml"
        file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        command = [*launcher, str(case.workers), "-m", "benchmarks.training.plain", str(file), str(folder), run.session]
    began = time.time()
    _run(command)
    ended = time.time()
    rows = RunFolder(folder).read_history()
    times = [row["time"] for row in rows]
    samples = len(LoDoPaB(data, "train", geometry_of(data)))
    whole = median(later - earlier for earlier, later in pairwise(times))
    steps = median(row["samples_per_second"] for row in rows[1:])
    start_up = times[0] - rows[0]["seconds"] - began
    weights = read_manifest(folder / "last").sha256["weights"]
    return Figures(samples / whole, steps, start_up, ended - times[-1], weights)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RunError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
