"""Compares training under Ray with the same loop under torchrun, on the same processors, in turns in one run.

    python -m benchmarks.training                  some minutes; prints the tables
    python -m benchmarks.training --out figures    writes training.json too
    python -m benchmarks.training --quick          one round

It simulates its own data in the temporary folder (TMPDIR).
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from benchmarks.projector.machine import OtherPrograms, machine, versions
from benchmarks.training.report import Found, of_torchrun, table, target_table
from benchmarks.training.runs import CASES, make_data, measure
from fbp_ray.cli import parse, run_program

ROUNDS, TRAIN, VALIDATION, EPOCHS = 3, 192, 16, 6


class Options(BaseModel):
    """How fast a training epoch is under Ray, beside the same loop under torchrun."""

    model_config = ConfigDict(extra="forbid")

    quick: bool = Field(default=False, description=f"one round rather than {ROUNDS}")
    out: Path | None = Field(default=None, description="a folder for training.json")


def main(argv: Sequence[str]) -> None:
    """Measures, prints, and writes where told to."""
    options = parse(Options, argv, "python -m benchmarks.training")
    rounds = 1 if options.quick else ROUNDS
    for title, facts in (("machine", machine()), ("versions", versions())):
        print(f"{title}: " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    found: Found = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory(prefix="fbp-ray-") as temporary:
        root = Path(temporary)
        make_data(root / "data", TRAIN, VALIDATION)
        others = OtherPrograms()
        for number in range(1, rounds + 1):
            # The order turns round every time, so that neither is always the one that runs on a warm machine.
            for case in CASES if number % 2 else reversed(CASES):
                print(f"round {number} of {rounds}: {case.workers} by {case.by}", file=sys.stderr)
                name = f"{case.by}-{case.workers}-{number}".lower()
                found[case].append(measure(case, root / "data", root / "runs", name, EPOCHS))
        disturbed = others.cores()

    print(
        f"\nThe quickstart recipe, {TRAIN} training and {VALIDATION} validation samples, {EPOCHS} epochs of which the"
    )
    print(f"first is left out; medians of {rounds} rounds.")
    if disturbed is not None:
        print(f"Meanwhile other programs kept {disturbed:.1f} cores busy.")
    print(f"\n{table(found)}\n\nTargets\n\n{target_table(found)}")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        result = {
            "machine": machine(),
            "versions": versions(),
            "cores_busy_with_other_programs": disturbed,
            "runs": [case._asdict() | one._asdict() for case in CASES for one in found[case]],
            "of_torchrun": {workers: of_torchrun(found, workers) for workers in (1, 2)},
        }
        (options.out / "training.json").write_text(json.dumps(result, indent=1))
        print(f"\nwritten to {options.out}: training.json")


if __name__ == "__main__":
    run_program(main)
