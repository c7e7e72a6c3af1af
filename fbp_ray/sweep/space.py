"""The search space of a sweep: which settings are searched, and over what.

A space maps the keys of settings, as on the command line, to what they may be:

    {"optim.lr": LogRange(1e-3, 1e-1), "loss.edge": Range(0, 2), "window.init": Choice("ones", "hann")}
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from pydantic import ValidationError

from fbp_ray.errors import ConfigError
from fbp_ray.settings import explain
from fbp_ray.sweep.config import SweepTree, training_config

Parameters: TypeAlias = dict[str, Any]
"""The values of one trial, by key."""

FIXED = ("recipe", "data", "run", "scaling", "ray", "track", "train.epochs", "sweep", "config")
"""What all trials share: trials on other data or of another length do not compare."""

DRAWS = 1000  # before it is said that the settings never go together


class Range:
    """All numbers from `low` to `high`, evenly.

    Raises:
        ConfigError: the range is empty or not finite.
    """

    def __init__(self, low: float, high: float) -> None:
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ConfigError(
                f"{type(self).__name__}({low}, {high}) is empty: the first number must be below the second; for a "
                "single value leave the key out of the space and give it as an option"
            )
        self.low, self.high = float(low), float(high)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.low:g}, {self.high:g})"

    def draw(self, random: np.random.Generator) -> float:
        """A value by chance."""
        return float(random.uniform(self.low, self.high))

    def points(self, count: int) -> list[float]:
        """So many values from end to end."""
        return [float(value) for value in np.linspace(self.low, self.high, count)]

    def holds(self, value: Any) -> bool:
        """Whether it is one of the values."""
        return isinstance(value, int | float) and self.low <= value <= self.high

    @property
    def ends(self) -> list[Any]:
        """The values that are to be checked."""
        return [self.low, self.high]


class LogRange(Range):
    """The same, evenly in the logarithm: as many between 0.01 and 0.1 as between 0.1 and 1."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__(low, high)
        if low <= 0:
            raise ConfigError(f"LogRange({low}, {high}) has no logarithm: it must begin above 0; or use Range")

    def draw(self, random: np.random.Generator) -> float:
        """A value by chance."""
        return float(np.exp(random.uniform(np.log(self.low), np.log(self.high))).clip(self.low, self.high))

    def points(self, count: int) -> list[float]:
        """So many values from end to end."""
        return [float(value) for value in np.geomspace(self.low, self.high, count)]


class Choice:
    """One of these values.

    Raises:
        ConfigError: there are fewer than two.
    """

    def __init__(self, *options: str | int | float) -> None:
        if len(set(options)) < 2:
            raise ConfigError(f"Choice{options!r} leaves no choice; give two values or more, or leave the key out")
        self.options = list(dict.fromkeys(options))

    def __repr__(self) -> str:
        return f"Choice({', '.join(map(repr, self.options))})"

    def draw(self, random: np.random.Generator) -> Any:
        """A value by chance."""
        return self.options[int(random.integers(len(self.options)))]

    def points(self, count: int) -> list[Any]:
        """All of them."""
        return self.options

    def holds(self, value: Any) -> bool:
        """Whether it is one of the values."""
        return value in self.options

    @property
    def ends(self) -> list[Any]:
        """The values that are to be checked."""
        return self.options


Space: TypeAlias = Mapping[str, Range | Choice]


def check_space(space: Space, tree: SweepTree) -> None:
    """Raises ConfigError where a key is no setting, or may become a value that the setting cannot have."""
    if not space:
        raise ConfigError("the search space is empty; give it a setting, such as {'optim.lr': LogRange(1e-3, 1e-1)}")
    for key, values in space.items():
        if any(key == fixed or key.startswith(f"{fixed}.") for fixed in FIXED):
            raise ConfigError(f"the search space has {key}, which all trials share; give it as an option instead")
        for value in values.ends:
            try:
                training_config(tree, {key: value})
            except ValidationError as error:
                parts = tuple(key.split("."))
                for item in error.errors():  # others are of settings that do not go together
                    if item["loc"][: len(parts)] == parts or item["type"] == "extra_forbidden":
                        raise ConfigError(
                            f"the search space cannot have {key!r}: {values}\n       {explain(error)}"
                        ) from None
            except (AttributeError, TypeError):  # it is below a setting that has no parts
                raise ConfigError(f"the search space has {key!r}, which is no setting; --help lists them") from None
    draw(space, tree, np.random.default_rng(0))


def fits(parameters: Parameters, tree: SweepTree) -> bool:
    """Whether the values go together: loss weights that are all 0 do not, for example."""
    try:
        training_config(tree, parameters)
    except ValidationError:
        return False
    return True


def draw(space: Space, tree: SweepTree, random: np.random.Generator) -> Parameters:
    """Values by chance that go together.

    Raises:
        ConfigError: none were found; it says why.
    """
    for _ in range(DRAWS):
        parameters = {key: values.draw(random) for key, values in space.items()}
        if fits(parameters, tree):
            return parameters
    try:
        training_config(tree, parameters)
    except ValidationError as error:
        raise ConfigError(f"no settings of the search space go together: {explain(error)}") from None
    return parameters


def start(space: Space, tree: SweepTree) -> Parameters | None:
    """The settings as the recipe and the options have them; None where they lie outside of the space."""
    settings = tree.model_dump(mode="json")
    found: Parameters = {}
    for key, values in space.items():
        value: Any = settings
        for part in key.split("."):
            value = value[part]
        if not values.holds(value):
            return None
        found[key] = value
    return found


def grid(space: Space, tree: SweepTree, most: int) -> list[Parameters]:
    """All combinations of the choices, and of as many values of each range as make `most` combinations at most.

    Raises:
        ConfigError: there are more with two values a range already.
    """
    ranges = sum(isinstance(values, Range) for values in space.values())
    choices = math.prod(len(values.points(0)) for values in space.values() if isinstance(values, Choice))
    each = max((n for n in range(2, most + 1) if choices * n**ranges <= most), default=2) if ranges else 2
    if choices * each**ranges > most:
        raise ConfigError(
            f"the grid has {choices * each**ranges} combinations with two values a range, but --sweep.trials is "
            f"{most}; allow more trials, make the space smaller, or use --sweep.search random"
        )
    rows = itertools.product(*(values.points(each) for values in space.values()))
    return [parameters for row in rows if fits(parameters := dict(zip(space, row, strict=True)), tree)]
