"""The plots of a sweep, as PNGs: what each setting does, what PSNR costs in SSIM, how the trials learned."""

from __future__ import annotations

from typing import Any

import numpy as np

from fbp_ray.baseline import Figure
from fbp_ray.pictures import as_png, blank_figure
from fbp_ray.sweep.folder import Outcome
from fbp_ray.sweep.results import Results

LABELS: dict[Figure, str] = {"psnr": "PSNR, dB", "ssim": "SSIM"}
COLOURS = "viridis"
NEAR = 10.0  # dB


def draw_plots(results: Results) -> dict[str, bytes]:
    """All plots by file name; none where no trial has a result.

    They leave out the trials that are more than `NEAR` below the best PSNR, beside which no others could be told apart.
    """
    if not results.ranked:
        return {}
    least = max(_of(one, "psnr") for one in results.ranked) - NEAR
    near = {one.number: results.merits[one.number] for one in results.ranked if _of(one, "psnr") >= least}
    results = results._replace(merits=near)
    return {
        "pareto.png": _pareto(results),
        "parameters.png": _parameters(results),
        "parallel.png": _parallel(results),
        "curves.png": _curves(results),
    }


def _pareto(results: Results) -> bytes:
    figure = blank_figure(7, 5)
    axes: Any = figure.subplots()
    points = _scatter(axes, results, [_of(one, "psnr") for one in results.ranked], "ssim")
    front = sorted((_of(one, "psnr"), _of(one, "ssim")) for one in results.ranked if one.number in results.front)
    axes.plot(*zip(*front, strict=True), color="tab:red", lw=1, label="Pareto front", zorder=1)
    for one in results.ranked:
        if one.number in results.front:
            axes.annotate(one.name, (_of(one, "psnr"), _of(one, "ssim")), fontsize="small", xytext=(4, 4), **_OFFSET)
    axes.axvline(results.baseline.hann_psnr, color="tab:gray", lw=1, ls="--", label="best Hann")
    axes.axhline(results.baseline.hann_ssim, color="tab:gray", lw=1, ls="--")
    axes.set(xlabel=LABELS["psnr"], ylabel=LABELS["ssim"], title="PSNR against SSIM, validation part")
    axes.legend(fontsize="small")
    figure.colorbar(points, ax=axes, label=results.metric)
    return as_png(figure)


def _parameters(results: Results) -> bytes:
    columns = len(results.keys)
    figure = blank_figure(max(7, 3.2 * columns), 5.5)
    rows: Any = figure.subplots(2, columns, squeeze=False, sharey="row", sharex="col")
    for axes, name in zip(rows, LABELS, strict=True):
        for one, key in zip(axes, results.keys, strict=True):
            _scatter(one, results, _positions(results, key), name)
            one.axhline(results.baseline.of(name), color="tab:gray", lw=1, ls="--")
            _scale(one, results, key)
        axes[0].set_ylabel(LABELS[name])
    for one, key in zip(rows[1], results.keys, strict=True):
        one.set_xlabel(key)
    figure.suptitle("PSNR and SSIM against each setting; dashed: best Hann; coloured by the ranking")
    return as_png(figure)


def _parallel(results: Results) -> bytes:
    """Parallel coordinates: a line a trial through all settings, PSNR and SSIM."""
    from matplotlib import colormaps

    columns = {key: _unit(_positions(results, key), _is_log(results, key)) for key in results.keys}
    columns |= {LABELS[name]: _unit([_of(one, name) for one in results.ranked]) for name in LABELS}
    colours = colormaps[COLOURS](_unit([results.merits[one.number] for one in results.ranked]))
    figure = blank_figure(max(7, 1.7 * len(columns)), 5)
    axes: Any = figure.subplots()
    for row in reversed(range(len(results.ranked))):  # the best on top
        heights = [column[row] for column in columns.values()]
        axes.plot(range(len(columns)), heights, color=colours[row], lw=2.5 if row == 0 else 1)
    for place, name in enumerate(columns):
        axes.axvline(place, color="k", lw=0.8)
        for height, text in _ticks(results, name):
            axes.text(place, height, f" {text}", fontsize="small", va="center")
    axes.set_xticks(range(len(columns)), list(columns))
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(columns) - 0.5)
    axes.set_title("every trial through its settings to PSNR and SSIM; the best is the thick one")
    return as_png(figure)


def _curves(results: Results) -> bytes:
    figure = blank_figure(11, 4.5)
    axes: Any = figure.subplots(1, 2)
    for one, name in zip(axes, LABELS, strict=True):
        for rank, outcome in reversed(list(enumerate(results.ranked))):
            heights = [row[f"validation_{name}"] for row in outcome.history]
            epochs = [row["epoch"] for row in outcome.history]
            style = {"lw": 2, "label": outcome.name} if rank < 5 else {"lw": 0.8, "color": "tab:gray", "alpha": 0.6}
            one.plot(epochs, heights, marker="." if len(epochs) == 1 else "", **style)
        one.axhline(results.baseline.of(name), color="k", lw=1, ls="--")
        one.set(xlabel="epoch", ylabel=LABELS[name])
        one.xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend(fontsize="small", title="the best five", reverse=True)
    figure.suptitle("learning curves, validation part; dashed: best Hann")
    return as_png(figure)


_OFFSET: dict[str, Any] = {"textcoords": "offset points"}


def _scatter(axes: Any, results: Results, across: list[float], name: str) -> Any:
    heights = [_of(one, name) for one in results.ranked]
    return axes.scatter(across, heights, c=[results.merits[one.number] for one in results.ranked], cmap=COLOURS)


def _of(outcome: Outcome, name: str) -> float:
    return outcome.metrics[name]


def _positions(results: Results, key: str) -> list[float]:
    """Where the values of a setting are on an axis: themselves, or the number of a word."""
    values = [one.parameters[key] for one in results.ranked]
    words = _words(results, key)
    return [float(words.index(str(value))) for value in values] if words else [float(value) for value in values]


def _words(results: Results, key: str) -> list[str]:
    """The values of a setting of words; nothing for one of numbers."""
    values = [one.parameters[key] for one in results.ranked]
    return sorted({str(value) for value in values}) if any(isinstance(value, str) for value in values) else []


def _is_log(results: Results, key: str) -> bool:
    """Whether the values span more than a factor of ten."""
    places = _positions(results, key)
    return not _words(results, key) and min(places) > 0 and max(places) > 10 * min(places)


def _scale(axes: Any, results: Results, key: str) -> None:
    words = _words(results, key)
    if words:
        axes.set_xticks(range(len(words)), words, rotation=20)
    elif _is_log(results, key):
        axes.set_xscale("log")


def _unit(values: list[float], log: bool = False) -> list[float]:
    """Values from 0, the smallest, to 1, the largest."""
    array = np.log(values) if log else np.array(values, dtype=float)
    span = np.ptp(array)
    return [float(value) for value in ((array - array.min()) / span if span else np.full(len(array), 0.5))]


def _ticks(results: Results, name: str) -> list[tuple[float, str]]:
    """What stands beside an axis of parallel coordinates, and how high."""
    if name in results.keys:
        words = _words(results, name)
        if words:
            return list(zip(_unit([float(number) for number in range(len(words))]), words, strict=True))
        places = _positions(results, name)
    else:
        figure = next(figure for figure, label in LABELS.items() if label == name)
        places = [_of(one, figure) for one in results.ranked]
    if min(places) == max(places):
        return [(0.5, f"{places[0]:.4g}")]
    return [(0.0, f"{min(places):.4g}"), (1.0, f"{max(places):.4g}")]
