"""Compares training under Ray with the same loop under torchrun, on the same processors, in turns.

    python -m benchmarks.training                  a quarter of an hour; prints the tables
    python -m benchmarks.training --out figures    writes training.json too
    python -m benchmarks.training --quick          one round
    python -m benchmarks.training --device cuda    the loop alone on one GPU, a minute; Ray need not be installed
    python -m benchmarks.training --device cuda --profile    what its steps are made of, too

It simulates its own data in the temporary folder (TMPDIR).
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from benchmarks.projector.machine import machine, versions
from fbp_ray.cli import parse, run_program
from fbp_ray.errors import ConfigError

ROUNDS, TRAIN, VALIDATION, TURNS = 2, 192, 16, 8


class Options(BaseModel):
    """How fast a training epoch is under Ray, beside the same loop under torchrun."""

    model_config = ConfigDict(extra="forbid")

    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where; cuda: the loop alone, without Ray")
    profile: bool = Field(default=False, description="--device cuda: also list the kernels of a step")
    quick: bool = Field(default=False, description=f"one round rather than {ROUNDS}")
    out: Path | None = Field(default=None, description="a folder for training.json or training-gpu.json")


def main(argv: Sequence[str]) -> None:
    """Measures, prints, and writes where told to."""
    options = parse(Options, argv, "python -m benchmarks.training")
    if options.device == "cuda":
        import torch

        from benchmarks.training import on_gpu  # here, not above, as the others: on a GPU Ray need not be installed

        if not torch.cuda.is_available():
            raise ConfigError("--device cuda needs a GPU that torch can use, and there is none here; leave it out")
        on_gpu.measure(options.out, options.profile, torch.device("cuda"))
        return
    if options.profile:
        raise ConfigError("--profile is of --device cuda; add that, or leave it out")
    from benchmarks.training.report import WORKERS, of_torchrun, table, target_table
    from benchmarks.training.runs import TIMED_EPOCHS, Pair, make_data, measure

    rounds = 1 if options.quick else ROUNDS
    for title, facts in (("machine", machine()), ("versions", versions())):
        print(f"{title}: " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    pairs: list[Pair] = []
    with tempfile.TemporaryDirectory(prefix="fbp-ray-") as temporary:
        root = Path(temporary)
        make_data(root / "data", TRAIN, VALIDATION)
        for number in range(1, rounds + 1):
            for workers in WORKERS:
                print(f"round {number} of {rounds}: {workers} of each", file=sys.stderr)
                name = f"{workers}-{number}"
                pairs.append(measure(workers, TRAIN, root / "data", root / "runs", name, TURNS))

    print(
        f"\nThe quickstart recipe, {TRAIN} training and {VALIDATION} validation samples; medians of {rounds} rounds of"
    )
    print(f"{TURNS} turns of {TIMED_EPOCHS} epochs by each.")
    print(f"\n{table(pairs)}\n\nTargets\n\n{target_table(pairs)}")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        result = {
            "machine": machine(),
            "versions": versions(),
            "rounds": [
                {"workers": pair.workers, "by": {by: one._asdict() for by, one in pair.by.items()}} for pair in pairs
            ],
            "of_torchrun": {workers: of_torchrun(pairs, workers) for workers in WORKERS},
        }
        (options.out / "training.json").write_text(json.dumps(result, indent=1))
        print(f"\nwritten to {options.out}: training.json")


if __name__ == "__main__":
    run_program(main)
