"""The live table of a training run: the classic FBP, a row an epoch, and how far the whole run is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.spinner import Spinner
from rich.table import Table

from fbp_ray.progress import clock

NEWEST = 20  # rows shown while the run goes on
AROUND = 11  # lines of the terminal that are not rows of epochs
NARROWER = ((0, 1), (1, 1), (2, 1), (3, 1), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0))  # which columns go, their padding
Event = dict[str, Any]


class Column(NamedTuple):
    """One column: its heading, what it shows of an epoch, and when it goes where the terminal is too narrow."""

    heading: str
    cell: Callable[[Event], str]
    goes: int = 0  # 0 stays, 1 goes first


class Progress(NamedTuple):
    """How far the whole run is."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float | None
    seconds_left: float | None


class RunTable:
    """What the terminal shows of a run; a rich renderable, drawn anew from its fields each time.

    `start` is the event that began the run, or None; `rows` the epoch events by epoch; `progress` is None while nothing
    trains, and `waiting` then says for what; `whole` shows all rows and no progress.
    """

    def __init__(self) -> None:
        self.start: Event | None = None
        self.rows: dict[int, Event] = {}
        self.progress: Callable[[], Progress] | None = None
        self.waiting = "starting"
        self.whole = False
        self._spinner = Spinner("dots")
        self._key: object = None
        self._segments: list[Segment] = []

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, and a line of progress below it."""
        if self.start is not None and (self.rows or not self.whole):
            yield from self._drawn(console, options)
        if self.whole:
            return
        if self.progress is None:
            self._spinner.update(text=self.waiting)
            yield self._spinner
        else:
            yield _line(self.progress())

    def _drawn(self, console: Console, options: ConsoleOptions) -> list[Segment]:
        """The table, drawn again when something changed: that takes a while, and progress is shown often."""
        key = (self.start, self.rows, self.whole, options.max_width, console.height)
        if key != self._key:
            self._segments = list(console.render(self._table(console, options.max_width), options))
            self._key = key
        return self._segments

    def _table(self, console: Console, width: int) -> Table:
        columns = self._columns()
        for goes, padding in NARROWER:
            columns = [column for column in columns if column.goes == 0 or column.goes > goes]
            table = self._filled(columns, console, padding)
            if console.measure(table, options=console.options.update(max_width=10 * width)).maximum <= width:
                break
        return table

    def _filled(self, columns: list[Column], console: Console, padding: int) -> Table:
        assert self.start is not None
        rows = [self.rows[epoch] for epoch in sorted(self.rows)]
        newest = len(rows) if self.whole else max(3, min(NEWEST, console.height - AROUND))
        best = min((row["validation_loss"] for row in rows), default=math.inf)
        table = Table(box=box.SIMPLE_HEAD, padding=(0, padding, 0, 0), pad_edge=False)
        for column in columns:
            table.add_column(column.heading, justify="right", no_wrap=True)
        for cells in _classic(self.start):
            table.add_row(*(cells.get(column.heading, "") for column in columns), style="cyan")
        table.add_section()
        if len(rows) > newest:
            table.add_row(f"({len(rows) - newest} more)", style="dim")
        for row in rows[-newest:]:
            is_best = row["validation_loss"] == best
            mark = "best " if is_best else ""
            table.add_row(
                mark + columns[0].cell(row), *(c.cell(row) for c in columns[1:]), style="bold" if is_best else ""
            )
        return table

    def _columns(self) -> list[Column]:
        assert self.start is not None
        start = self.start
        seen = next(iter(self.rows.values()), {})
        parts = [name.removeprefix("train_") for name in seen if name.startswith("train_") and name != "train_loss"]
        return [
            Column("epoch", lambda row: str(row["epoch"])),
            Column("lr", lambda row: f"{row['lr']:.2g}", goes=6),
            Column("train\nloss", _figure("train_loss"), goes=4),
            *(Column(f"train\n{part}", _figure(f"train_{part}"), goes=2) for part in parts),
            Column("valid.\nloss", _figure("validation_loss")),
            *(Column(f"valid.\n{part}", _figure(f"validation_{part}"), goes=7) for part in parts),
            Column("PSNR\ndB", lambda row: f"{row['validation_psnr']:.3f}"),
            Column("over\nFBP", lambda row: _gain(row["validation_psnr"] - start["hann_psnr"], 3), goes=3),
            Column("SSIM", lambda row: f"{row['validation_ssim']:.4f}"),
            Column("over\nFBP", lambda row: _gain(row["validation_ssim"] - start["hann_ssim"], 4), goes=3),
            Column("samples\n/s", lambda row: f"{row['samples_per_second']:.1f}", goes=5),
            Column("read-\ning", lambda row: f"{row['reading']:.0%}", goes=1),
            Column("time", lambda row: clock(row["seconds"]), goes=1),
        ]


def _classic(start: Event) -> list[dict[str, str]]:
    """The rows of the classic FBP, by heading: one for the best PSNR, one for the best SSIM, or one that is both."""
    psnr = {"epoch": f"FBP Hann {start['hann_psnr_cutoff']:.2f}", "PSNR\ndB": f"{start['hann_psnr']:.3f}"}
    ssim = {"epoch": f"FBP Hann {start['hann_ssim_cutoff']:.2f}", "SSIM": f"{start['hann_ssim']:.4f}"}
    return [psnr | ssim] if psnr["epoch"] == ssim["epoch"] else [psnr, ssim]


def _figure(name: str) -> Callable[[Event], str]:
    return lambda row: f"{row[name]:#.3g}".removesuffix(".")


def _gain(value: float, digits: int) -> str:
    colour = "green" if value > 0 else "red"
    return f"[{colour}]{value:+.{digits}f}[/]"


def _line(now: Progress) -> Table:
    done, total = (now.epoch - 1) * now.steps + now.step, now.epochs * now.steps
    line = Table.grid(padding=(0, 2), expand=True)
    for ratio in (None, None, None, 1, None, None):
        line.add_column(ratio=ratio, no_wrap=True)
    line.add_row(
        f"epoch {now.epoch}/{now.epochs}",
        f"step {now.step}/{now.steps}",
        "" if now.loss is None else f"loss {now.loss:.3g}",
        ProgressBar(total, done, complete_style="green"),
        f"{done / total:.0%}",
        "" if now.seconds_left is None else f"{clock(now.seconds_left)} left",
    )
    return line
