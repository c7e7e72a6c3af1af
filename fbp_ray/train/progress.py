"""What the terminal shows while a run trains: a live bar where there is a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

QUIET_SECONDS = 20.0  # without a terminal, an epoch that takes long says so about this often


class TrainingProgress:
    """Turns the events of `loop.train` into what a person reads. Use it as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(soft_wrap=True)
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4g}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self._task: TaskID | None = None
        self._epochs = 0
        self._last_line = time.monotonic()

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, event: dict[str, Any]) -> None:
        """Shows one event."""
        getattr(self, f"_{event['event']}")(event)

    def _start(self, event: dict[str, Any]) -> None:
        self._epochs = event["epochs"]
        self._task = self._bar.add_task("", total=event["steps"], epoch=event["epoch"] + 1, loss=float("nan"))
        self._line(
            f"classic FBP on the validation part: Hann {event['hann_psnr_cutoff']:.2f} {event['hann_psnr']:.3f} dB, "
            f"Hann {event['hann_ssim_cutoff']:.2f} SSIM {event['hann_ssim']:.4f}"
        )
        if event["epoch"]:
            self._line(f"going on after epoch {event['epoch']} of {event['epochs']}")

    def _step(self, event: dict[str, Any]) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=event["step"], epoch=event["epoch"], loss=event["loss"])
        if not self.console.is_terminal and time.monotonic() - self._last_line > QUIET_SECONDS:
            self._line(f"epoch {event['epoch']} step {event['step']}/{event['steps']} loss {event['loss']:.4g}")

    def _epoch(self, event: dict[str, Any]) -> None:
        width = len(str(self._epochs))
        self._line(
            f"epoch {event['epoch']:{width}d}/{self._epochs}  loss {event['train_loss']:.4g}  validation "
            f"{event['validation_loss']:.4g}  PSNR {event['validation_psnr']:.3f} dB  SSIM "
            f"{event['validation_ssim']:.4f}  lr {event['lr']:.2g}  {event['samples_per_second']:.1f} samples/s  "
            f"{event['seconds']:.1f} s"
        )

    def _line(self, text: str) -> None:
        self.console.print(text, highlight=False)
        self._last_line = time.monotonic()
