"""How fast a large volume is made, and in how much memory, beside the bare FBP; then a kill -9 in the middle.

    python -m benchmarks.volume --folder /scratch                   160 rows of 1801 angles x 2048 cells: 5 GB of disk
    python -m benchmarks.volume --folder /scratch --rows 2048       the whole: 64 GB, and 98 GB with --kill
    python -m benchmarks.volume --folder /scratch --ray local       on Ray, with an actor on this machine

The scan, a disc with noise whose density grows from row to row, is made in the folder, and taken away at the end.

A volume of one slab and one of all rows are made in turn, with bare FBPs of a slab that is in memory between them. The
difference of the two is what a row takes (its slope); what both have in common is what a volume takes once: the start,
the first slab's reading and the last one's writing. Both are said, and what they make of the 2048 rows of a detector.
"""

from __future__ import annotations

import hashlib
import json
import math
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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

FBPS = 3  # bare ones in a turn
DETECTOR = 2048  # rows
MOST_OVER, MOST_BYTES = 0.15, 6e9
"""The target: so much over the bare FBP a row, and so much memory."""


class Options(BaseModel):
    """Time and memory of a volume, beside the bare FBP."""

    model_config = ConfigDict(extra="forbid")

    folder: Path = Field(default=Path(tempfile.gettempdir()), description="where the scan and the volume go meanwhile")
    rows: int = Field(default=160, ge=2, description="rows of the scan, more than a slab's 32")
    rounds: int = Field(default=3, ge=1, description="turns, of which the medians count")
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
        slab = rows_a_slab(geometry, costly=False)
        if slab >= options.rows:
            raise SystemExit(f"{options.rows} rows are one slab of {slab}; take more: --rows {4 * slab}")
        command = [sys.executable, "-m", "fbp_ray.reconstruct", "--window", "hann", "--cutoff", "0.6"]
        command += ["--data.dir", str(data), *(["--ray.address", options.ray] if options.ray else [])]
        bare: list[Took] = []
        short: list[Took] = []
        whole: list[Took] = []
        for turn in range(options.rounds):
            bare += bare_fbps(data, geometry, slab)
            for rows, runs in ((slab, short), (options.rows, whole)):
                out = folder / f"of-{rows}.{options.ending}"
                remove(out)
                runs.append(run([*command, "--rows", f"0:{rows}", "--out", str(out)]))
            print(f"turn {turn + 1}: bare {bare[-1]}, {slab} rows {short[-1]}, {options.rows} rows {whole[-1]}")
        bare += bare_fbps(data, geometry, slab)
        print(report(bare, short, whole, slab, options.rows))
        print(f"other programs {others.cores() or 0:.2f} cores")
        if options.kill:
            killed = folder / f"killed.{options.ending}"
            again = [*command, "--rows", f"0:{options.rows}", "--out", str(killed)]
            slabs = kill_in_the_middle(again, killed)
            subprocess.run(again, check=True)
            same = digest(killed) == digest(folder / f"of-{options.rows}.{options.ending}")
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


class Took(NamedTuple):
    """Of a program, or of a row."""

    wall: float
    """Seconds."""

    processor: float
    """Seconds of all processors together, in the programs and for them in the system."""

    memory: float = 0.0
    """Bytes at the highest, of the program and all that it started."""

    def __str__(self) -> str:
        return f"{self.wall:.4g} s ({self.processor:.4g} s of processors)"


def bare_fbps(data: Path, geometry: ParallelBeam, rows: int) -> list[Took]:
    """A row's time in some calls of `fbp` on as many rows as a slab has, in memory."""
    with h5py.File(data / "observation_test_000.hdf5") as file:
        sinograms = torch.from_numpy(file["data"][:rows])
    found = []
    for _ in range(FBPS + 1):
        before = time.perf_counter(), time.process_time()
        fbp(sinograms, geometry, "hann", 0.6)
        found.append(Took((time.perf_counter() - before[0]) / rows, (time.process_time() - before[1]) / rows))
    return found[1:]


def report(bare: Sequence[Took], short: Sequence[Took], whole: Sequence[Took], slab: int, rows: int) -> str:
    """What a row takes beside the bare FBP, and the memory.

    Args:
        bare: a row's, of single calls.
        short, whole: those of volumes of `slab` and of `rows` rows, in turns.
    """
    lines = []
    for name, of in (("wall clock", 0), ("processors", 1)):
        alone = statistics.median(took[of] for took in bare)
        once = statistics.median(took[of] for took in short)
        slope = statistics.median((long[of] - one[of]) / (rows - slab) for one, long in zip(short, whole, strict=True))
        found = {
            "a row more": slope,
            f"a row of {rows}, all included": statistics.median(took[of] for took in whole) / rows,
            f"a row of {DETECTOR}, by both": (once + (DETECTOR - slab) * slope) / DETECTOR,
        }
        said = ", ".join(f"{what} {1e3 * took:.4g} ms ({took / alone - 1:+.1%})" for what, took in found.items())
        lines.append(f"{name}: bare FBP {1e3 * alone:.4g} ms a row; volume: {said}")
    memory = max(took.memory for took in (*short, *whole))
    return "\n".join(
        [
            *lines,
            f"target: {MOST_OVER:+.0%} by the wall clock",
            f"memory {memory / 1e9:.3g} GB at the highest (target {MOST_BYTES / 1e9:g} GB)",
        ]
    )


def run(command: list[str]) -> Took:
    """What a program takes from its start to its end, with all that it starts."""
    before, began = _children(), time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        highest = 0
        while process.poll() is None:
            highest = max(highest, held(process.pid))
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Took(time.perf_counter() - began, _children() - before, highest)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def held(pid: int) -> int:
    """The memory of a process and all that it started, what they share counted once for each (RSS).

    Their shares of it (PSS) would be exact, but to count them takes the system a good part of a processor.
    """
    held = 0
    try:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            held += process.memory_info().rss
    except psutil.Error:  # one has ended meanwhile
        return 0
    return held


def remove(volume: Path) -> None:
    """Removes a volume, whether it is a file or a folder."""
    shutil.rmtree(volume) if volume.is_dir() else volume.unlink(missing_ok=True)


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
