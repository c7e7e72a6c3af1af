"""`python -m fbp_ray.solve --data.dir DIR`: the window of least mean squared error, in one pass over the training part.

A run folder like that of a training, whose only epoch is 0: it takes what `python -m fbp_ray.train` takes, with
`--window.kind spline`, `--window.init solve` and `--train.epochs 0` unless given otherwise. It solves for the gains of
`--window.kind adaptive` too, and with `--target self` without ground truth.
"""

from __future__ import annotations

from collections.abc import Sequence

from fbp_ray.cli import run_program
from fbp_ray.train import main

USUAL = {"window": {"kind": "spline", "init": "solve"}, "train": {"epochs": 0}}


def solve(argv: Sequence[str]) -> None:
    """Solves for the window that the options describe."""
    main(argv, "python -m fbp_ray.solve", USUAL)


if __name__ == "__main__":
    run_program(solve)
