"""What a person sees while a run trains: a live table where there is a terminal, a line an epoch elsewhere.

The events, dictionaries that the training sends in this order:

    start    epoch (finished ones), epochs, steps, workers, shares (samples of each worker a step), hann_psnr,
             hann_psnr_cutoff, hann_ssim, hann_ssim_cutoff, cache (a text, or ""); again when the workers had to be
             started anew
    step     epoch, step, steps, loss
    epoch    epoch, lr, train_*, validation_*, samples_per_second, reading (share of the time spent waiting for data),
             seconds
    warning  text
    failure  text, failures (so far), max_failures: workers were lost, the training goes on
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live

from fbp_ray.train.table import Progress, RunTable

QUIET_SECONDS = 20.0  # without a terminal, an epoch that takes long says so about this often
Event = dict[str, Any]


class TrainingProgress:
    """Shows the events of a training, each once. Use it as a context manager.

    Args:
        console: where; without one, standard output.
        clock: seconds that only go up.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console or Console()
        self.clock = clock
        self.table = RunTable()
        self._live = Live(self.table, console=self.console, refresh_per_second=2) if self.console.is_terminal else None
        self._said: set[str] = set()
        self._step_event: Event = {}
        self._furthest = (0, 0)
        self._left = TimeLeft(0, 1, self.clock())
        self._last_line = self.clock()

    def __enter__(self) -> TrainingProgress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.table.whole = True
        if self._live:
            self._live.stop()

    def show(self, event: Event) -> None:
        """Shows one event."""
        getattr(self, f"_{event['event']}")(event)

    def _start(self, event: Event) -> None:
        again = self.table.start is not None
        self.table.start = event
        self._left = TimeLeft(event["epoch"], event["epochs"], self.clock())
        self._step_event = {"epoch": event["epoch"] + 1, "step": 0, "steps": event["steps"], "loss": None}
        self.table.progress = self._progress
        workers, batch = _count(event["workers"], "worker"), f"{_count(sum(event['shares']), 'sample')} a step"
        done = f"after epoch {event['epoch']} of {event['epochs']}" if event["epoch"] else "at epoch 1"
        if again:
            self._line(f"going on {done} with {workers} ({batch}: {_shares(event['shares'])})")
        else:
            self._line(
                f"{workers}, {batch} ({_shares(event['shares'])}); a change of workers changes the shares, not the "
                "batch or the learning rate"
            )
        if event["cache"]:
            self._once(event["cache"])
        if not self._live:
            self._once(
                f"classic FBP on the validation part: Hann {event['hann_psnr_cutoff']:.2f} {event['hann_psnr']:.3f} "
                f"dB, Hann {event['hann_ssim_cutoff']:.2f} SSIM {event['hann_ssim']:.4f}"
            )
        if event["epoch"] and not again:
            self._line(f"going on {done}")

    def _step(self, event: Event) -> None:
        self._step_event = event
        now = (event["epoch"], event["step"])
        if not self._live and now > self._furthest and self.clock() - self._last_line > QUIET_SECONDS:
            self._line(f"epoch {event['epoch']} step {event['step']}/{event['steps']} loss {event['loss']:.4g}")
        self._furthest = max(self._furthest, now)

    def _epoch(self, event: Event) -> None:
        known = event["epoch"] in self.table.rows
        self.table.rows = {**self.table.rows, event["epoch"]: event}  # a new one: another thread may be drawing
        self._left.finished(event["epoch"], event["seconds"], self.clock())
        if event["epoch"] < self._left.epochs:
            self._step_event = {**self._step_event, "epoch": event["epoch"] + 1, "step": 0}
        if known or self._live:
            return
        epochs = self._left.epochs
        self._line(
            f"epoch {event['epoch']:{len(str(epochs))}d}/{epochs}  loss {event['train_loss']:.4g}  validation "
            f"{event['validation_loss']:.4g}  PSNR {event['validation_psnr']:.3f} dB  SSIM "
            f"{event['validation_ssim']:.4f}  lr {event['lr']:.2g}  {event['samples_per_second']:.1f} samples/s  "
            f"reading {event['reading']:.0%}  {event['seconds']:.1f} s"
        )

    def _warning(self, event: Event) -> None:
        self._once(f"warning: {event['text']}", "yellow")

    def _failure(self, event: Event) -> None:
        self.table.progress, self.table.waiting = None, "starting the workers again"
        self._once(f"failure {event['failures']} of at most {event['max_failures']}: {event['text']}", "red")

    def _progress(self) -> Progress:
        now = self._step_event
        share = (now["epoch"] - 1) + now["step"] / now["steps"]
        left = self._left.seconds(share, self.clock())
        return Progress(now["epoch"], self._left.epochs, now["step"], now["steps"], now["loss"], left)

    def _once(self, text: str, style: str = "") -> None:
        if text not in self._said:
            self._line(text, style)

    def _line(self, text: str, style: str = "") -> None:
        self._said.add(text)
        self.console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
        self._last_line = self.clock()


class TimeLeft:
    """How long a whole run still takes, validation included, from the epochs of this session.

    Args:
        done: epochs that were finished before.
        epochs: of the whole run.
        now: seconds on the clock.
    """

    def __init__(self, done: int, epochs: int, now: float) -> None:
        self.done = done
        self.epochs = epochs
        self.since = now
        self.took: list[float] = []

    def finished(self, epoch: int, seconds: float, now: float) -> None:
        """An epoch has ended."""
        self.done, self.since = epoch, now
        self.took.append(seconds)

    def seconds(self, share: float, now: float) -> float | None:
        """None until it can be told.

        Args:
            share: epochs done, with the part of the one under way.
            now: seconds on the clock.
        """
        elapsed = now - self.since
        if self.took:
            mean = sum(self.took) / len(self.took)
            return max(0.0, mean * (self.epochs - self.done) - min(elapsed, mean))
        if share <= self.done:
            return None
        return elapsed * (self.epochs - share) / (share - self.done)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _shares(shares: list[int]) -> str:
    """4 + 4, or 2 x 5 + 6 x 4 when there are many."""
    if len(shares) <= 4:
        return " + ".join(map(str, shares))
    return " + ".join(f"{times} x {share}" for share, times in Counter(shares).items())
