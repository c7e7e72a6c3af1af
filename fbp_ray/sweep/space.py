"""The search space of a sweep, and the searches that propose its trials.

A space maps the keys of settings, as on the command line, to Optuna's distributions of their values:

    {"optim.lr": LogRange(1e-3, 1e-1), "loss.edge": Range(0, 2), "window.init": Choice("ones", "hann")}
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import ValidationError

from fbp_ray.errors import ConfigError
from fbp_ray.settings import explain
from fbp_ray.sweep.config import SweepTree, parts_of, training_config

Space: TypeAlias = Mapping[str, FloatDistribution | CategoricalDistribution]
Parameters: TypeAlias = dict[str, Any]
"""The values of one trial, by key."""

FIXED = ("recipe", "target", "data", "run", "scaling", "ray", "track", "train.epochs", "sweep", "config")
"""What all trials share: trials on other data or of another length do not compare."""

DRAWS = 1000  # before an error says that no settings go together
RANDOM_TRIALS = 6  # before Optuna's model of the finished trials is worth anything
MAX_GRID = 10_000  # combinations


def Range(low: float, high: float, log: bool = False) -> FloatDistribution:
    """All numbers from `low` to `high`, evenly; raises ConfigError where the range is empty or not finite."""
    name = "LogRange" if log else "Range"
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(
            f"{name}({low}, {high}) is empty: the first number must be below the second; for a single value leave the "
            "key out of the space and give it as an option"
        )
    if log and low <= 0:
        raise ConfigError(f"LogRange({low}, {high}) has no logarithm: it must begin above 0; or use Range")
    return FloatDistribution(low, high, log=log)


def LogRange(low: float, high: float) -> FloatDistribution:
    """The same, evenly in the logarithm: as many between 0.01 and 0.1 as between 0.1 and 1."""
    return Range(low, high, log=True)


def Choice(*options: str | int | float) -> CategoricalDistribution:
    """One of these values; raises ConfigError where there are fewer than two."""
    if len(set(options)) < 2:
        raise ConfigError(f"Choice{options!r} leaves no choice; give two values or more, or leave the key out")
    return CategoricalDistribution(list(dict.fromkeys(options)))


def describe(values: FloatDistribution | CategoricalDistribution) -> str:
    """The values as a space is written, such as LogRange(0.001, 0.1)."""
    if isinstance(values, CategoricalDistribution):
        return f"Choice({', '.join(map(repr, values.choices))})"
    return f"{'LogRange' if values.log else 'Range'}({values.low:g}, {values.high:g})"


def check_space(space: Space, tree: SweepTree) -> None:
    """Raises ConfigError where a key is no setting, or may become a value that the setting cannot have."""
    if not space:
        raise ConfigError("the search space is empty; give it a setting, such as {'optim.lr': LogRange(1e-3, 1e-1)}")
    for key, values in space.items():
        if any(key == fixed or key.startswith(f"{fixed}.") for fixed in FIXED):
            raise ConfigError(f"the search space has {key}, which all trials share; give it as an option instead")
        for value in _points(values, 2):
            try:
                training_config(tree, {key: value})
            except ValidationError as error:
                parts = parts_of(key)
                for item in error.errors():  # other errors are of settings that do not go together
                    if item["loc"][: len(parts)] == parts or item["type"] == "extra_forbidden":
                        raise ConfigError(
                            f"the search space cannot have {key!r}: {describe(values)}\n       {explain(error)}"
                        ) from None
            except (AttributeError, TypeError):  # it is below a setting that has no parts
                raise ConfigError(f"the search space has {key!r}, which is no setting; --help lists them") from None
    _draw(space, tree, RandomSampler(seed=0))


def is_valid(parameters: Parameters, tree: SweepTree) -> bool:
    """Whether the values go together: loss weights that are all 0 do not, for example."""
    try:
        training_config(tree, parameters)
    except ValidationError:
        return False
    return True


def recipe_parameters(space: Space, tree: SweepTree) -> Parameters | None:
    """The values that the recipe and the options give; None where they lie outside the space."""
    settings = tree.model_dump(mode="json")
    found: Parameters = {}
    for key in space:
        value: Any = settings
        for part in parts_of(key):
            value = value.get(part)
        found[key] = value
    return found if _is_inside(found, space) else None


def values_each(space: Space, most: int) -> int:
    """Values of each range for a grid of `most` combinations at most; nothing is built for it.

    Raises:
        ConfigError: there are more with two values a range already, or more than a grid may have.
    """
    ranges = sum(isinstance(values, FloatDistribution) for values in space.values())
    choices = math.prod(len(values.choices) for values in space.values() if isinstance(values, CategoricalDistribution))
    each = 2
    while ranges and choices * each**ranges <= MAX_GRID and choices * (each + 1) ** ranges <= most:
        each += 1
    count = choices * each**ranges
    if count > most:
        raise ConfigError(
            f"the grid has {count} combinations with two values a range, but --sweep.trials is {most}; allow more "
            "trials, make the space smaller, or use --sweep.search random"
        )
    if count > MAX_GRID:
        raise ConfigError(
            f"the grid would have more than {MAX_GRID} combinations; give fewer --sweep.trials, make the space "
            "smaller, or use --sweep.search random"
        )
    return each


def grid(space: Space, tree: SweepTree, most: int) -> list[Parameters]:
    """All combinations of the choices, and of as many values of each range as make `most` combinations at most.

    Raises:
        ConfigError: as `values_each`.
    """
    each = values_each(space, most)
    rows = itertools.product(*(_points(values, each) for values in space.values()))
    return [parameters for row in rows if is_valid(parameters := dict(zip(space, row, strict=True)), tree)]


def _points(values: FloatDistribution | CategoricalDistribution, count: int) -> list[Any]:
    """So many values of a range from end to end, or all values of a choice."""
    if isinstance(values, CategoricalDistribution):
        return list(values.choices)
    spaced = np.geomspace if values.log else np.linspace
    return [float(value) for value in spaced(values.low, values.high, count)]


def _is_inside(parameters: Parameters, space: Space) -> bool:
    return all(
        parameters[key] in values.choices
        if isinstance(values, CategoricalDistribution)
        else isinstance(parameters[key], int | float) and values.low <= parameters[key] <= values.high
        for key, values in space.items()
    )


def _draw(space: Space, tree: SweepTree, sampler: BaseSampler, finished: Sequence[FrozenTrial] = ()) -> Parameters:
    """Draws values that go together; raises ConfigError where none are found, and says why."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(finished)
    for _ in range(DRAWS):
        trial = study.ask(dict(space))
        if is_valid(trial.params, tree):
            return trial.params
        study.tell(trial, state=TrialState.FAIL)
    try:
        training_config(tree, trial.params)
    except ValidationError as error:
        raise ConfigError(f"no settings of the search space go together: {explain(error)}") from None
    return trial.params


class Search:
    """Proposes the parameters of trials, which are numbered from 0: at random, or with Optuna's TPE.

    The first trial has the settings of the recipe and the options, if they are inside the space. A proposal depends on
    the seed, the number and the results so far, not on the session that asks: a sweep that was interrupted goes on as
    it would have.
    """

    def __init__(self, space: Space, tree: SweepTree) -> None:
        self.space = space
        self.tree = tree
        self.total = tree.sweep.trials
        self._finished: list[FrozenTrial] = []

    def propose(self, number: int) -> Parameters:
        """The parameters of a trial."""
        if number == 0 and (first := recipe_parameters(self.space, self.tree)):
            return first
        seed = int(np.random.SeedSequence([self.tree.train.seed, number]).generate_state(1)[0])
        if self.tree.sweep.search == "optuna" and number >= RANDOM_TRIALS:
            with suppress(ConfigError):  # where its model finds nothing that goes together, chance may
                return _draw(self.space, self.tree, TPESampler(seed=seed, n_startup_trials=1), self._finished)
        return _draw(self.space, self.tree, RandomSampler(seed=seed))

    def resume(self, begun: dict[int, Parameters]) -> None:
        """Takes the trials, by number, that an earlier session has begun."""

    def tell(self, parameters: Parameters, objective: float | None) -> None:
        """Takes the result of a trial; one that failed, None, counts as worse than all others."""
        if _is_inside(parameters, self.space):
            state = TrialState.PRUNED if objective is None else TrialState.COMPLETE
            self._finished.append(
                create_trial(params=parameters, distributions=dict(self.space), value=objective, state=state)
            )


class GridSearch(Search):
    """All combinations, the last key of the space changing fastest."""

    def __init__(self, space: Space, tree: SweepTree) -> None:
        super().__init__(space, tree)
        self.combinations = dict(enumerate(grid(space, tree, tree.sweep.trials)))
        self.total = len(self.combinations)

    def resume(self, begun: dict[int, Parameters]) -> None:
        """Leaves out what was begun: it may have been numbered in a grid of another size."""
        others = [row for row in self.combinations.values() if row not in begun.values()]
        self.total = len(begun) + len(others)
        free = (number for number in range(self.total) if number not in begun)
        self.combinations = {**begun, **dict(zip(free, others, strict=True))}

    def propose(self, number: int) -> Parameters:
        """The parameters of a trial."""
        return self.combinations[number]


def open_search(space: Space, tree: SweepTree) -> Search:
    """The search that `--sweep.search` names; raises ConfigError for a grid that is too large."""
    return GridSearch(space, tree) if tree.sweep.search == "grid" else Search(space, tree)
