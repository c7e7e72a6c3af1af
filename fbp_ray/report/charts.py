"""A report's charts: small ones, each with one pair of axes, so that they can be read on a phone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fbp_ray.data.layout import MU_MAX
from fbp_ray.data.values import BRIGHTEST, in_hounsfield
from fbp_ray.pictures import Scale, as_svg, blank_figure, scales_for, window_charts
from fbp_ray.report.page import Html, picture, row
from fbp_ray.report.subject import Evaluation, Subject

SIZE = (4.4, 3.3)  # inches: as wide as a phone is at the size of its text

CURVES: dict[str, tuple[str, tuple[str, ...]]] = {
    "loss": ("loss", ("train_loss", "validation_loss")),
    "PSNR": ("PSNR, dB", ("validation_psnr",)),
    "SSIM": ("SSIM", ("validation_ssim",)),
    "learning rate": ("learning rate", ("lr", "network_lr")),
}
"""What each chart of learning curves shows: the axis, and columns of history.csv."""

EDGES = {"high": "1000", "low": "100"}  # HU, or thousandths of a disc that is not water


def unit_of(evaluation: Evaluation) -> float:
    """1/m that the value 1 stands for in an evaluation's images."""
    return float(evaluation.measured.get("unit", MU_MAX))


def scales_of(evaluation: Evaluation) -> tuple[Scale, Scale]:
    """What its images and their differences are shown in."""
    return scales_for(float(evaluation.measured.get("brightest", BRIGHTEST)))


def edges(ct: bool) -> dict[str, str]:
    """The contrast of each insert, in words."""
    return {name: f"{contrast} {'HU' if ct else '‰'}" for name, contrast in EDGES.items()}


def chart(draw: Callable[[Any], Any], described: str, caption: object = "") -> Html:
    """A chart of one pair of axes, which `draw` is given; what it returns is explained by a colour bar."""
    figure = blank_figure(*SIZE, layout=None)
    figure.subplots_adjust(left=0.18, bottom=0.15, right=0.97, top=0.91)  # to work it out takes as long as to draw
    axes: Any = figure.subplots()
    drawn = draw(axes)
    shown = axes.yaxis.get_major_formatter().format_ticks(axes.get_yticks())
    longest = max((len(label) for label in shown if "$" not in label), default=0)
    if longest > 5:  # room for the axis's name beside them
        figure.subplots_adjust(left=0.18 + 0.02 * (longest - 5))
    if drawn is not None:
        figure.colorbar(drawn, ax=axes)
    return picture(as_svg(figure), described, caption)


def legend_above(axes: Any) -> None:
    """A legend over the curves, for which the axis goes on."""
    lines = len(axes.get_legend_handles_labels()[0])
    low, high = axes.get_ylim()
    share = 0.09 * lines + 0.03
    if axes.get_yscale() == "log":
        axes.set_ylim(low, high * (high / low) ** (share / (1 - share)))
    else:
        axes.set_ylim(low, high + (high - low) * share / (1 - share))
    axes.legend(fontsize="small", loc="upper right")


def plain(text: str) -> str:
    """A name in characters that every font has, short, and without meaning for matplotlib."""
    shown = "".join(one if one.isascii() and one.isprintable() else "?" for one in text)
    shown = shown if len(shown) <= 24 else shown[:22] + ".."
    return f" {shown}".replace("$", r"\$")  # a legend leaves out what begins with an underscore


def windows(subject: Subject) -> list[Html]:
    """The window beside the analytic ones; none where there is no window that can be drawn."""
    if subject.model is None:
        return []
    found = window_charts(subject.model.filter, subject.model.geometry.parallel.cells, subject.cutoffs)
    return [chart(one.draw, f"{one.title} of {subject.name}", one.title) for one in found]


def curves(subjects: Mapping[str, Subject]) -> Html:
    """The learning curves of runs, over one another.

    Args:
        subjects: by the label that each has; one alone shows the loss of the training part too.
    """
    alone = len(subjects) == 1
    made = []
    for name, (axis, columns) in _curves_of(subjects).items():
        chosen = columns if alone or name == "learning rate" else columns[-1:]
        lines = []
        for number, (label, subject) in enumerate(subjects.items()):
            for order, column in enumerate(chosen):
                points = [(r["epoch"], r[column]) for r in subject.history if column in r and "epoch" in r]
                if points:
                    said = column.replace("_", " ") if alone else label
                    style = {"ls": ("-", "--")[0 if alone else order], "label": said if order == 0 or alone else None}
                    lines.append((points, {"color": f"C{number + order if alone else number}", **style}))
        if not lines:
            continue

        def draw(axes: Any, lines: Sequence[Any] = lines, axis: str = axis, name: str = name) -> None:
            for points, style in lines:
                axes.plot(*zip(*points, strict=True), marker="." if len(points) < 3 else "", **style)
            for number, subject in enumerate(subjects.values()):
                level = _hann(subject, name)
                if level is not None:
                    colour = "tab:gray" if alone else f"C{number}"
                    axes.axhline(level, color=colour, lw=1, ls=":", label="best Hann" if number == 0 else None)
            axes.set(xlabel="epoch", ylabel=axis)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")

        where = "" if name == "learning rate" else " on the validation part" if chosen == columns[-1:] else ""
        made.append(chart(draw, f"{name}{where} by epoch, of {', '.join(s.name for s in subjects.values())}"))
    return row(*made)


def _curves_of(subjects: Mapping[str, Subject]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Those of CURVES; of a run without ground truth the two losses are different things, with a chart each."""
    if len(subjects) > 1 or all(one.config.get("target") != "self" for one in subjects.values()):
        return CURVES
    apart = {"loss": ("loss", ("train_loss",)), "squared error": ("squared error, estimated", ("validation_loss",))}
    return apart | {name: curve for name, curve in CURVES.items() if name != "loss"}


def _hann(subject: Subject, name: str) -> float | None:
    if subject.baseline is None:
        return None
    return {"PSNR": subject.baseline.hann_psnr, "SSIM": subject.baseline.hann_ssim}.get(name)


def noise_and_edges(series: Sequence[tuple[str, Evaluation, str]]) -> Html:
    """Noise power spectra, and the transfer function of each edge.

    Args:
        series: label, evaluation and method of each curve.
    """

    ct = all(in_hounsfield(unit_of(evaluation)) for _, evaluation, _ in series)
    contrasts, noise = edges(ct), "HU² mm²" if ct else "‰² mm²"

    def power(axes: Any) -> None:
        for number, (label, evaluation, method) in enumerate(series):
            seen = evaluation.measured["noise"][method]
            axes.plot(seen["frequency"], seen["power"], color=f"C{number}", label=label)
        axes.set(xlabel="cycles/mm", ylabel=noise, yscale="log", title="noise power spectrum")
        axes.grid(alpha=0.3)
        legend_above(axes)

    def edge(name: str) -> Callable[[Any], None]:
        def draw(axes: Any) -> None:
            last = 0.0
            for number, (label, evaluation, method) in enumerate(series):
                found = evaluation.measured["edges"][method].get(name)
                if found:
                    axes.plot(found["frequency"], found["transfer"], color=f"C{number}", label=label)
                    last = max(last, evaluation.measured["noise"][method]["frequency"][-1])
            axes.axhline(0.5, color="tab:gray", lw=1, ls=":")
            axes.set(xlabel="cycles/mm", xlim=(0, last), ylim=(0, 1.4), title=f"MTF, edge of {contrasts[name]}")
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")

        return draw

    made = [chart(power, f"noise power spectra in {'water' if ct else 'the disc'}, by spatial frequency")]
    for name, contrast in contrasts.items():
        if any(name in evaluation.measured["edges"][method] for _, evaluation, method in series):
            made.append(chart(edge(name), f"modulation transfer function at an edge of {contrast}, by frequency"))
    return row(*made)


def profile(lines: Mapping[str, Any], described: str, values: str) -> Html:
    """Values along a line of an image.

    Args:
        lines: by method; "ground truth" is drawn thick and grey.
        described: what line of what.
        values: what they are.
    """

    def draw(axes: Any) -> None:
        for number, (label, values) in enumerate(lines.items()):
            style = {"color": "0.6", "lw": 3} if label == "ground truth" else {"color": f"C{number}", "lw": 1}
            axes.plot(np.arange(len(values)), values, label=label, **style)
        axes.set(xlabel="pixel along x", ylabel=values)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")

    return chart(draw, described, described)
