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

from fbp_ray.sweep.program import sweep, sweep_program
from fbp_ray.sweep.space import Choice, LogRange, Range, Space

__all__ = ["Choice", "LogRange", "Range", "Space", "sweep", "sweep_program"]
