"""The page of a scan: what was done, the axis, the rings before and after, a sinogram and its image."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fbp_ray.pictures import GREY, Scale, as_tile
from fbp_ray.report.charts import chart
from fbp_ray.report.page import Html, facts, page, picture, section, table, warning
from fbp_ray.report.page import row as side_by_side
from fbp_ray.scan import ScanConfig
from fbp_ray.scan.axis import Axis
from fbp_ray.settings import flatten

Values = NDArray[np.float32]


class Shown(NamedTuple):
    """One row, as it is shown."""

    row: int
    before: Values
    """(A, D), line integrals before stripe removal and padding."""

    after: Values
    """(A, D'), after both."""

    ramp_before: Values
    """(H, W) in multiples of the unit, as the others: the bare ramp of the first."""

    ramp: Values
    """That of the second."""

    hann: Values
    """A Hann's of the second."""


def write_page(file: Path, config: ScanConfig, description: dict[str, Any], axis: Axis, shown: Shown) -> None:
    """Writes the page of a scan from its `dataset.json`, the axis and one row."""
    steps = description["steps"]
    geometry = description["geometry"]
    parts = ", ".join(f"{part} {first} to {last - 1}" for part, (first, last) in description["rows"].items())
    known = facts(
        [
            ("scan", description["source"].removeprefix("scan ")),
            (
                "sinograms",
                f"{sum(description['samples'].values())} rows, {shown.after.shape[0]} angles, "
                f"{geometry['cells']} cells of {_length(geometry['cell_size'])}",
            ),
            ("image", f"{geometry['image_shape'][0]} x {geometry['image_shape'][1]} pixels"),
            ("rows", parts),
            ("the value 1 is", f"{description['unit']:g} 1/m"),
            (
                "photons a ray",
                f"{description['photons']:g}, by {steps['photons_from']}" if description["photons"] else "unknown",
            ),
            (
                "flats, darks",
                f"{'+'.join(map(str, steps['flats'])) or 0}, {steps['darks']}; {steps['flat_correction']}",
            ),
            ("dead pixels", steps["dead_pixels"]),
            ("zingers", steps["zingers"]),
            ("counts of none", steps["counts_of_none"]),
            ("cells added", "{} before, {} after".format(*steps["pad"]) if any(steps["pad"]) else "none"),
        ]
    )
    notes = [warning(note) for note in description["notes"][1:]]
    if config.stripes.method == "none":
        pictures, sinograms, after = [_image("Ramp", shown.ramp)], [_sinogram("as it is", shown.after)], ""
    else:
        pictures = [
            _image("Ramp, before stripe removal", shown.ramp_before),
            _image("Ramp, after stripe removal", shown.ramp),
            _difference("What stripe removal took away", shown.ramp_before - shown.ramp),
        ]
        sinograms = [_sinogram("before", shown.before), _sinogram("after", shown.after)]
        after = ", after stripe removal"
    given = flatten(config.model_dump(mode="json", exclude={"out"}))
    rows = [(f"--{name}", "not given" if value in (None, []) else value) for name, value in given.items()]
    settings = table("Options of the command", ["option", "value"], rows, text=True)
    content = page(
        f"Scan {config.scan.name if config.scan else 'of the sample'}",
        *notes,
        section("What was done", known),
        section("The rotation axis", *_axis(axis)),
        section(f"Rings, row {shown.row}", side_by_side(*pictures), side_by_side(*sinograms)),
        section(f"A Hann, row {shown.row}", _image(f"Hann{after}", shown.hann)),
        section("Settings", settings),
    )
    file.write_text(content, encoding="utf-8")


def _axis(axis: Axis) -> list[Html]:
    said = f"Column {axis.column:g}, {axis.method}"
    if not axis.columns:
        return [facts([("axis", said)])]

    def draw(axes: Any) -> None:
        axes.plot(axis.columns, axis.metric, "C0")
        axes.axvline(axis.column, color="C1", ls="--")
        axes.set(xlabel="column", ylabel="mismatch", title="rotation axis")

    shown = chart(draw, "how badly the scan and its mirror image fit, by the column of the axis")
    return [facts([("axis", said), ("rows differ by", f"{axis.spread:g} columns (median)")]), shown]


def _image(name: str, image: Values) -> Html:
    return picture(as_tile(image, GREY), name, f"{name}, {GREY.low:g} to {GREY.high:g}")


def _difference(name: str, image: Values) -> Html:
    high = max(float(f"{np.percentile(np.abs(image), 99.5):.1g}"), 1e-6)
    return picture(as_tile(image, Scale(-high, high, "RdBu_r")), name, f"{name}, {-high:g} (blue) to {high:g} (red)")


def _length(metres: float) -> str:
    return f"{1e3 * metres:.4g} mm" if metres >= 1e-4 else f"{1e6 * metres:.4g} µm"


def _sinogram(name: str, sinogram: Values) -> Html:
    high = float(np.percentile(sinogram, 99.9))
    step = max(1, max(sinogram.shape) // 1024)
    pixels = as_tile(sinogram[::step, ::step].T, Scale(0.0, max(high, 1e-6), "viridis"))
    return picture(pixels, f"sinogram {name}", f"Sinogram {name}, 0 to {high:.3g}; cells across, angles down")
