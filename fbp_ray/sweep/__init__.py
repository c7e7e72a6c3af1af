"""Sweeps: many short trainings that find the settings with the best images. The scripts in `sweeps/` are the programs.

config        the settings of a sweep, what trials are ranked by, and what each takes of the cluster
space         the search space, and the searches: Optuna, random, grid
folder        the sweep's folder: its record and its results
object_store  the data, read once and kept in Ray's object store
tuning        Ray Tune: the trials, the scheduler
report        tables, plots and the HTML page
program       options, folder, trials, results
"""

from __future__ import annotations

from fbp_ray.sweep.program import sweep, sweep_program
from fbp_ray.sweep.space import Choice, LogRange, Range, Space

__all__ = ["Choice", "LogRange", "Range", "Space", "sweep", "sweep_program"]
