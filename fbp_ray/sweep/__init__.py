"""Sweeps: many short trainings that find the settings with the best images. The scripts in `sweeps/` are the programs.

config        the settings of a sweep, what trials are ranked by, and what each takes of the cluster
space         the search space, and the searches: Optuna, random, grid
folder        the sweep's folder: its record and its results
object_store  the data, read once and kept in Ray's object store
tuning        Ray Tune: the trials, the scheduler
report        tables, plots and the HTML page
program       folder, trials, results

The programs begin here, so that a wrong option is known before torch is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fbp_ray.cli import parse_with_recipe, run_program
from fbp_ray.sweep.config import SweepTree
from fbp_ray.sweep.space import Choice, LogRange, Range, Space
from fbp_ray.train.cluster import keep_to_loopback

if TYPE_CHECKING:
    from fbp_ray.sweep.folder import Results

__all__ = ["Choice", "LogRange", "Range", "Space", "sweep", "sweep_program"]


def sweep_program(space: Space, program: str) -> None:
    """Runs a sweep over `space` with the options of the command line, and exits with a code.

    Args:
        space: the settings that are searched, and their values.
        program: the file of the script, such as "sweeps/loss_weights.py".
    """

    def main(argv: Sequence[str]) -> None:
        keep_to_loopback(parse_with_recipe(SweepTree, argv, f"python {program}").ray.address)
        sweep(space, argv, program)

    run_program(main)


def sweep(space: Space, argv: Sequence[str], program: str) -> Results:
    """Runs the sweep that options, as `--name value`, describe; otherwise as `run_sweep` in `program`."""
    tree = parse_with_recipe(SweepTree, argv, f"python {program}")
    from fbp_ray.sweep.program import run_sweep  # only now: torch takes seconds to import

    return run_sweep(space, tree, program)
