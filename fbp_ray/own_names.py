"""The names of somebody's own code in settings: PACKAGE.MODULE:NAME, or an entry point that stands for one.

A package offers its code under short names in its `pyproject.toml`:

    [project.entry-points."fbp_ray.windows"]    # or networks, losses, metrics
    median = "my_package.windows:Median"

Settings keep what a short name stands for, so that a run folder and a manifest say which code they need. Nothing is
imported here.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib.metadata import entry_points

from pydantic import AfterValidator


def is_own(name: str) -> bool:
    """Whether a name is PACKAGE.MODULE:NAME."""
    return re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", name) is not None


def own_or(group: str, known: Collection[str] = ()) -> AfterValidator:
    """Takes a known name, one of somebody's own code, or an entry point's, which becomes what it stands for.

    Args:
        group: of entry points, after `fbp_ray.`.
        known: the names that the package has itself.
    """

    def check(name: str) -> str:
        if name in known or is_own(name):
            return name
        points = entry_points(group=f"fbp_ray.{group}")
        if name in points.names:
            return points[name].value.replace(" ", "")
        choices = [f"'{choice}'" for choice in (*known, *sorted(points.names))]
        raise ValueError(f"must be {', '.join(choices)}{' or ' * bool(choices)}one of your own, PACKAGE.MODULE:NAME")

    return AfterValidator(check)


def own_title(name: str) -> str:
    """What a loss term or a metric of somebody's own is called in tables: NAME of PACKAGE.MODULE:NAME."""
    return name.partition(":")[2]


def refuse_same_title(names: Collection[str], others: Collection[str]) -> None:
    """Raises ValueError where two columns of a table would have one title."""
    taken = set(others)
    for name in names:
        if own_title(name) in taken:
            raise ValueError(f"{name} would be called {own_title(name)}, as another is; rename it")
        taken.add(own_title(name))


def refuse_options_without(names: Collection[str], options: Collection[str]) -> None:
    """Raises ValueError for options of code that the settings do not name."""
    for name in options:
        if name not in names:
            raise ValueError(
                f"options are given for {name}, which own does not name; it has {', '.join(names) or 'none'}"
            )
