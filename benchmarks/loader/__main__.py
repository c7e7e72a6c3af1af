"""Measures how fast samples are read from files in the page cache, beside h5py alone, in turns in one run.

    python -m benchmarks.loader                    some minutes; prints the tables
    python -m benchmarks.loader --out figures      writes loader.json too
    python -m benchmarks.loader --quick            fewer repetitions, and no memory at the size of LoDoPaB-CT

It makes its own files, 2 GB in the temporary folder (TMPDIR), and takes 1.5 GB of shared memory meanwhile.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import h5py
from pydantic import BaseModel, ConfigDict, Field

from benchmarks.loader import files
from benchmarks.loader.memory import peak
from benchmarks.loader.readers import BATCH, measure, rate
from benchmarks.loader.report import epoch_table, memory_table, need_table, needed, of_bare, speed_table, target_table
from benchmarks.loader.training import STEPS, epochs
from benchmarks.projector.machine import OtherPrograms, machine, versions
from fbp_ray.cli import parse, run_program
from fbp_ray.geometry import ParallelBeam

ROUNDS, QUICK_ROUNDS = 7, 2
FEW = 500


class Options(BaseModel):
    """How fast samples are read, beside h5py alone and beside what a GPU takes."""

    model_config = ConfigDict(extra="forbid")

    quick: bool = Field(default=False, description=f"{QUICK_ROUNDS} repetitions rather than {ROUNDS}")
    out: Path | None = Field(default=None, description="a folder for loader.json")


def main(argv: Sequence[str]) -> None:
    """Measures, prints, and writes where told to."""
    options = parse(Options, argv, "python -m benchmarks.loader")
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    packages = versions() | {"h5py": version("h5py"), "HDF5": h5py.version.hdf5_version}
    for title, facts in (("machine", machine()), ("versions", packages)):
        print(f"{title}: " + ", ".join(f"{name} {value}" for name, value in facts.items()))

    with tempfile.TemporaryDirectory(prefix="fbp-ray-") as temporary:
        root = Path(temporary)
        files.write(root, ParallelBeam.lodopab())
        others = OtherPrograms()
        found = measure(root, rounds, lambda number: progress("speed", number, rounds))
        disturbed = others.cores()
        trained = epochs(root, min(rounds, 3))
        memory: dict[str, dict[int, tuple[int, int]]] = {}
        for layout in () if options.quick else files.LAYOUTS:
            folder = files.as_many_as_lodopab(root, layout)
            for samples in (FEW, files.TRAIN):
                measured = peak(folder, samples)
                if measured is not None:
                    memory.setdefault(layout, {})[samples] = measured
            progress("memory", files.LAYOUTS.index(layout) + 1, len(files.LAYOUTS))

    print(f"\nReading from the page cache, batches of {BATCH} a process; medians of {rounds} rounds.")
    if disturbed is not None:
        print(f"Meanwhile other programs kept {disturbed:.1f} cores busy.")
    print(f"\n{speed_table(found)}")
    print("\nWhat it takes to read as much as one GPU computes. More than 2 processes are an extrapolation: they are")
    print("taken to be as fast as each of the two was, a core each. A process reads with one thread: where one is too")
    print(
        f"slow, a GPU waits after its first epoch too unless the samples are kept (data.cache).\n\n{need_table(found)}"
    )
    print(f"\n{STEPS} steps of {BATCH} samples on this processor, forwards and backwards\n\n{epoch_table(trained)}")
    if memory:
        print(f"\nResident memory of a process that reads an epoch\n\n{memory_table(memory)}")
    print(f"\nTargets\n\n{target_table(found, trained)}")
    if options.out is None:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    result = {
        "machine": machine(),
        "versions": packages,
        "rounds": rounds,
        "cores_busy_with_other_programs": disturbed,
        "speed": [
            case._asdict()
            | {"median_samples_a_second": rate(found, case), "samples_a_second": found[case]}
            | {"of_h5py_alone": of_bare(found, case), "processes_for_a_gpu": needed(found, case)}
            for case in found
        ],
        "epochs": [epoch._asdict() for epoch in trained],
        "resident_bytes": {
            layout: {samples: dict(zip(("before", "most"), sizes, strict=True)) for samples, sizes in of.items()}
            for layout, of in memory.items()
        },
    }
    (options.out / "loader.json").write_text(json.dumps(result, indent=1))
    print(f"\nwritten to {options.out}: loader.json")


def progress(what: str, done: int, rounds: int) -> None:
    """On stderr, so that what is printed stays the tables."""
    print(f"{what}: round {done} of {rounds}", file=sys.stderr)


if __name__ == "__main__":
    run_program(main)
