"""What people see of a sweep: a live table and a last one on the terminal, plots, and an HTML page with all of it."""

from __future__ import annotations

import time
from contextlib import nullcontext
from types import TracebackType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table

from fbp_ray.baseline import Figure
from fbp_ray.cli import clock
from fbp_ray.pictures import as_png, blank_figure
from fbp_ray.report.page import Html, element, page, picture, section, table
from fbp_ray.sweep.config import Metric
from fbp_ray.sweep.folder import FINISHED, Outcome, Results
from fbp_ray.sweep.space import Parameters

BEST_WHILE_RUNNING = 5
BEST_AT_THE_END = 10
PLOT_RANGE = 10.0  # dB below the best PSNR: beside worse trials no others could be told apart
COLOURS = "viridis"
OBJECTIVE: dict[Metric, str] = {"combined": "combined", "psnr": "PSNR gain", "ssim": "SSIM gain"}
AXES: dict[Figure, str] = {"psnr": "PSNR, dB", "ssim": "SSIM"}


class TrialBegan(NamedTuple):
    """A trial was given to Ray Tune."""

    number: int
    parameters: Parameters


class TrialEpoch(NamedTuple):
    """A trial has finished an epoch, with these validation figures."""

    number: int
    epoch: int
    psnr: float
    ssim: float


class TrialEnded(NamedTuple):
    """A trial has ended; its folder says how."""

    number: int


TrialEvent: TypeAlias = TrialBegan | TrialEpoch | TrialEnded


class SweepProgress:
    """Shows a sweep: on a terminal a live table, elsewhere a line a trial. Use it as a context manager.

    Args:
        total: trials in all.
        epochs: of each.
        results: the trials before; `show` is given the others.
        console: where; without one, standard output.
    """

    def __init__(self, total: int, epochs: int, results: Results, console: Console | None = None) -> None:
        self.console = console or Console()
        self.total = total
        self.epochs = epochs
        self.results = results
        self.parameters: dict[int, Parameters] = {}
        self.latest: dict[int, TrialEpoch] = {}
        self.began = time.monotonic()
        # The live table vanishes at the end: that of the results follows.
        live = Live(self, console=self.console, refresh_per_second=2, transient=True)
        self._live = live if self.console.is_terminal else nullcontext()

    def __enter__(self) -> SweepProgress:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.parameters = {}
        self._live.__exit__(kind, error, trace)

    def show(self, event: TrialEvent, results: Results | None = None) -> None:
        """Shows one event; at the end of a trial also the results with it."""
        self.results = results or self.results
        match event:  # the dictionaries are made anew: another thread may be drawing
            case TrialBegan(number, parameters):
                self.parameters = {**self.parameters, number: parameters}
            case TrialEpoch(number):
                self.latest = {**self.latest, number: event}
            case TrialEnded(number):
                self.parameters = {one: values for one, values in self.parameters.items() if one != number}
                if not self.console.is_terminal:
                    self._say(next(one for one in self.results.outcomes if one.number == number))

    def line(self, text: str) -> None:
        """A line of text, above the table."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _say(self, outcome: Outcome) -> None:
        values = "  ".join(f"{key} {short(outcome.parameters[key])}" for key in self.results.keys)
        figures = ""
        if outcome.number in self.results.objectives:
            figures = f"  PSNR {outcome.metrics['psnr']:.3f} dB  SSIM {outcome.metrics['ssim']:.4f}"
        reason = f"  {outcome.reason}" if outcome.reason else ""
        self.line(f"{self._done()}/{self.total}  trial {outcome.name}  {values}{figures}  {outcome.status}{reason}")

    def _done(self) -> int:
        return sum(outcome.status in FINISHED for outcome in self.results.outcomes)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The running trials, the best so far, and how many are done."""
        parts: list[RenderableType] = []
        if self.parameters:
            parts.append(self._running_table())
        if self.results.objectives:
            parts.append(results_table(self.results, options.max_width, BEST_WHILE_RUNNING))
        elapsed = clock(time.monotonic() - self.began)
        parts.append(f"{self._done()} of {self.total} trials done, {len(self.parameters)} running, {elapsed}")
        yield Group(*parts)

    def _running_table(self) -> Table:
        table = _table("running")
        for heading in ("trial", *self.results.keys, "epoch", "PSNR dB", "SSIM"):
            table.add_column(heading.replace(".", ".\n"), justify="right", no_wrap=True)
        for number, parameters in sorted(self.parameters.items()):
            values = (short(parameters[key]) for key in self.results.keys)
            latest = self.latest.get(number)
            figures = (f"{latest.psnr:.3f}", f"{latest.ssim:.4f}") if latest else ("", "")
            table.add_row(f"{number:04d}", *values, f"{latest.epoch if latest else 0}/{self.epochs}", *figures)
        return table


def results_table(results: Results, width: int, most: int = BEST_AT_THE_END) -> Table:
    """The best trials beside the classic FBP; a star for those on the Pareto front.

    Args:
        results: of the sweep.
        width: columns of the terminal; where it is narrow, the table has fewer columns.
        most: rows.
    """
    always = ("epoch", "over FBP", "ended")
    settings = [tuple(results.keys[-count:]) for count in range(1, len(results.keys) + 1)]
    for left_out in ((), always[:1], always[:2], always, *(always + some for some in settings)):
        table = _results_table(results, most, left_out)
        if Console(width=10 * width).measure(table).maximum <= width:
            break
    return table


def _results_table(results: Results, most: int, left_out: tuple[str, ...]) -> Table:
    headings = [*_headings(results), "epoch", "ended"]
    fbp = {"trial": "FBP", "PSNR dB": f"{results.baseline.hann_psnr:.3f}", "SSIM": f"{results.baseline.hann_ssim:.4f}"}
    rows = [[fbp.get(heading, "") for heading in headings]]
    for outcome in results.ranked[:most]:
        name, *cells = _cells(results, outcome)
        star = "*" if outcome.number in results.front else " "
        ended = "" if outcome.status == "completed" else "early"
        rows.append([name + star, *cells, str(outcome.best_epoch), ended])
    more = "; all settings are in results.csv" if not {*left_out}.isdisjoint(results.keys) else ""
    table = _table(f"best by {results.metric}", f"* no other trial is better in both PSNR and SSIM{more}")
    shown = [column for column, heading in enumerate(headings) if heading not in left_out]
    for column in shown:
        broken = headings[column].replace(".", ".\n").replace(" ", "\n").replace("combined", "com-\nbined")
        table.add_column(broken, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[column] for column in shown), style="cyan" if row is rows[0] else "")
    return table


def _headings(results: Results) -> list[str]:
    return ["trial", *results.keys, "PSNR dB", "over FBP", "SSIM", "over FBP", OBJECTIVE[results.metric]]


def _cells(results: Results, outcome: Outcome) -> list[str]:
    """What stands below `_headings` for a trial."""
    parameters = [short(outcome.parameters[key]) for key in results.keys]
    if outcome.number not in results.objectives:
        return [outcome.name, *parameters, *[""] * 5]
    psnr, ssim = outcome.metrics["psnr"], outcome.metrics["ssim"]
    gains = results.baseline.gain("psnr", psnr), results.baseline.gain("ssim", ssim)
    figures = [f"{psnr:.3f}", f"{gains[0]:+.3f}", f"{ssim:.4f}", f"{gains[1]:+.4f}"]
    return [outcome.name, *parameters, *figures, f"{results.objectives[outcome.number]:+.3f}"]


def _table(title: str, caption: str | None = None) -> Table:
    look: dict[str, Any] = {"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0), "pad_edge": False}
    return Table(title=title, title_justify="left", caption=caption, caption_justify="left", **look)


def short(parameter: Any) -> str:
    """A parameter in few characters."""
    return f"{parameter:.3g}" if isinstance(parameter, float) else str(parameter)


CAPTIONS = {
    "pareto.png": "What PSNR costs in SSIM",
    "parameters.png": "What each setting does",
    "parallel.png": "All settings at once",
    "curves.png": "How the trials learned",
}


def as_page(name: str, results: Results, plots: dict[str, bytes], settings: str) -> str:
    """The results as one HTML page that needs nothing else.

    Args:
        name: of the sweep.
        results: its trials.
        plots: PNGs by file name.
        settings: of the best trial, as YAML; "" where there is none.
    """
    baseline = results.baseline
    about = (
        f"{len(results.outcomes)} trials, ranked by {results.metric} on the validation part. The best Hann has "
        f"{baseline.hann_psnr:.3f} dB (cut-off {baseline.hann_psnr_cutoff:.2f}) and SSIM "
        f"{baseline.hann_ssim:.4f} (cut-off {baseline.hann_ssim_cutoff:.2f}). "
        "A star: no other trial is better in both PSNR and SSIM."
    )
    parts = [element("p", about), _html_table(results)]
    parts += [section(CAPTIONS[file], picture(content, CAPTIONS[file])) for file, content in plots.items()]
    if settings:
        parts.append(section("The settings of the best", element("pre", settings)))
    return page(name, *parts)


def _html_table(results: Results) -> Html:
    headings = [*_headings(results), "best epoch", "epochs", "seconds", "status", "why"]
    rows, classes = [], []
    for rank, outcome in enumerate(results.ranked_and_others):
        name, *cells = _cells(results, outcome)
        name += " *" if outcome.number in results.front else ""
        cells += [str(outcome.best_epoch or ""), str(outcome.epochs), f"{outcome.seconds:.1f}", outcome.status]
        rows.append([name, *cells, outcome.reason])
        best = rank == 0 and bool(results.objectives)
        classes.append("best" if best else "failed" if outcome.status == "failed" else "")
    return table("The trials", headings, rows, classes)


def draw_plots(results: Results) -> dict[str, bytes]:
    """All plots as PNGs by file name; none where no trial has a result."""
    if not results.ranked:
        return {}
    least = max(one.metrics["psnr"] for one in results.ranked) - PLOT_RANGE
    near = {one.number: results.objectives[one.number] for one in results.ranked if one.metrics["psnr"] >= least}
    results = results._replace(objectives=near)
    return {
        "pareto.png": _pareto(results),
        "parameters.png": _parameters(results),
        "parallel.png": _parallel(results),
        "curves.png": _curves(results),
    }


def _pareto(results: Results) -> bytes:
    figure = blank_figure(7, 5)
    axes: Any = figure.subplots()
    points = _scatter(axes, results, _column(results, "psnr")[0], "ssim")
    front = sorted((one for one in results.ranked if one.number in results.front), key=lambda one: one.metrics["psnr"])
    places = [(one.metrics["psnr"], one.metrics["ssim"]) for one in front]
    ring: dict[str, Any] = {"marker": "o", "ms": 10, "mfc": "none"}  # shows a front of one point too
    axes.plot(*zip(*places, strict=True), color="tab:red", lw=1, label="Pareto front", zorder=1, **ring)
    for one, place in zip(front, places, strict=True):
        axes.annotate(one.name, place, fontsize="small", xytext=(6, 6), textcoords="offset points")
    axes.axvline(results.baseline.hann_psnr, color="tab:gray", lw=1, ls="--", label="best Hann")
    axes.axhline(results.baseline.hann_ssim, color="tab:gray", lw=1, ls="--")
    axes.set(xlabel=AXES["psnr"], ylabel=AXES["ssim"], title="PSNR against SSIM, validation part")
    axes.legend(fontsize="small")
    figure.colorbar(points, ax=axes, label=OBJECTIVE[results.metric])
    return as_png(figure)


def _parameters(results: Results) -> bytes:
    columns = len(results.keys)
    figure = blank_figure(max(7, 3.2 * columns), 5.5)
    rows: Any = figure.subplots(2, columns, squeeze=False, sharey="row", sharex="col")
    for row, name in zip(rows, AXES, strict=True):
        for axes, key in zip(row, results.keys, strict=True):
            places, words = _column(results, key)
            _scatter(axes, results, places, name)
            axes.axhline(results.baseline.of(name), color="tab:gray", lw=1, ls="--")
            if words:
                axes.set_xticks(range(len(words)), words, rotation=20)
            elif key in results.log_keys:
                axes.set_xscale("log")
        row[0].set_ylabel(AXES[name])
    for axes, key in zip(rows[-1], results.keys, strict=True):
        axes.set_xlabel(key)
    figure.suptitle("PSNR and SSIM against each setting; dashed: best Hann; coloured by the ranking")
    return as_png(figure)


def _parallel(results: Results) -> bytes:
    """Parallel coordinates: a line a trial through all settings, PSNR and SSIM."""
    from matplotlib import colormaps

    names = {key: key for key in results.keys} | AXES
    columns = [_column(results, name) for name in names]
    heights = [_unit(values, name in results.log_keys) for name, (values, _) in zip(names, columns, strict=True)]
    colours = colormaps[COLOURS](_unit([results.objectives[one.number] for one in results.ranked]))
    figure = blank_figure(max(7, 1.7 * len(columns)), 5)
    axes: Any = figure.subplots()
    for row, line in reversed(list(enumerate(zip(*heights, strict=True)))):  # the best on top
        axes.plot(range(len(columns)), line, color=colours[row], lw=2.5 if row == 0 else 1)
    look: dict[str, Any] = {"textcoords": "offset points", "fontsize": "small", "va": "center"}
    look["bbox"] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}  # no line crosses a label
    for place, ((values, words), there) in enumerate(zip(columns, heights, strict=True)):
        axes.axvline(place, color="k", lw=0.8)
        for value, height in sorted(set(zip(values, there, strict=True))):
            if words or value in (min(values), max(values)):
                axes.annotate(words[int(value)] if words else f"{value:.4g}", (place, height), (6, 0), **look)
    axes.set_xticks(range(len(columns)), list(names.values()))
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(columns) - 0.5)
    axes.set_title("every trial through its settings to PSNR and SSIM; the best is the thick one")
    return as_png(figure)


def _curves(results: Results) -> bytes:
    figure = blank_figure(11, 4.5)
    axes: Any = figure.subplots(1, 2)
    for one, name in zip(axes, AXES, strict=True):
        for rank, outcome in reversed(list(enumerate(results.ranked))):
            heights = [row[f"validation_{name}"] for row in outcome.history]
            epochs = [row["epoch"] for row in outcome.history]
            style = {"lw": 2, "label": outcome.name} if rank < 5 else {"lw": 0.8, "color": "tab:gray", "alpha": 0.6}
            one.plot(epochs, heights, marker="." if len(epochs) == 1 else "", **style)
        one.axhline(results.baseline.of(name), color="k", lw=1, ls="--")
        one.set(xlabel="epoch", ylabel=AXES[name])
        one.xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend(fontsize="small", title="the best five", reverse=True)
    figure.suptitle("learning curves, validation part; dashed: best Hann")
    return as_png(figure)


def _scatter(axes: Any, results: Results, across: list[float], name: Figure) -> Any:
    colours = [results.objectives[one.number] for one in results.ranked]
    return axes.scatter(across, _column(results, name)[0], c=colours, cmap=COLOURS)


def _column(results: Results, name: str) -> tuple[list[float], list[str]]:
    """Where the ranked trials are on the axis of a setting or a figure; for a setting of words, the words by place."""
    if name in AXES:
        return [one.metrics[name] for one in results.ranked], []
    values = [one.parameters[name] for one in results.ranked]
    if not any(isinstance(value, str) for value in values):
        return [float(value) for value in values], []
    words = sorted({str(value) for value in values})
    return [float(words.index(str(value))) for value in values], words


def _unit(values: list[float], log: bool = False) -> list[float]:
    """Values from 0, the smallest, to 1, the largest."""
    array = np.log(values) if log else np.array(values, dtype=float)
    span = np.ptp(array)
    return [float(value) for value in ((array - array.min()) / span if span else np.full(len(array), 0.5))]
