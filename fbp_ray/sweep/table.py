"""What a person sees while a sweep runs, and when it has ended.

Events, dictionaries: {"event": "begin", number, parameters}, {"event": "epoch", number, epoch, psnr, ssim, merit},
{"event": "end", number, status, reason, and of its best epoch best_psnr, best_ssim}.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table

from fbp_ray.progress import clock
from fbp_ray.sweep.folder import FINISHED, Outcome
from fbp_ray.sweep.results import Results

SHOWN = 5  # of the best, while the sweep runs
BEST = 10  # at its end
OVER = "over\nFBP"  # the heading of two columns: the second has a blank more
Event = dict[str, Any]


class SweepProgress:
    """Shows a sweep: on a terminal a live table, elsewhere a line a trial. Use it as a context manager.

    Args:
        total: trials in all.
        epochs: of each.
        results: the trials before; `show` is told of the others.
        console: where; without one, standard output.
    """

    def __init__(self, total: int, epochs: int, results: Results, console: Console | None = None) -> None:
        self.console = console or Console()
        self.total = total
        self.epochs = epochs
        self.results = results
        self.running: dict[int, Event] = {}
        self.began = time.monotonic()
        # It vanishes at the end: the table of the results follows.
        live = Live(self, console=self.console, refresh_per_second=2, transient=True)
        self._live = live if self.console.is_terminal else None

    def __enter__(self) -> SweepProgress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.running = {}
        if self._live:
            self._live.stop()

    def show(self, event: Event, results: Results | None = None) -> None:
        """Shows one event; at the end of a trial also the results with it."""
        kind = event["event"]
        running = dict(self.running)  # a new one: another thread may be drawing
        if kind == "begin":
            running[event["number"]] = event
        elif kind == "epoch":
            running[event["number"]] = {**running.get(event["number"], {}), **event}
        elif kind == "end":
            running.pop(event["number"], None)
        self.running = running
        if results is not None:
            self.results = results
        if kind == "end" and not self._live:
            self._say(event)

    def line(self, text: str) -> None:
        """A line of text, above the table."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _say(self, event: Event) -> None:
        outcome = next(one for one in self.results.outcomes if one.number == event["number"])
        figures = ""
        if "best_psnr" in event:  # rather than of the folder, where its last epoch may still be written
            figures = f"  PSNR {event['best_psnr']:.3f} dB  SSIM {event['best_ssim']:.4f}"
        values = "  ".join(f"{key} {value(outcome.parameters[key])}" for key in self.results.keys)
        reason = f"  {event['reason']}" if event["reason"] else ""
        self.line(f"{self._done()}/{self.total}  trial {outcome.name}  {values}{figures}  {outcome.status}{reason}")

    def _done(self) -> int:
        return sum(outcome.status in FINISHED for outcome in self.results.outcomes)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The running trials, the best so far, and how many are done."""
        parts: list[RenderableType] = []
        if self.running:
            parts.append(self._running_table())
        if self.results.merits:
            parts.append(results_table(self.results, options.max_width, SHOWN))
        elapsed = clock(time.monotonic() - self.began)
        parts.append(f"{self._done()} of {self.total} trials done, {len(self.running)} running, {elapsed}")
        yield Group(*parts)

    def _running_table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title="running", title_justify="left")
        for heading in ("trial", *self.results.keys, "epoch", "PSNR dB", "SSIM"):
            table.add_column(heading.replace(".", ".\n"), justify="right", no_wrap=True)
        for number, event in sorted(self.running.items()):
            table.add_row(
                f"{number:04d}",
                *(value(event["parameters"][key]) for key in self.results.keys),
                f"{event.get('epoch', 0)}/{self.epochs}",
                f"{event['psnr']:.3f}" if "psnr" in event else "",
                f"{event['ssim']:.4f}" if "ssim" in event else "",
            )
        return table


def results_table(results: Results, width: int, most: int = BEST) -> Table:
    """The best trials beside the classic FBP; a star for those on the Pareto front.

    Args:
        results: of the sweep.
        width: columns of the terminal; where it is narrow, the table has fewer columns.
        most: rows.
    """
    for left_out in (set[str](), {"epoch"}, {"epoch", OVER}, {"epoch", OVER, "ended"}):
        table = _results_table(results, most, left_out)
        if Console(width=10 * width).measure(table).maximum <= width:
            break
    return table


def _results_table(results: Results, most: int, left_out: set[str]) -> Table:
    baseline = results.baseline
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title=f"best by {results.metric}",
        title_justify="left",
        caption="* no other trial is better in both PSNR and SSIM",
        caption_justify="left",
    )
    first = {"trial": "FBP", **dict.fromkeys(results.keys, "")}
    rows = [{**first, "PSNR\ndB": f"{baseline.hann_psnr:.3f}", "SSIM": f"{baseline.hann_ssim:.4f}"}]
    rows += [_cells(results, outcome) for outcome in results.ranked[:most]]
    headings = ["trial", *results.keys, "PSNR\ndB", OVER, "SSIM", OVER + " ", results.metric.upper(), "epoch", "ended"]
    shown = [heading for heading in headings if heading.strip() not in left_out]
    for heading in shown:
        broken = heading.replace(".", ".\n") if heading in results.keys else heading.replace("COMBINED", "com-\nbined")
        table.add_column(broken, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(row.get(heading, "") for heading in shown), style="cyan" if row is rows[0] else "")
    return table


def _cells(results: Results, outcome: Outcome) -> dict[str, str]:
    """A trial's row, by heading."""
    psnr, ssim = outcome.metrics["psnr"], outcome.metrics["ssim"]
    return {
        "trial": outcome.name + ("*" if outcome.number in results.front else " "),
        **{key: value(outcome.parameters[key]) for key in results.keys},
        "PSNR\ndB": f"{psnr:.3f}",
        OVER: f"{psnr - results.baseline.hann_psnr:+.3f}",
        "SSIM": f"{ssim:.4f}",
        OVER + " ": f"{ssim - results.baseline.hann_ssim:+.4f}",
        results.metric.upper(): f"{results.merits[outcome.number]:+.3f}",
        "epoch": str(outcome.best_epoch),
        "ended": "" if outcome.status == "completed" else "early",
    }


def value(parameter: Any) -> str:
    """A parameter in few characters."""
    return f"{parameter:.3g}" if isinstance(parameter, float) else str(parameter)
