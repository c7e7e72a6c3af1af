"""How much memory and time it takes to make data of scans that are larger and larger.

    python -m benchmarks.scan --folder /scratch                     5 and 20 GB: 4 GB of disk
    python -m benchmarks.scan --folder /scratch --layout images --sizes 5     6 GB of disk

The scan has 1801 projections of 2048 columns, in uint16, and as many rows as make its size. Its file is small, since
what it holds repeats: a block of 64 rows with noise, of which a virtual data set is made; or images of a single row, a
compressed chunk each, which have to be copied into an order of rows first. All of it is read, corrected and written,
four rows and four columns to one unless `--bin` says else.
"""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from benchmarks.projector.machine import OtherPrograms, machine
from benchmarks.volume import run
from fbp_ray.cli import parse, run_program
from fbp_ray.evaluate.phantom import disc
from fbp_ray.geometry import ParallelBeam, RegularAngles

BLOCK = 64  # rows that repeat
DARK, LIGHT = 100, 20000  # counts of none, and of the open beam
MOST_BYTES = 4e9
"""The target."""


class Options(BaseModel):
    """Memory and time of scans of some sizes."""

    model_config = ConfigDict(extra="forbid")

    folder: Path = Field(default=Path(tempfile.gettempdir()), description="where the data go meanwhile")
    sizes: Annotated[
        list[float], BeforeValidator(lambda given: given.split(",") if isinstance(given, str) else given)
    ] = Field(default=[5.0, 20.0], description="GB of counts, separated by commas")
    angles: int = Field(default=1801, ge=2, description="projections over the half circle")
    columns: int = Field(default=2048, ge=64, description="of the detector")
    bin: int = Field(default=4, ge=1, description="as --bin of fbp_ray.scan")
    memory: float = Field(default=1.0, gt=0, description="as --memory of fbp_ray.scan, GB")
    layout: Literal["rows", "images"] = Field(default="rows", description="what lies together in the file")


def main(argv: Sequence[str]) -> None:
    """Measures and prints."""
    options = parse(Options, argv, "python -m benchmarks.scan")
    print("machine: " + ", ".join(f"{name} {value}" for name, value in machine().items()), flush=True)
    others, highest = OtherPrograms(), []
    with tempfile.TemporaryDirectory(prefix="scan-", dir=options.folder) as temporary:
        folder = Path(temporary)
        block = counts(options)
        for size in options.sizes:
            rows = math.ceil(1e9 * size / (2 * options.angles * options.columns * BLOCK)) * BLOCK
            write(folder / "scan.h5", block, rows, options)
            began = time.perf_counter()
            took = run(
                [
                    *(sys.executable, "-m", "fbp_ray.scan", str(folder / "scan.h5"), "--out", str(folder / "data")),
                    *("--bin", str(options.bin), "--memory", str(options.memory)),
                ]
            )
            highest.append(took.memory)
            print(
                f"{2e-9 * rows * options.angles * options.columns:.3g} GB, {rows} rows: {took.memory / 1e9:.3g} GB of "
                f"memory at the highest (target {MOST_BYTES / 1e9:g}), {took}, "
                f"{1e3 * (time.perf_counter() - began) / rows:.3g} ms a row",
                flush=True,
            )
            shutil.rmtree(folder / "data")
    print(f"memory from the smallest to the largest: {highest[-1] / highest[0] - 1:+.1%}")
    print(f"other programs {others.cores() or 0:.2f} cores")


def counts(options: Options) -> NDArray[np.uint16]:
    """Those of a disc, (A, BLOCK, D), with noise and columns that count more or less."""
    geometry = ParallelBeam(
        angles=RegularAngles(count=options.angles, first=0.0, step=math.pi / options.angles),
        cells=options.columns,
        cell_size=1 / options.columns,
        image_shape=(options.columns, options.columns),
        pixel_size=1 / options.columns,
    )
    integrals, random = disc(geometry), np.random.default_rng(0)
    light = LIGHT * np.exp(-2 * integrals / integrals.max()) * (1 + 0.01 * random.standard_normal(options.columns))
    noise = random.standard_normal(options.columns * BLOCK).astype(np.float32)
    block = np.empty((options.angles, BLOCK, options.columns), np.uint16)
    for angle, one in enumerate(light.astype(np.float32)):
        rolled = np.roll(noise, 977 * angle).reshape(BLOCK, -1)
        block[angle] = np.maximum(one + np.sqrt(one) * rolled, 0) + DARK
    return block


def write(path: Path, block: NDArray[np.uint16], rows: int, options: Options) -> None:
    """A DXchange file of so many rows, which are those of the block over and over."""
    angles, _, columns = block.shape
    path.unlink(missing_ok=True)
    with h5py.File(path, "w") as file:
        if options.layout == "rows":
            file.create_dataset("block", data=block, chunks=(angles, 1, columns))
            layout = h5py.VirtualLayout((angles, rows, columns), np.uint16)
            for first in range(0, rows, BLOCK):
                layout[:, first : first + BLOCK] = h5py.VirtualSource(".", "block", block.shape)
            file.create_virtual_dataset("exchange/data", layout)
        else:
            _write_images(file, block, rows)
        file["exchange/theta"] = np.linspace(0, 180, angles, endpoint=False)
        ones: Any = np.ones((1, rows, columns), np.uint16)
        file["exchange/data_white"], file["exchange/data_dark"] = ones * (LIGHT + DARK), ones * DARK


def _write_images(file: h5py.File, block: NDArray[np.uint16], rows: int) -> None:
    """A chunk an image, of one row over and over, which is short compressed."""
    angles, _, columns = block.shape
    data = file.create_dataset(
        "exchange/data", (angles, rows, columns), np.uint16, chunks=(1, rows, columns), compression="lzf"
    )
    for angle, image in enumerate(block):
        data[angle] = np.tile(image[:1], (rows, 1))


if __name__ == "__main__":
    run_program(main)
