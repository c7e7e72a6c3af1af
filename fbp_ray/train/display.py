"""What a person sees while a run trains: a live table where there is a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.spinner import Spinner
from rich.table import Table

from fbp_ray.baseline import Baseline
from fbp_ray.cli import clock
from fbp_ray.train.events import Doing, EpochEnd, Event, Started, Step, Warned, WorkersLost

QUIET_SECONDS = 20.0  # without a terminal, an epoch that takes long says so about this often
NEWEST = 20  # rows shown while the run goes on
AROUND = 11  # lines of the terminal that are not rows of epochs
NARROWER = ((0, 1), (1, 1), (2, 1), (3, 1), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0))  # which columns go, their padding

Row = dict[str, float]


class Column(NamedTuple):
    """One column: its heading, what it shows of an epoch, and when it goes where the terminal is too narrow."""

    heading: str
    cell: Callable[[Row], str]
    goes: int = 0  # 0 stays, 1 goes first


class TrainingDisplay:
    """Shows the events of a training, each once. Use it as a context manager.

    On a terminal it is a table with a row an epoch and a line of progress below it, which rich draws anew twice a
    second; at the end the table stays.

    Args:
        console: where; without one, standard output.
        seconds: a clock that only goes up.
    """

    def __init__(self, console: Console | None = None, seconds: Callable[[], float] = time.monotonic) -> None:
        self.console = console or Console()
        self.seconds = seconds
        self._started: Started | None = None
        self._rows: dict[int, Row] = {}
        self._step: Step | None = None  # None while nothing trains
        self._waiting = "starting"
        self._ended = False
        self._left = TimeLeft(0, 1, self.seconds())
        self._furthest = (0, 0)
        self._said: set[str] = set()
        self._last_line = self.seconds()
        self._spinner = Spinner("dots")
        self._drawn_as: object = None
        self._drawn: list[Segment] = []
        self._live = Live(self, console=self.console, refresh_per_second=2) if self.console.is_terminal else None

    def __enter__(self) -> TrainingDisplay:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        if self._live:
            self._live.stop()

    def show(self, event: Event) -> None:
        """Shows one event."""
        match event:
            case Started():
                self._show_started(event)
            case Doing(text):
                self._step, self._waiting = None, text
                if not self._live:
                    self._once(text)
            case Step():
                self._show_step(event)
            case EpochEnd():
                self._show_epoch(event.row)
            case Warned():
                self._once(f"warning: {event.text}", "yellow")
            case WorkersLost():
                self._step, self._waiting = None, "starting the workers again"
                self._once(f"failure {event.failures} of at most {event.max_failures}: {event.text}", "red")

    def _show_started(self, event: Started) -> None:
        again, self._started = self._started is not None, event
        self._left = TimeLeft(event.epoch, event.epochs, self.seconds())
        self._step = Step(event.epoch + 1, 0, event.steps, math.nan)
        workers = _count(event.workers, "worker")
        batch, shares = _count(sum(event.shares), "sample"), _sum(event.shares)
        done = f"after epoch {event.epoch} of {event.epochs}" if event.epoch else "at epoch 1"
        if again:
            self._line(f"going on {done} with {workers} ({batch} a step: {shares})")
        else:
            self._line(
                f"{workers}, {batch} a step ({shares}); a change of workers changes the shares, not the batch or the "
                "learning rate"
            )
        for text in (event.cache, event.baseline.left_out):
            if text:
                self._once(text)
        if not self._live:
            self._once(_about(event.baseline))
        if event.epoch and not again:
            self._line(f"going on {done}")

    def _show_step(self, event: Step) -> None:
        self._step = event
        now = (event.epoch, event.step)
        if not self._live and now > self._furthest and self.seconds() - self._last_line > QUIET_SECONDS:
            self._line(f"epoch {event.epoch} step {event.step}/{event.steps} loss {event.loss:.4g}")
        self._furthest = max(self._furthest, now)

    def _show_epoch(self, row: Row) -> None:
        epoch, epochs = int(row["epoch"]), self._left.epochs
        known = epoch in self._rows
        self._rows = {**self._rows, epoch: row}  # a new one: another thread may be drawing
        self._left.finished(epoch, row["seconds"], self.seconds())
        if self._step is not None and epoch < epochs:
            self._step = replace(self._step, epoch=epoch + 1, step=0)
        if known or self._live:
            return
        figures = ""
        if "validation_psnr" in row:
            figures = f"PSNR {row['validation_psnr']:.3f} dB  SSIM {row['validation_ssim']:.4f}  "
        self._line(
            f"epoch {epoch:{len(str(epochs))}d}/{epochs}  loss {row['train_loss']:.4g}  validation "
            f"{row['validation_loss']:.4g}  {figures}lr {row['lr']:.2g}  {row['samples_per_second']:.1f} samples/s  "
            f"reading {row['reading']:.0%}  "
            f"{row['seconds']:.1f} s"
        )

    def _once(self, text: str, style: str = "") -> None:
        if text not in self._said:
            self._line(text, style)

    def _line(self, text: str, style: str = "") -> None:
        self._said.add(text)
        self.console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
        self._last_line = self.seconds()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, and a line of progress below it."""
        if self._started is not None and (self._rows or not self._ended):
            # The table is drawn anew when something changed: that takes a while, and progress is shown often.
            key = (self._started, self._rows, self._ended, options.max_width, console.height)
            if key != self._drawn_as:
                self._drawn = list(console.render(self._table(self._started, console, options.max_width), options))
                self._drawn_as = key
            yield from self._drawn
        if self._ended:
            return
        if self._step is None:
            self._spinner.update(text=self._waiting)
            yield self._spinner
        else:
            yield self._progress(self._step)

    def _progress(self, now: Step) -> Table:
        epochs = self._left.epochs
        done = now.epoch - 1 + now.step / now.steps
        left = self._left.seconds(done, self.seconds())
        line = Table.grid(padding=(0, 2), expand=True)
        for ratio in (None, None, None, 1, None, None):
            line.add_column(ratio=ratio, no_wrap=True)
        line.add_row(
            f"epoch {now.epoch}/{epochs}",
            f"step {now.step}/{now.steps}",
            "" if math.isnan(now.loss) else f"loss {now.loss:.3g}",
            ProgressBar(max(1, epochs), done, complete_style="green"),
            f"{done / max(1, epochs):.0%}",
            "" if left is None else f"{clock(left)} left",
        )
        return line

    def _table(self, started: Started, console: Console, width: int) -> Table:
        """The table with as many columns as fit."""
        columns = _columns(next(iter(self._rows.values()), {}), started.baseline)
        for goes, padding in NARROWER:
            columns = [column for column in columns if column.goes == 0 or column.goes > goes]
            table = self._filled(columns, started, console.height, padding)
            if console.measure(table, options=console.options.update(max_width=10 * width)).maximum <= width:
                break
        return table

    def _filled(self, columns: list[Column], started: Started, height: int, padding: int) -> Table:
        judge = started.loop.judge
        rows = [self._rows[epoch] for epoch in sorted(self._rows)]
        newest = len(rows) if self._ended else max(3, min(NEWEST, height - AROUND))
        best = min(map(judge, rows), default=math.inf)
        table = Table(box=box.SIMPLE_HEAD, padding=(0, padding, 0, 0), pad_edge=False)
        for column in columns:
            table.add_column(column.heading, justify="right", no_wrap=True)
        for cells in _baseline_rows(started.baseline):
            table.add_row(*(cells.get(column.heading, "") for column in columns), style="cyan")
        table.add_section()
        if len(rows) > newest:
            table.add_row(f"({len(rows) - newest} more)", style="dim")
        for row in rows[-newest:]:
            first, *others = (column.cell(row) for column in columns)
            if judge(row) == best:
                table.add_row(f"best {first}", *others, style="bold")
            else:
                table.add_row(first, *others)
        return table


def _columns(row: Row, baseline: Baseline) -> list[Column]:
    """The columns for rows like this one, which has the parts of the loss that the run uses."""
    parts = [name.removeprefix("train_") for name in row if name.startswith("train_") and name != "train_loss"]
    figures = [
        Column("PSNR\ndB", lambda row: f"{row['validation_psnr']:.3f}"),
        Column("over\nFBP", lambda row: _gain(baseline.gain("psnr", row["validation_psnr"]), 3), goes=3),
        Column("SSIM", lambda row: f"{row['validation_ssim']:.4f}"),
        Column("over\nFBP", lambda row: _gain(baseline.gain("ssim", row["validation_ssim"]), 4), goes=3),
    ]
    return [
        Column("epoch", lambda row: str(row["epoch"])),
        Column("lr", lambda row: f"{row['lr']:.2g}", goes=6),
        Column("train\nloss", _figure("train_loss"), goes=4),
        *(Column(f"train\n{part}", _figure(f"train_{part}"), goes=2) for part in parts),
        Column("valid.\nloss", _figure("validation_loss")),
        *(Column(f"valid.\n{part}", _figure(f"validation_{part}"), goes=7) for part in parts),
        *(figures if baseline.hann_psnr is not None else []),
        Column("samples\n/s", lambda row: f"{row['samples_per_second']:.1f}", goes=5),
        Column("read-\ning", lambda row: f"{row['reading']:.0%}", goes=1),
        Column("time", lambda row: clock(row["seconds"]), goes=1),
    ]


def _baseline_rows(baseline: Baseline) -> list[dict[str, str]]:
    """The classic FBP's rows, by heading: one for each figure, or one for all of the same cut-off."""
    rows: dict[str, dict[str, str]] = {}
    for heading, cutoff, figure, form in (
        ("valid.\nloss", baseline.hann_risk_cutoff, baseline.hann_risk, "#.3g"),
        ("PSNR\ndB", baseline.hann_psnr_cutoff, baseline.hann_psnr, ".3f"),
        ("SSIM", baseline.hann_ssim_cutoff, baseline.hann_ssim, ".4f"),
    ):
        if figure is not None:
            name = f"FBP Hann {cutoff:.2f}"
            rows.setdefault(name, {"epoch": name})[heading] = format(figure, form)
    return list(rows.values())


def _about(baseline: Baseline) -> str:
    figures = []
    if baseline.hann_risk is not None:
        figures.append(f"Hann {baseline.hann_risk_cutoff:.2f} squared error {baseline.hann_risk:.4g}, estimated")
    if baseline.hann_psnr is not None:
        figures.append(f"Hann {baseline.hann_psnr_cutoff:.2f} {baseline.hann_psnr:.3f} dB")
        figures.append(f"Hann {baseline.hann_ssim_cutoff:.2f} SSIM {baseline.hann_ssim:.4f}")
    return "classic FBP on the validation part: " + ", ".join(figures)


def _figure(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row[name]:#.3g}".removesuffix(".")


def _gain(value: float, digits: int) -> str:
    colour = "green" if value > 0 else "red"
    return f"[{colour}]{value:+.{digits}f}[/]"


class TimeLeft:
    """How long a whole run still takes, validation included, judged by the epochs since it was started.

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

    def seconds(self, done: float, now: float) -> float | None:
        """The seconds that are left, None until there is something to judge by.

        Args:
            done: epochs done, with the part of the one under way.
            now: seconds on the clock.
        """
        elapsed = now - self.since
        if self.took:
            mean = sum(self.took) / len(self.took)
            return max(0.0, mean * (self.epochs - self.done) - min(elapsed, mean))
        if done <= self.done:
            return None
        return elapsed * (self.epochs - done) / (done - self.done)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _sum(shares: tuple[int, ...]) -> str:
    """4 + 4, or 2 x 5 + 6 x 4 when there are many."""
    if len(shares) <= 4:
        return " + ".join(map(str, shares))
    return " + ".join(f"{times} x {share}" for share, times in Counter(shares).items())
