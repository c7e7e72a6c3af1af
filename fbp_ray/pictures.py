"""Pictures of reconstructions and of filter windows, for trackers and for evaluations.

All reconstructions share one grey window, and all differences one signed scale, so that pictures of different epochs
and runs can be compared.

Dimensions: A angles, D detector cells, F frequencies; H, W the image's axes x and y, shown as `image.T`.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from fbp_ray.baseline import Baseline, Quality
from fbp_ray.config import TrackConfig
from fbp_ray.data.values import BRIGHTEST, brightest
from fbp_ray.filters import BandWindow, analytic_window, frequencies, is_plain
from fbp_ray.filters.adaptive import ENERGIES, VARIANCES
from fbp_ray.model import LearnableFBP, fbp
from fbp_ray.stage_settings import WindowName
from fbp_ray.trackers import Pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fbp_ray.data import LoDoPaB


class Scale(NamedTuple):
    """The values that have the first and the last of matplotlib's colours; those beyond them look the same."""

    low: float
    high: float
    colours: str


GREY = Scale(0.0, BRIGHTEST, "gray")  # attenuation / MU_MAX: air is 0, water 0.246
DIFFERENCE = Scale(-0.08, 0.08, "RdBu_r")  # blue for too little, red for too much
GAP = 6  # pixels between the images of a strip
HEADER = 24  # pixels above them, for their names
ANALYTIC: tuple[WindowName, ...] = ("hann", "hamming", "cosine", "shepp-logan")
SMALLEST = 240  # smaller images are enlarged to at least so many pixels a side, or their names would not fit


def scales_for(high: float) -> tuple[Scale, Scale]:
    """What images are shown in whose highest values are so high, and their differences."""
    reach = float(f"{high * DIFFERENCE.high / GREY.high:.2g}")
    return Scale(0.0, high, GREY.colours), Scale(-reach, reach, DIFFERENCE.colours)


def panels(
    model: LearnableFBP, dataset: LoDoPaB, baseline: Baseline, config: TrackConfig, epoch: int
) -> dict[str, Pixels]:
    """An epoch's pictures for trackers, by name: strips of evenly spaced samples, and the window.

    Args:
        model: in the state to be shown; its training mode does not change.
        dataset: the validation part.
        baseline: its `hann_ssim_cutoff` is that of the classic FBP.
        config: how many samples, and in which epochs. The result is empty in the other epochs.
        epoch: from 1.
    """
    if epoch % config.every != 0:
        return {}
    cutoff = baseline.hann_ssim_cutoff
    device = next(model.parameters()).device
    pictures: dict[str, Pixels] = {}
    scales: tuple[Scale, Scale] | None = None  # all samples have the first one's
    for index in evenly_spaced(len(dataset), config.images):
        sample = dataset[index]
        observation = sample.observation.to(device)
        with torch.no_grad():
            classic = fbp(observation, model.geometry, "hann", cutoff)
            learned = model(observation)
        truth = sample.ground_truth if dataset.truth else None
        unit = model.config.window.unit
        scales = scales or scales_for(brightest(unit, classic.cpu() if truth is None else truth))
        name = f"FBP, Hann {cutoff:.2f}"
        pictures[f"reconstruction/{index:04d}"] = strip(classic, learned, truth, name, *scales)
    cutoffs = sorted({baseline.hann_psnr_cutoff, baseline.hann_ssim_cutoff})
    if (window := window_figure(model.filter, model.geometry.parallel.cells, cutoffs)) is not None:
        pictures["window"] = as_pixels(window)
    return pictures


def evenly_spaced(length: int, count: int) -> list[int]:
    """The numbers of `count` samples, or of all when there are fewer, spread evenly over `length` of them."""
    count = min(count, length)
    return [round((k + 0.5) * length / count - 0.5) for k in range(count)]


def strip(
    classic: Tensor,
    learned: Tensor,
    truth: Tensor | None,
    classic_name: str = "classic FBP",
    grey: Scale = GREY,
    difference: Scale = DIFFERENCE,
) -> Pixels:
    """[classic FBP | learned FBP | ground truth | learned - ground truth], with names above.

    Without ground truth it is [classic FBP | learned FBP | learned - classic FBP].

    Args:
        classic: (H, W), on any device, as the others.
        learned: (H, W).
        truth: (H, W), or None.
        classic_name: stands above the first.
        grey, difference: what the images and the differences are shown in.
    """
    classic, learned = (image.detach().float().cpu() for image in (classic, learned))
    named = {classic_name: _colour(classic, grey), "learned FBP": _colour(learned, grey)}
    scale = f"{difference.low:g} to {difference.high:g}"
    if truth is None:
        named[f"learned - classic, {scale}"] = _colour(learned - classic, difference)
    else:
        truth = truth.detach().float().cpu()
        named[f"ground truth, {grey.low:g} to {grey.high:g}"] = _colour(truth, grey)
        named[f"learned - truth, {scale}"] = _colour(learned - truth, difference)
    return _tiles([list(named.items())], HEADER)


def comparison(
    title: str,
    observation: Tensor,
    reconstructions: dict[str, tuple[Tensor, Quality]],
    ground_truth: Tensor,
    grey: Scale = GREY,
    difference: Scale = DIFFERENCE,
) -> Pixels:
    """A picture of one sample: every reconstruction and the ground truth, the signed differences and the observation.

    Every pixel of an image is one of the picture, or a square of them.

    Args:
        title: stands above it.
        observation: (A, D).
        reconstructions: for each method its image (H, W) and the image's quality.
        ground_truth: (H, W).
        grey, difference: what the images and the differences are shown in.
    """
    images, differences = [], []
    for method, (image, quality) in reconstructions.items():
        images.append((f"{method}\n{quality.psnr:.2f} dB, SSIM {quality.ssim:.4f}", _colour(image, grey)))
        name = f"{method} - ground truth\n{difference.low:g} (blue) to {difference.high:g} (red)"
        differences.append((name, _colour(image - ground_truth, difference)))
    images.append((f"ground truth\n{grey.low:g} (black) to {grey.high:g} (white)", _colour(ground_truth, grey)))
    # As large as an image: the nearest of its values.
    rows, columns = (
        np.linspace(0, length - 1, size).round().astype(int)
        for length, size in zip(observation.shape, ground_truth.shape, strict=True)
    )
    scan = _colour(observation[rows][:, columns], Scale(0, max(float(observation.max()), 1e-9), "viridis"))
    differences.append((f"observation, 0 to {float(observation.max()):.3g}\nangles across, cells down", scan))
    return _tiles([images, differences], 2 * HEADER, title)


def _tiles(rows: list[list[tuple[str, Pixels]]], header: int, title: str = "") -> Pixels:
    """Tiles of one size in rows, each below its name, which has `header` pixels; enlarged by a whole number."""
    height, width = rows[0][0][1].shape[:2]
    times = -(-SMALLEST // min(height, width))
    height, width = times * height, times * width
    above = HEADER if title else 0
    size = (len(rows[0]) * (width + GAP) - GAP, above + len(rows) * (header + height))
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(14)
    draw.text((size[0] // 2, above // 2), title, "black", font, anchor="mm")
    for row, tiles in enumerate(rows):
        top = above + row * (header + height)
        for column, (name, tile) in enumerate(tiles):
            left = column * (width + GAP)
            draw.text((left + width // 2, top + header // 2), name, "black", font, anchor="mm", align="center")
            canvas.paste(Image.fromarray(tile.repeat(times, axis=0).repeat(times, axis=1)), (left, top + header))
    return np.array(canvas)


class Chart(NamedTuple):
    """A drawing that needs axes to be drawn into."""

    title: str
    draw: Callable[[Any], Any]
    """Given the axes, it draws; returns what a colour bar explains, or None."""

    width: float
    """Of the axes beside those of others."""


def window_figure(stage: nn.Module, cells: int, cutoffs: Iterable[float]) -> Figure | None:
    """The charts of a window side by side; None for a stage without one. Arguments as for `window_charts`."""
    charts = window_charts(stage, cells, cutoffs)
    if not charts:
        return None
    widths = [chart.width for chart in charts]
    figure = blank_figure(sum(widths), 3.6 if len(charts) > 2 else 4.8)
    every: Any = figure.subplots(1, len(charts), width_ratios=widths, squeeze=False)[0]
    explained = [(axes, chart.draw(axes)) for axes, chart in zip(every, charts, strict=True)]
    if maps := [(axes, drawn) for axes, drawn in explained if drawn is not None]:
        figure.colorbar(maps[-1][1], ax=[axes for axes, _ in maps])
    return figure


def window_charts(stage: nn.Module, cells: int, cutoffs: Iterable[float]) -> list[Chart]:
    """The learned window beside the analytic ones and the Hanns that it is compared with; none for a stage without one.

    Args:
        stage: a window (F,); one of (A, F) is also shown over the angles, one by noise with the gains of its bands.
        cells: D.
        cutoffs: of the Hanns.
    """
    hanns = {f"hann {cutoff:.2f}, compared": cutoff for cutoff in cutoffs}
    if isinstance(stage, BandWindow):
        return _bands_charts(stage, hanns)
    if not is_plain(stage):
        return []
    weight = stage.window().detach().cpu().numpy()
    by_angle = weight.ndim == 2
    frequency = frequencies(cells)

    def curves(axes: Any) -> None:
        _analytic(axes, frequency, hanns)
        mean = weight.mean(0) if by_angle else weight
        axes.plot(frequency, mean, "k", lw=2, label="learned (mean over the angles)" if by_angle else "learned")
        if by_angle:
            low, high = np.percentile(weight, [5, 95], axis=0)
            axes.fill_between(frequency, low, high, color="k", alpha=0.2, label="learned, 5 to 95 % of the angles")
        low, high = min(-0.1, 1.05 * float(mean.min())), max(1.05, 1.05 * float(mean.max()))
        ylim = (low, high + 0.45 * (high - low))  # the legend stands above the curves
        axes.set(xlabel="frequency / Nyquist", ylabel="window", xlim=(0, 1), ylim=ylim)
        axes.legend(fontsize="x-small", ncols=2, loc="upper right")

    def over_angles(axes: Any) -> Any:
        extent = (0.0, 1.0, 0.0, float(len(weight)))
        axes.set(title="learned weight", xlabel="frequency / Nyquist", ylabel="angle")
        return axes.imshow(weight, aspect="auto", origin="lower", extent=extent, cmap="viridis", vmin=0, vmax=1.4)

    charts = [Chart("the window", curves, 6.25 if by_angle else 7)]
    return [*charts, Chart("the weight by angle and frequency", over_angles, 6.25)] if by_angle else charts


def _analytic(axes: Any, frequency: NDArray[np.float64], hanns: dict[str, float]) -> None:
    """The analytic windows, thin, and the Hanns that are compared."""
    axes.axhline(1.0, color="tab:gray", lw=1, ls="--", label="none (ramp)")
    for name in ANALYTIC:
        axes.plot(frequency, analytic_window(name, frequency), lw=1, ls="--", label=name)
    for label, cutoff in hanns.items():
        axes.plot(frequency, analytic_window("hann", frequency, cutoff), lw=1.5, label=label)
    axes.grid(alpha=0.3)


def _bands_charts(stage: BandWindow, hanns: dict[str, float]) -> list[Chart]:
    """The windows of the bands beside the Hanns, and each band's gain by the noise and by what stands out of it."""
    gains = stage.gains.detach().cpu().numpy()

    def curves(axes: Any) -> None:
        for number, window in enumerate(stage.windows().detach().cpu().numpy()):
            label = f"up to band {number}" if number else "always kept"
            axes.plot(np.linspace(0, 1, len(window)), window, label=label)
        frequency = np.linspace(0, 1, 200)
        for name in ANALYTIC:
            shared = ", ".join(ANALYTIC) if name == ANALYTIC[0] else None
            axes.plot(frequency, analytic_window(name, frequency), color="0.7", lw=1, ls=":", label=shared)
        for label, cutoff in hanns.items():
            axes.plot(frequency, analytic_window("hann", frequency, cutoff), lw=1, ls="--", label=label)
        axes.set(xlabel="frequency / Nyquist", ylabel="window", xlim=(0, 1), title="bands")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")

    def of_band(number: int, gain: NDArray[np.float32], axes: Any) -> Any:
        axes.set_title(f"gain of band {number}")
        if gain.shape[1] == 1:
            axes.plot(np.linspace(*VARIANCES), gain[:, 0], "k")
            axes.set(xlabel="log10 variance of a ray", ylim=(-0.1, 2))
            return None
        extent = (*ENERGIES[:2], *VARIANCES[:2])
        axes.set(xlabel="log10 energy / noise", ylabel="log10 variance of a ray")
        return axes.imshow(gain, aspect="auto", origin="lower", extent=extent, cmap="viridis", vmin=0, vmax=2)

    maps = [
        Chart(f"the gain of band {number}", functools.partial(of_band, number, gain), 3.2)
        for number, gain in enumerate(gains, start=1)
    ]
    return [Chart("the windows of the bands", curves, 4.48), *maps]


def blank_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """A figure of so many inches that does not use pyplot, so any thread may draw it."""
    from matplotlib.figure import Figure  # here, not above: a training imports this module and may never draw

    return Figure(figsize=(width, height), dpi=110, layout=layout)


def as_png(picture: Figure | Pixels) -> bytes:
    """A figure, or pixels, as the content of a PNG file."""
    content = io.BytesIO()
    if isinstance(picture, np.ndarray):
        Image.fromarray(picture).save(content, format="png")
    else:
        picture.savefig(content, format="png")
    return content.getvalue()


def as_svg(figure: Figure) -> bytes:
    """A figure as the content of an SVG file that depends on the figure alone."""
    from matplotlib import rc_context

    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "fbp-ray"}):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    return content.getvalue()


def as_tile(image: NDArray[np.floating[Any]], scale: Scale) -> bytes:
    """An image (H, W) as the content of a PNG of 256 colours, enlarged by a whole number where it is small."""
    from matplotlib import colormaps

    levels = np.nan_to_num((image.T.astype(np.float32) - scale.low) / (scale.high - scale.low))
    times = -(-SMALLEST // min(image.shape))
    shown = Image.fromarray((255 * levels.clip(0, 1)).round().astype(np.uint8).repeat(times, 0).repeat(times, 1))
    if scale.colours != GREY.colours:
        shown.putpalette(colormaps[scale.colours](range(256), bytes=True)[:, :3].tobytes())
    content = io.BytesIO()
    shown.save(content, format="png")
    return content.getvalue()


def as_pixels(figure: Figure) -> Pixels:
    """The figure as pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[..., :3]  # type: ignore[no-untyped-call]


def _colour(image: Tensor, scale: Scale) -> Pixels:
    from matplotlib import colormaps

    levels = (image.T.numpy() - scale.low) / (scale.high - scale.low)
    return np.asarray(colormaps[scale.colours](levels, bytes=True)[..., :3])
