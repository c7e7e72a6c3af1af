"""How fast a large volume is made, and in how much memory, beside the bare FBP; then a kill -9 in the middle.

    python -m benchmarks.volume --folder /scratch                   128 rows of 1801 angles x 2048 cells: 4 GB of disk
    python -m benchmarks.volume --folder /scratch --rows 2048       the whole: 64 GB, and 98 GB with --kill
    python -m benchmarks.volume --folder /scratch --ray local       on Ray, with an actor on this machine

The scan, a disc with noise whose density grows from row to row, is made in the folder, and taken away at the end.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import psutil
import torch
from pydantic import BaseModel, ConfigDict, Field

from benchmarks.projector.machine import OtherPrograms, machine
from fbp_ray.cli import parse, run_program
from fbp_ray.evaluate.phantom import disc
from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.model import fbp
from fbp_ray.reconstruct.partial import Partial
from fbp_ray.reconstruct.plan import rows_a_slab

ROUNDS = 5
MOST_OVER, MOST_BYTES = 0.15, 6e9
"""The target: so much over the bare FBP a row, and so much memory."""


class Options(BaseModel):
    """Time and memory of a volume, beside the bare FBP."""

    model_config = ConfigDict(extra="forbid")

    folder: Path = Field(default=Path(tempfile.gettempdir()), description="where the scan and the volume go meanwhile")
    rows: int = Field(default=128, ge=2, description="rows of the scan")
    angles: int = Field(default=1801, ge=2, description="angles over the half circle")
    cells: int = Field(default=2048, ge=2, description="cells of a row, and pixels along each side of the image")
    ending: str = Field(default="h5", description="of the volume: h5, tif or zarr")
    ray: str | None = Field(default=None, description="as --ray.address")
    kill: bool = Field(default=False, description="also kill one in the middle, go on, and compare the bytes")


def main(argv: Sequence[str]) -> None:
    """Measures and prints."""
    options = parse(Options, argv, "python -m benchmarks.volume")
    geometry = ParallelBeam(
        angles=RegularAngles(count=options.angles, first=0.0, step=math.pi / options.angles),
        cells=options.cells,
        cell_size=3e-6,
        image_shape=(options.cells, options.cells),
        pixel_size=3e-6,
    )
    print("machine: " + ", ".join(f"{name} {value}" for name, value in machine().items()))
    with tempfile.TemporaryDirectory(prefix="volume-", dir=options.folder) as temporary:
        folder, others = Path(temporary), OtherPrograms()
        data = write_scan(folder / "data", geometry, options.rows)
        bare = bare_fbp(data, geometry)
        command = [
            sys.executable,
            "-m",
            "fbp_ray.reconstruct",
            "--window",
            "hann",
            "--cutoff",
            "0.6",
            "--data.dir",
            data,
        ]
        command += ["--ray.address", options.ray] if options.ray else []
        a_row, memory = run([*map(str, command), "--out", str(folder / f"whole.{options.ending}")])
        print(
            f"bare FBP {1e3 * bare:.4g} ms a row, volume {1e3 * a_row:.4g} ms a row: {a_row / bare - 1:+.1%} (target "
            f"{MOST_OVER:+.0%})\nmemory {memory / 1e9:.3g} GB at the highest (target {MOST_BYTES / 1e9:g} GB)\nother "
            f"programs {others.cores() or 0:.2f} cores"
        )
        if options.kill:
            killed = folder / f"killed.{options.ending}"
            slabs = kill_in_the_middle([*map(str, command), "--out", str(killed)], killed)
            subprocess.run([*map(str, command), "--out", str(killed)], check=True)
            same = digest(killed) == digest(folder / f"whole.{options.ending}")
            print(f"killed after {slabs} slabs; the same command again: {'the same bytes' if same else 'OTHER BYTES'}")


def write_scan(folder: Path, geometry: ParallelBeam, rows: int) -> Path:
    """A data folder of a disc's scan, a sample a row."""
    folder.mkdir()
    integrals, random = disc(geometry), np.random.default_rng(0)
    noise = (0.01 * integrals.max() * random.standard_normal(integrals.shape)).astype(np.float32)
    with h5py.File(folder / "observation_test_000.hdf5", "w") as file:
        data = file.create_dataset("data", (rows, *integrals.shape), np.float32, chunks=(1, *integrals.shape))
        for row in range(rows):
            data[row] = integrals * np.float32(0.5 + row / rows) + np.roll(noise, 17 * row)
    about = {"geometry": geometry.model_dump(mode="json"), "rows": {"test": list(range(rows))}}
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder


def bare_fbp(data: Path, geometry: ParallelBeam) -> float:
    """Seconds a row of `fbp` on as many rows as a slab has, in memory."""
    with h5py.File(data / "observation_test_000.hdf5") as file:
        sinograms = torch.from_numpy(file["data"][: rows_a_slab(geometry, costly=False)])
    times = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        fbp(sinograms, geometry, "hann", 0.6)
        times.append((time.perf_counter() - began) / len(sinograms))
    return statistics.median(times[1:])


def run(command: list[str]) -> tuple[float, float]:
    """The seconds a row that a program says it took, and the most bytes that it and all it started held."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        highest, ended = 0.0, threading.Event()

        def watch() -> None:
            nonlocal highest
            while not ended.wait(0.2):
                highest = max(highest, float(_held(process.pid)))

        watching = threading.Thread(target=watch)
        watching.start()
        said = process.communicate()[0]
        ended.set()
        watching.join()
    print(said, end="")
    took = re.search(r"([0-9.e+]+) ms a row", said)
    if took is None:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return float(took[1]) / 1e3, highest


def _held(pid: int) -> int:
    """The memory of a process and its children that is theirs alone, and their share of what they share (PSS)."""
    held = 0
    try:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            held += process.memory_full_info().pss
    except psutil.Error:  # one has ended meanwhile
        return 0
    return held


def kill_in_the_middle(command: list[str], volume: Path) -> int:
    """Kills a program when a slab of its volume is there; how many there were then."""
    with subprocess.Popen(command) as process:
        partial = Partial(volume)
        while process.poll() is None:
            if partial.folder.exists() and (partial.folder / "done").exists() and partial.done():
                process.kill()
                return len(partial.done())
            time.sleep(0.01)
    raise SystemExit("it ended before it could be killed; take more rows")


def digest(volume: Path) -> str:
    """Of the bytes of a file, or of all files of a folder and their names."""
    found = hashlib.sha256()
    for file in sorted(volume.rglob("*")) if volume.is_dir() else [volume]:
        if file.is_file():
            found.update(str(file.relative_to(volume)).encode())
            with file.open("rb") as content:
                found.update(hashlib.file_digest(content, "sha256").digest())
    return found.hexdigest()


if __name__ == "__main__":
    run_program(main)
