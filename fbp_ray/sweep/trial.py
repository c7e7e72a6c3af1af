"""A trial in a process of Ray Tune: a training that hands over its epochs one by one, and can be stopped at any.

The process stays when its trial has ended, and takes the next.
"""

from __future__ import annotations

import math
import threading
import traceback
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple
from uuid import uuid4

import ray.tune
import torch

from fbp_ray.baseline import Baseline
from fbp_ray.checkpoint import MANIFEST, read_manifest
from fbp_ray.errors import CheckpointError, FbpRayError
from fbp_ray.run import ResolvedConfig, RunFolder
from fbp_ray.sweep.object_store import Held, Stored
from fbp_ray.sweep.objective import Metric, merit
from fbp_ray.train.events import EpochEnd, Event
from fbp_ray.train.loop import train
from fbp_ray.train.process import Process

TRACEBACK = "traceback.txt"


class Task(NamedTuple):
    """What all trials of a sweep have in common."""

    metric: Metric
    baseline: Baseline
    threads: int
    use_gpu: bool
    workers: int
    data: tuple[Stored, Stored] | None
    """The training and the validation part in the object store, None where trials read the files."""


class Trial(ray.tune.Trainable):
    """Tune's handle of a trial. Its configuration says where the trial's run folder is, and in which session."""

    def setup(self, config: dict[str, Any], task: Task | None = None) -> None:
        """Prepares the process, and its first trial."""
        assert task is not None
        self.task = task
        torch.set_num_threads(task.threads)
        self.held = None if task.data is None else (Held(task.data[0]), Held(task.data[1]))
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Leaves the trial that was under way, and takes another."""
        self._training.stop()
        self._take(new_config)
        return True

    def _take(self, config: dict[str, Any]) -> None:
        self._run = RunFolder(config["run"], config["session"])
        self._config = ResolvedConfig.model_validate_json(config["config"])
        self._best = _best(self._run)
        self._training = _together(self) if self.task.workers > 1 else _alone(self)

    def step(self) -> dict[str, Any]:
        """Waits for the trial's next epoch, or its end.

        Returns:
            epoch, lr, psnr, ssim, loss and merit of the epoch; best_psnr, best_ssim and `value`, the merit, of the
            epoch with the lowest loss so far. At the end `ended`, and in `failed` why, or "".
        """
        try:
            row = self._training.next()
        except FbpRayError as error:
            return {"done": True, "ended": True, "failed": str(error)}
        except Exception as error:
            self._run.folder.write(TRACEBACK, "".join(traceback.format_exception(error)))
            reason = f"{type(error).__name__}: {error}; its traceback is in {self._run}/{TRACEBACK}"
            return {"done": True, "ended": True, "failed": reason}
        if row is None:
            return {"done": True, "ended": True, "failed": "", **self._value()}
        figures = {name: row[f"validation_{name}"] for name in ("psnr", "ssim", "loss")}
        if figures["loss"] < self._best.get("loss", math.inf):
            self._best = figures
        return {"epoch": row["epoch"], "lr": row["lr"], **figures, "merit": self._merit(figures), **self._value()}

    def _merit(self, figures: dict[str, float]) -> float:
        return merit(self.task.metric, figures["psnr"], figures["ssim"], self.task.baseline)

    def _value(self) -> dict[str, float]:
        if not self._best:
            return {}
        return {"value": self._merit(self._best), "best_psnr": self._best["psnr"], "best_ssim": self._best["ssim"]}

    def cleanup(self) -> None:
        """Ends the trial when the process ends."""
        self._training.stop()


def _best(run: RunFolder) -> dict[str, float]:
    """The figures of the best checkpoint so far; nothing where there is none."""
    try:
        return read_manifest(run.best).metrics if run.best.has(MANIFEST) else {}
    except CheckpointError:  # the training goes on from last/, and writes the next best one over it
        return {}


class _Stopped(Exception):
    """Leaves a training that is to end."""


class _Training:
    """A training in a thread of its own.

    Args:
        train: trains, and calls its argument with every event.
        end: makes it end soon; without it, an event is answered with an exception.
    """

    def __init__(self, train: Callable[[Callable[[Event], None]], None], end: Callable[[], None] | None = None) -> None:
        self._train = train
        self._end = end
        self._epochs: SimpleQueue[dict[str, float] | BaseException | None] = SimpleQueue()
        self._turn = threading.Semaphore(0)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._ended = False

    def next(self) -> dict[str, float] | None:
        """The next epoch's row, None after the last; raises what ended the training."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True, name="trial")
            self._thread.start()
        else:
            self._turn.release()
        found = self._epochs.get()
        self._ended = not isinstance(found, dict)
        if isinstance(found, BaseException):
            raise found
        return found

    def stop(self) -> None:
        """Ends the training, once what it has to write is written."""
        self._stopped.set()
        self._turn.release()
        if self._thread is not None:
            if self._end is not None and not self._ended:
                self._end()
            self._thread.join()

    def _work(self) -> None:
        try:
            self._train(self._report)
            self._epochs.put(None)
        except _Stopped:
            self._epochs.put(None)
        except BaseException as error:
            self._epochs.put(error)

    def _report(self, event: Event) -> None:
        if isinstance(event, EpochEnd):
            self._epochs.put(event.row)
            if self._end is None:
                self._turn.acquire()  # whether it goes on is decided first
        if self._stopped.is_set() and self._end is None:
            raise _Stopped


def _alone(trial: Trial) -> _Training:
    """A training in this process."""
    device = torch.device("cuda" if trial.task.use_gpu else "cpu")
    config, run, caches, threads = trial._config, trial._run, trial.held, trial.task.threads

    def work(report: Callable[[Event], None]) -> None:
        torch.set_num_threads(threads)  # each thread has a number of its own
        train(config, run, Process(0, 1, device), report, caches)

    return _Training(work)


def _together(trial: Trial) -> _Training:
    """A training in workers of its own. They stop when they find that the run has another owner."""
    from fbp_ray.train.launch import launch

    config, run = trial._config, trial._run

    def end() -> None:
        status = run.status()
        RunFolder(run.folder, uuid4().hex).set_status(status["state"], status["reason"])

    return _Training(lambda report: launch(config, run, report), end)
