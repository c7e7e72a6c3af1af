"""Sweeps: many short trainings that find the settings with the best images. The scripts in `sweeps/` are the programs.

program   options, folder, trials, results
config    SweepConfig, and the tree of all settings
space     the search space: Range, LogRange, Choice
merit     what trials are ranked by
folder    the sweep's folder, from which it goes on
search    Optuna, by chance, or a grid
share     what each trial takes of the cluster
held      the data, once a node
trial     a training in a process of Tune
tuning    Tune
results   results.csv, best/, best_config.yaml; table, plots, page: what people see of them
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fbp_ray.sweep.space import Choice, LogRange, Range, Space

if TYPE_CHECKING:
    from fbp_ray.sweep.program import sweep, sweep_program

__all__ = ["Choice", "LogRange", "Range", "Space", "sweep", "sweep_program"]


def __getattr__(name: str) -> Any:
    """The program, when it is asked for: who needs the settings alone does not need the training too."""
    if name not in ("sweep", "sweep_program"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fbp_ray.sweep import program

    return getattr(program, name)
