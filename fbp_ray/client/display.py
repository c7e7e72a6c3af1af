"""The progress of a job: a bar by epoch on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fbp_ray.client.documents import Job

_FIGURES = (
    (("train_loss",), "loss {:.4g}"),
    (("validation_loss",), "validation {:.4g}"),
    (("validation_psnr", "psnr"), "PSNR {:.2f} dB"),
    (("validation_ssim", "ssim"), "SSIM {:.4f}"),
)


class JobDisplay:
    """Shows a job whenever it is told of; a context manager.

    Args:
        console: where to; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("", total=None, figures="")
        self._said: set[str] = set()

    def __enter__(self) -> JobDisplay:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, job: Job) -> None:
        """Shows what is new."""
        progress = job.progress
        why = f": {job.reason}" if job.reason else ""
        if self._bar is not None:
            description = escape(f"{job.kind} {job.id} {job.status}{why}")
            latest = escape(figures(progress.rows[-1])) if progress.rows else ""
            self._bar.update(
                self._task, description=description, completed=progress.done, total=progress.total, figures=latest
            )
            return
        total = "" if progress.total is None else f"/{progress.total}"
        for number, row in enumerate(progress.rows, start=1):
            what = row.get("trial") or row.get("method") or number
            if "epoch" in row:
                what = f"epoch {row['epoch']:g}{total}"
            self._say(f"{job.kind} {job.id}: {what}  {figures(row)}", row)
        self._say(f"{job.kind} {job.id} {job.status}{why}", [job.status, job.reason])

    def _say(self, line: str, what: Any) -> None:
        """A line, unless the same was said before."""
        mark = json.dumps(what, sort_keys=True, default=str)
        if mark not in self._said:
            self._said.add(mark)
            self._console.print(line.rstrip(), markup=False, highlight=False, soft_wrap=True)


def figures(row: dict[str, Any]) -> str:
    """The figures of an epoch, or of a trial, in a line."""
    found = []
    for names, form in _FIGURES:
        value = next((row[name] for name in names if isinstance(row.get(name), int | float)), None)
        if value is not None:
            found.append(form.format(value))
    return "  ".join(found)
