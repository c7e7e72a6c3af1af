"""What to try next: by chance, all combinations, or learned from the trials so far (Optuna's TPE)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from fbp_ray.sweep.config import SweepTree
from fbp_ray.sweep.space import Choice, LogRange, Parameters, Range, Space, draw, fits, grid, start

BY_CHANCE = 6  # trials before Optuna's model of them is worth anything


class Search(ABC):
    """Proposes the parameters of trials, which are numbered from 0.

    A proposal depends on the seed, the number and what has been told, not on the session that asks: a sweep that was
    interrupted goes on as it would have.
    """

    total: int
    """Trials in all."""

    @abstractmethod
    def propose(self, number: int) -> Parameters:
        """The parameters of a trial."""

    def take_up(self, begun: dict[int, Parameters]) -> None:  # noqa: B027  # to most it makes no difference
        """Takes the trials that an earlier session has begun, by number."""

    def told(self, parameters: Parameters, merit: float | None) -> None:  # noqa: B027  # most learn nothing from it
        """Takes the result of a trial: its merit, or None of one that failed."""


class RandomSearch(Search):
    """By chance; the first trial has the settings as they were without the sweep, if the space has them."""

    def __init__(self, space: Space, tree: SweepTree) -> None:
        self.space = space
        self.tree = tree
        self.total = tree.sweep.trials

    def propose(self, number: int) -> Parameters:
        """The parameters of a trial."""
        first = start(self.space, self.tree) if number == 0 else None
        return first or draw(self.space, self.tree, np.random.default_rng([self.tree.train.seed, number]))


class GridSearch(Search):
    """All combinations, the last key of the space changing fastest."""

    def __init__(self, space: Space, tree: SweepTree) -> None:
        self.combinations = dict(enumerate(grid(space, tree, tree.sweep.trials)))
        self.total = len(self.combinations)

    def take_up(self, begun: dict[int, Parameters]) -> None:
        """Leaves out what was begun: it may have been numbered in a grid of another size."""
        others = [row for row in self.combinations.values() if row not in begun.values()]
        self.total = len(begun) + len(others)
        free = (number for number in range(self.total) if number not in begun)
        self.combinations = {**begun, **dict(zip(free, others, strict=True))}

    def propose(self, number: int) -> Parameters:
        """The parameters of a trial."""
        return self.combinations[number]


class OptunaSearch(RandomSearch):
    """The first trials by chance, the others where those before say that a good one may be."""

    def __init__(self, space: Space, tree: SweepTree) -> None:
        super().__init__(space, tree)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(direction="maximize")
        self.distributions = {key: _distribution(values) for key, values in space.items()}
        self._running: dict[str, optuna.trial.Trial] = {}

    def propose(self, number: int) -> Parameters:
        """The parameters of a trial."""
        if number < BY_CHANCE:
            parameters = super().propose(number)
            self.study.enqueue_trial(parameters)
            self._running[_name(parameters)] = self.study.ask(self.distributions)
            return parameters
        seed = int(np.random.SeedSequence([self.tree.train.seed, number]).generate_state(1)[0])
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=1)
        for _ in range(100):
            trial = self.study.ask(self.distributions)
            if fits(trial.params, self.tree):
                self._running[_name(trial.params)] = trial
                return trial.params
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return super().propose(number)

    def told(self, parameters: Parameters, merit: float | None) -> None:
        """Takes the result of a trial; one that failed counts as worse than all others."""
        state = optuna.trial.TrialState.COMPLETE if merit is not None else optuna.trial.TrialState.PRUNED
        trial = self._running.pop(_name(parameters), None)
        if trial is not None:
            self.study.tell(trial, merit, state=state)
        elif all(values.holds(parameters[key]) for key, values in self.space.items()):
            self.study.add_trial(
                optuna.trial.create_trial(params=parameters, distributions=self.distributions, value=merit, state=state)
            )


def _distribution(values: Range | Choice) -> BaseDistribution:
    if isinstance(values, Choice):
        return CategoricalDistribution(values.options)
    return FloatDistribution(values.low, values.high, log=isinstance(values, LogRange))


def _name(parameters: Parameters) -> str:
    return repr(sorted(parameters.items()))


_SEARCHES: dict[str, Callable[[Space, SweepTree], Search]] = {
    "random": RandomSearch,
    "grid": GridSearch,
    "optuna": OptunaSearch,
}


def open_search(space: Space, tree: SweepTree) -> Search:
    """The search that `--sweep.search` names; raises ConfigError for a grid that is too large."""
    return _SEARCHES[tree.sweep.search](space, tree)
