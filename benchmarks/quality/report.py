"""The table and the plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.projector.report import markdown
from benchmarks.quality.methods import Method
from benchmarks.quality.scores import BATCHES
from fbp_ray.evaluate.phantom import INSERTS, Apart
from fbp_ray.evaluate.scores import Scores


def table(
    methods: Sequence[Method],
    scored: Mapping[str, Scores],
    milliseconds: Mapping[str, Mapping[int, float]],
    apart: Mapping[str, Apart],
) -> str:
    """A row for each method; times are those of a batch of 32, and in FBPs of the first method's."""
    head = ["method", "parameters", "PSNR dB", "(95 %)", "SSIM", "(95 %)", "PSNR-FR dB", "SSIM-FR", "ms an image"]
    head += [f"FBPs at {batch}" for batch in BATCHES]
    head += ["noise HU", "half contrast 1000 HU, 1/mm", "100 HU"]
    first, rows = milliseconds[methods[0].name], []
    for method in methods:
        scores, times, seen = scored[method.name], milliseconds[method.name], apart[method.name]
        mean = scores.mean
        rows.append(
            [
                method.name,
                str(method.parameters),
                f"{mean.psnr:.2f}",
                _between(scores.interval("psnr"), 2),
                f"{mean.ssim:.4f}",
                _between(scores.interval("ssim"), 3),
                f"{mean.psnr_fr:.2f}",
                f"{mean.ssim_fr:.4f}",
                f"{times[max(BATCHES)]:.2f}",
                *(f"{times[batch] / first[batch]:.2f}" for batch in BATCHES),
                f"{seen.noise:.0f}",
                *("too coarse" if math.isnan(half := seen.half(name)) else f"{half:.2f}" for name in INSERTS),
            ]
        )
    return markdown(head, rows)


def _between(interval: tuple[float, float] | None, places: int) -> str:
    return "" if interval is None else f"{interval[0]:.{places}f} to {interval[1]:.{places}f}"


def plot(
    path: Path,
    methods: Sequence[Method],
    scored: Mapping[str, Scores],
    milliseconds: Mapping[str, Mapping[int, float]],
    apart: Mapping[str, Apart],
) -> None:
    """Quality against time, noise power spectra, transfer functions of both edges."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9), layout="constrained")
    axes = figure.subplots(2, 2)
    for index, method in enumerate(methods):
        style = {"color": f"C{index % 10}", "linestyle": ("-", "--")[index // 10 % 2], "label": method.name}
        at = (milliseconds[method.name][max(BATCHES)], scored[method.name].mean.psnr)
        axes[0, 0].plot(*at, "o", color=style["color"])
        axes[0, 0].annotate(method.name, at, xytext=(4, 4), textcoords="offset points", fontsize=8)
        seen = apart[method.name]
        axes[0, 1].plot(seen.frequency, seen.power, **style)
        for axis, name in zip(axes[1], INSERTS, strict=True):
            if name not in seen.edges:
                continue
            frequency, transfer = seen.edges[name]
            axis.plot(frequency, transfer, **style)
    axes[0, 0].set(xscale="log", xlabel="ms an image, batch of 32", ylabel="PSNR in dB", title="quality against time")
    axes[0, 1].set(xlabel="cycles/mm", ylabel="HU$^2$ mm$^2$", title="noise power spectrum in water", yscale="log")
    titles = ("transfer function, edge of 1000 HU", "transfer function, edge of 100 HU")
    for axis, title in zip(axes[1], titles, strict=True):
        axis.set(xlabel="cycles/mm", title=title, xlim=(0, seen.frequency[-1]), ylim=(0, 1.5))
        axis.grid(alpha=0.3)
    axes[0, 1].legend(fontsize=7, ncols=2)
    figure.savefig(path, dpi=110)


def front(
    path: Path,
    methods: Sequence[Method],
    scored: Mapping[str, Scores],
    milliseconds: Mapping[str, Mapping[int, float]],
) -> None:
    """PSNR and SSIM against the time of an image in batches of 8; a line joins what nothing faster equals.

    What learned without ground truth costs what its like costs, and is left out of the line.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    times = {method.name: milliseconds[method.name][8] for method in methods}
    for axis, name, label in zip(figure.subplots(1, 2), ("psnr", "ssim"), ("PSNR in dB", "SSIM"), strict=True):
        values = {method.name: getattr(scored[method.name].mean, name) for method in methods}
        lowest = min(value for one, value in values.items() if one.startswith("Hann"))
        shown = [method for method in methods if values[method.name] >= lowest]
        names = sorted((m.name for m in shown if not m.name.endswith("-self")), key=times.__getitem__)
        best = [one for number, one in enumerate(names) if all(values[one] > values[o] for o in names[:number])]
        axis.step([times[one] for one in best], [values[one] for one in best], where="post", color="C7", linewidth=1)
        for method in shown:
            at, on = (times[method.name], values[method.name]), method.name in best
            axis.plot(*at, "o", color="C0" if on else "0.7", markersize=3 + math.log10(1 + method.parameters))
            if on or method.parameters > 1000:
                text = f"{method.name} ({method.parameters:,})".replace(",", " ")
                side = {"xytext": (-5, 4), "ha": "right"} if on else {"xytext": (6, -8), "ha": "left"}
                axis.annotate(text, at, textcoords="offset points", fontsize=8, **side)
        axis.set(xscale="log", xlabel="ms an image, batches of 8", ylabel=label)
        ticks = [tick for tick in (5, 10, 20, 50, 100, 200, 500, 1000) if tick < 2 * max(times.values())]
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.margins(x=0.3, y=0.1)
        axis.grid(alpha=0.3)
    figure.suptitle("quality against time; in brackets the parameters", fontsize=10)
    figure.savefig(path, dpi=110)
