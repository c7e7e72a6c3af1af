"""Trains by Ray and by torchrun, each started as a person would, in turns of a few epochs on the same processors.

While one trains, all processes of the other are stopped. A machine's speed changes from minute to minute, more than the
two differ; from one epoch to the next it does not. The first epoch of a turn is not timed: the processes that were
stopped have missed a hundred of their timers then, and catch up.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import psutil
import yaml

from fbp_ray.checkpoint import read_manifest
from fbp_ray.cli import parse_with_recipe
from fbp_ray.config import TrainConfig
from fbp_ray.errors import RunError
from fbp_ray.run import RunFolder
from fbp_ray.train import cluster

By = Literal["torchrun", "Ray"]
BOTH: tuple[By, By] = ("torchrun", "Ray")
SAME_FOR_BOTH = ("OMP_WAIT_POLICY", "THP_MEM_ALLOC_ENABLE", "RAY_USAGE_STATS_ENABLED")
ENVIRONMENT = {name: cluster.ENVIRONMENT[name] for name in SAME_FOR_BOTH}
SETTLING_EPOCHS, TIMED_EPOCHS = 1, 2  # of a turn
SPARE_EPOCHS = 2  # one to warm up, one to end with
LOOK_SECONDS = 0.01
PATIENCE = 300.0


class Figures(NamedTuple):
    """What one training showed."""

    epoch_seconds: tuple[float, ...]
    """A whole epoch, the mean of each turn: steps, validation, checkpoint, what is shown."""

    steps_per_second: float
    """Samples a second through the steps alone."""

    start_up: float
    """Seconds from the command to the first epoch: processes, imports, the classic FBP to compare with."""

    after: float
    """Seconds from the last epoch to the end of the command."""

    weights: str
    """A digest of the last weights."""


class Pair(NamedTuple):
    """The two trainings of a round."""

    workers: int
    samples: int
    by: dict[By, Figures]

    def rate(self, by: By) -> float:
        """Samples a second through whole epochs, the median of the turns."""
        return self.samples / median(self.by[by].epoch_seconds)

    @property
    def of_torchrun(self) -> tuple[float, ...]:
        """How fast the epochs of each turn under Ray were beside those under torchrun that came with them."""
        turns = zip(self.by["torchrun"].epoch_seconds, self.by["Ray"].epoch_seconds, strict=True)
        return tuple(plain / ray for plain, ray in turns)


def make_data(folder: Path, train: int, validation: int) -> None:
    """Simulated scans of random thorax phantoms, of LoDoPaB-CT's size."""
    counts = ["--phantoms", str(2 * (train + validation)), "--train", str(train), "--validation", str(validation)]
    command = [sys.executable, "-m", "fbp_ray.simulate", "--out", str(folder), "--test", "1", *counts]
    done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RunError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def measure(workers: int, samples: int, data: Path, storage: Path, name: str, turns: int) -> Pair:
    """Trains by both, in turns.

    Args:
        workers: of either.
        samples: of the training part.
        data: the data folder.
        storage: where the runs go.
        name: of the round; each run's is its own.
        turns: of either.
    """
    with _training("torchrun", workers, data, storage, name, turns) as plain:
        plain.wait_for_epoch(1)
        plain.stop()
        with _training("Ray", workers, data, storage, name, turns) as ray:
            ray.wait_for_epoch(1)
            ray.stop()
            took: dict[By, list[float]] = {by: [] for by in BOTH}
            for turn in range(turns):
                # The order turns round every time, so that neither always runs in the other's wake.
                for training in (plain, ray) if turn % 2 else (ray, plain):
                    took[training.by].append(training.take_a_turn())
            found = {training.by: training.finish(tuple(took[training.by])) for training in (plain, ray)}
    return Pair(workers, samples, found)


class _Training:
    """A training that can be stopped and go on.

    Args:
        by: what.
        process: the command.
        run: its folder.
        log: what it says.
    """

    def __init__(self, by: By, process: subprocess.Popen[bytes], run: RunFolder, log: Path) -> None:
        self.by = by
        self.process = process
        self.run = run
        self.log = log
        self.began = time.time()
        self.epochs = 0
        self.timed: list[int] = []

    def wait_for_epoch(self, number: int) -> None:
        """Waits until so many epochs are finished."""
        until = time.monotonic() + PATIENCE
        seen = None
        while (changed := self.run.folder.changed("history.csv")) == seen or len(self.run.read_history()) < number:
            seen = changed
            if self.process.poll() is not None or time.monotonic() > until:
                raise RunError(f"the training by {self.by} did not go on:\n{self.log.read_text()[-3000:]}")
            time.sleep(LOOK_SECONDS)
        self.epochs = number

    def take_a_turn(self) -> float:
        """Lets it go on for some epochs, and stops it; returns the seconds of one."""
        self.go_on()
        self.wait_for_epoch(self.epochs + SETTLING_EPOCHS)
        self.timed += range(self.epochs + 1, self.epochs + 1 + TIMED_EPOCHS)
        began = time.perf_counter()
        self.wait_for_epoch(self.epochs + TIMED_EPOCHS)
        seconds = time.perf_counter() - began
        self.stop()
        return seconds / TIMED_EPOCHS

    def stop(self) -> None:
        """Stops all of its processes."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Lets all of its processes go on."""
        self._signal(signal.SIGCONT)

    def finish(self, seconds: tuple[float, ...]) -> Figures:
        """Lets it train to its end; the figures."""
        self.go_on()
        if self.process.wait(timeout=PATIENCE) != 0:
            raise RunError(f"the training by {self.by} failed:\n{self.log.read_text()[-3000:]}")
        ended = time.time()
        rows = self.run.read_history()
        return Figures(
            epoch_seconds=seconds,
            steps_per_second=median(row["samples_per_second"] for row in rows if row["epoch"] in self.timed),
            start_up=rows[0]["time"] - rows[0]["seconds"] - self.began,
            after=ended - rows[-1]["time"],
            weights=read_manifest(self.run.last).sha256["weights"],
        )

    def end(self) -> None:
        """Ends what is left of it."""
        for process in self._processes():
            process.kill()
        self.process.wait()

    def _signal(self, number: int) -> None:
        for process in self._processes():
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    def _processes(self) -> list[psutil.Process]:
        try:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


@contextmanager
def _training(by: By, workers: int, data: Path, storage: Path, name: str, turns: int) -> Iterator[_Training]:
    epochs = turns * (SETTLING_EPOCHS + TIMED_EPOCHS) + SPARE_EPOCHS
    words = ["--data.dir", str(data), "--run.storage", str(storage), "--run.name", f"{name}-{by.lower()}"]
    words += ["--train.epochs", str(epochs), "--scaling.num_workers", str(workers)]
    run = RunFolder(storage / f"{name}-{by.lower()}")
    if by == "Ray":
        command = [sys.executable, "-m", "fbp_ray.train", *words]
    else:
        config = run.begin(parse_with_recipe(TrainConfig, words, "benchmarks.training"))
        file = storage / f"{name}.yaml"
        file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        command = [*launcher, str(workers), "-m", "benchmarks.training.plain", str(file), str(run), run.session]
    log = storage / f"{name}-{by.lower()}.log"
    storage.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stdout=output, stderr=output)
    training = _Training(by, process, run, log)
    try:
        yield training
    finally:
        training.end()
