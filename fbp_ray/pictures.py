"""Pictures of reconstructions and windows. All images share one grey window, all differences one signed scale."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fbp_ray.baseline import Quality
from fbp_ray.filters import TableWindow, analytic_window, frequencies

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY = (0.0, 0.45)  # attenuation / MU_MAX: air is 0, water 0.246, dense bone 0.45
DIFFERENCE = (-0.08, 0.08)


def evenly_spaced(length: int, count: int) -> list[int]:
    """The numbers of `count` samples, or of all when there are fewer, spread evenly over `length` of them."""
    count = min(count, length)
    return [round((k + 0.5) * length / count - 0.5) for k in range(count)]


def panel(
    title: str, observation: Tensor, reconstructions: dict[str, tuple[Tensor, Quality]], ground_truth: Tensor
) -> bytes:
    """One image as a PNG: the observation, each reconstruction, the ground truth, and the signed differences.

    Args:
        title: stands above it.
        observation: (A, D).
        reconstructions: for each method its image (H, W) and its figures of merit.
        ground_truth: (H, W).
    """
    columns = len(reconstructions) + 2
    figure = blank_figure(3.1 * columns, 6.6)
    axes: Any = figure.subplots(2, columns)
    _show(axes[0, 0], observation.T, "observation", "viridis", (0, float(observation.max())))
    axes[0, 0].set_aspect("auto")
    axes[0, 0].set_xlabel("angle")
    axes[0, 0].set_ylabel("detector cell")
    axes[1, 0].set_axis_off()
    for column, (method, (image, merit)) in enumerate(reconstructions.items(), start=1):
        _show(axes[0, column], image.T, f"{method}\n{merit.psnr:.2f} dB, SSIM {merit.ssim:.4f}", "gray", GREY)
        _show(axes[1, column], (image - ground_truth).T, f"{method} - ground truth", "RdBu_r", DIFFERENCE)
    _show(axes[0, -1], ground_truth.T, "ground truth", "gray", GREY)
    axes[1, -1].set_axis_off()
    greys, differences = axes[0, -1].images[0], axes[1, 1].images[0]
    figure.colorbar(greys, ax=axes[0, -1], label="attenuation / MU_MAX")
    figure.colorbar(differences, ax=axes[1, -1], label="difference", location="left", shrink=0.9)
    figure.suptitle(title)
    return as_png(figure)


def window_plot(stage: TableWindow, cells: int) -> bytes:
    """The learned window beside the analytic ones, as a PNG; over the angles too where it has a weight for each.

    Args:
        stage: its weights are (F,) or (A, F).
        cells: D.
    """
    return as_png(_window_figure(stage, cells))


def window_pixels(stage: TableWindow, cells: int) -> NDArray[np.uint8]:
    """The same picture as pixels (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(_window_figure(stage, cells))
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[..., :3]  # type: ignore[no-untyped-call]


def _window_figure(stage: TableWindow, cells: int) -> Figure:
    weight = stage.weight.detach().cpu().numpy()
    by_angle = weight.ndim == 2
    frequency = frequencies(cells)
    figure = blank_figure(12.5 if by_angle else 7, 4.8)
    curves: Axes = figure.add_subplot(1, 2 if by_angle else 1, 1)
    curves.axhline(1.0, color="tab:gray", lw=1, ls="--", label="none (ramp)")
    for name, cutoff in (("hann", 1.0), ("hamming", 1.0), ("cosine", 1.0), ("shepp-logan", 1.0), ("hann", 0.641)):
        label = name if cutoff == 1 else f"{name} {cutoff}"
        curves.plot(frequency, analytic_window(name, frequency, cutoff), lw=1, ls="--", label=label)  # type: ignore[arg-type]
    mean = weight.mean(0) if by_angle else weight
    curves.plot(frequency, mean, "k", lw=2, label="learned (mean over the angles)" if by_angle else "learned")
    if by_angle:
        low, high = np.percentile(weight, [5, 95], axis=0)
        curves.fill_between(frequency, low, high, color="k", alpha=0.2, label="learned, 5 to 95 % of the angles")
        _weights_over_angles(figure.add_subplot(1, 2, 2), weight)
    curves.set(xlabel="frequency / Nyquist", ylabel="window", xlim=(0, 1), ylim=(-0.1, 1.4))
    curves.grid(alpha=0.3)
    curves.legend(fontsize="small")
    return figure


def _weights_over_angles(axes: Axes, weight: NDArray[np.float32]) -> None:
    extent = (0.0, 1.0, 0.0, float(weight.shape[0]))
    picture = axes.imshow(weight, aspect="auto", origin="lower", extent=extent, cmap="viridis", vmin=0, vmax=1.4)
    axes.set(title="learned weight", xlabel="frequency / Nyquist", ylabel="angle")
    axes.figure.colorbar(picture, ax=axes)


def _show(axes: Axes, picture: Tensor, title: str, colours: str, window: tuple[float, float]) -> None:
    axes.imshow(picture.cpu().numpy(), cmap=colours, vmin=window[0], vmax=window[1], interpolation="nearest")
    axes.set_title(title, fontsize="medium")
    axes.set_xticks([])
    axes.set_yticks([])


def blank_figure(width: float, height: float) -> Figure:
    """A figure of so many inches, outside of pyplot: any thread may draw it."""
    from matplotlib.figure import Figure  # here, not above: a training imports this module and may never draw

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def as_png(figure: Figure) -> bytes:
    """The figure as the content of a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
