"""Sweeps: many short trainings that find the settings with the best images. The scripts in `sweeps/` are the programs.

config        the settings of a sweep, and the figure that trials are ranked by
space         the search space, and the searches: Optuna, random, grid
folder        the sweep's folder: its record and its results
resources     what each trial takes of the cluster
object_store  the data, read once and kept in Ray's object store
tuning        Ray Tune: the trials, the scheduler
report        tables, plots and the HTML page
program       options, folder, trials, results
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fbp_ray.sweep.space import Choice, LogRange, Range, Space

if TYPE_CHECKING:
    from fbp_ray.sweep.program import sweep, sweep_program

__all__ = ["Choice", "LogRange", "Range", "Space", "sweep", "sweep_program"]


def __getattr__(name: str) -> Any:
    """Loads the program when it is asked for: the settings alone do not need the training."""
    if name not in ("sweep", "sweep_program"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fbp_ray.sweep import program

    return getattr(program, name)
