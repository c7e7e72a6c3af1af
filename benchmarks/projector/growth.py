"""How the time of an FBP grows with the angles, the image's side, the batch and the threads; everything else as is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.projector.cases import OURS, Case, updates
from benchmarks.projector.report import figure, gups, markdown
from benchmarks.projector.timing import Timing
from fbp_ray.filters import WindowConfig
from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.model import LearnableFBP, ModelConfig

BATCH = 4
ANGLES = (125, 250, 500, 1000, 2000)
SIDES = (128, 181, 256, 362, 512, 724)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Point(NamedTuple):
    """One FBP among others that differ from it in one thing."""

    axis: str
    value: int
    geometry: ParallelBeam
    case: Case


def points(threads: int) -> list[Point]:
    """The geometry of LoDoPaB-CT, changed in one thing at a time."""
    base = ParallelBeam.lodopab()
    counts = sorted({1 << k for k in range(threads.bit_length())} | {threads})
    return [
        *(_point("angles", count, _scaled(base, count, base.image_shape[0]), BATCH, threads) for count in ANGLES),
        *(_point("image side", side, _scaled(base, base.num_angles, side), BATCH, threads) for side in SIDES),
        *(_point("batch", batch, base, batch, threads) for batch in BATCHES),
        *(_point("threads", count, base, BATCH, count) for count in counts),
    ]


def _scaled(base: ParallelBeam, angles: int, side: int) -> ParallelBeam:
    """The same field of view in pixels and cells of another size, seen from another number of angles."""
    finer = side / base.image_shape[0]
    return ParallelBeam(
        angles=RegularAngles(count=angles, first=math.pi / angles / 2, step=math.pi / angles),
        cells=round(base.cells * finer),
        cell_size=base.cell_size / finer,
        image_shape=(side, side),
        pixel_size=base.pixel_size / finer,
    )


def _point(axis: str, value: int, geometry: ParallelBeam, batch: int, threads: int) -> Point:
    model = LearnableFBP(ModelConfig(geometry=geometry, window=WindowConfig(kind="fixed", init="hann")))
    sinogram = torch.rand(batch, *geometry.sinogram_shape)

    def run() -> object:
        usual = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return model(sinogram)
        finally:
            torch.set_num_threads(usual)

    return Point(axis, value, geometry, Case(OURS, "FBP", batch, run))


def growth_table(found: Sequence[Point], timings: Sequence[Timing]) -> str:
    """ms an image and GUPS at every point."""
    rows = [
        [
            f"{point.axis}",
            str(point.value),
            str(point.case.batch),
            figure(timing.median * 1e3),
            figure(updates(point.geometry, "FBP") / 1e6),
            figure(gups(timing, point.geometry)),
        ]
        for point, timing in zip(found, timings, strict=True)
    ]
    return markdown(["what changes", "to", "batch", "ms an image", "million updates", "GUPS"], rows)


def plot(found: Sequence[Point], timings: Sequence[Timing], file: Path) -> None:
    """A panel for each thing that changes: measured times, and the line along which they would be in proportion."""
    from matplotlib.figure import Figure

    axes = list(dict.fromkeys(point.axis for point in found))
    drawing = Figure(figsize=(3.4 * len(axes), 3.4), layout="constrained")
    proportional = {"angles": 1.0, "image side": 2.0, "batch": 0.0, "threads": -1.0}
    for panel, axis in zip(drawing.subplots(1, len(axes), squeeze=False)[0], axes, strict=True):
        of_axis = [(p.value, t.median * 1e3) for p, t in zip(found, timings, strict=True) if p.axis == axis]
        values, times = zip(*of_axis, strict=True)
        last = [times[-1] * (value / values[-1]) ** proportional[axis] for value in values]
        panel.loglog(values, times, "o-", label="measured")
        panel.loglog(values, last, ":", color="grey", label="in proportion")
        panel.set_xticks(values, [str(value) for value in values], rotation=45)
        panel.minorticks_off()
        panel.set(xlabel=axis, title=f"FBP by {axis}")
        panel.set_ylim(bottom=min(*times, *last) / 1.5, top=max(*times, *last) * 1.5)
    first = drawing.axes[0]
    first.set_ylabel("ms an image")
    first.legend(frameon=False)
    drawing.savefig(file, dpi=150)
