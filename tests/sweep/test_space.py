"""The search space, the searches, the ranking and the resources of sweeps: all without Ray."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fbp_ray.baseline import Baseline
from fbp_ray.config import TrainConfig
from fbp_ray.errors import ConfigError
from fbp_ray.sweep import Choice, LogRange, Range
from fbp_ray.sweep.config import SweepTree, objective, room_for_trials, training_config
from fbp_ray.sweep.folder import pareto_front
from fbp_ray.sweep.space import Space, check_space, describe, grid, is_valid, open_search, recipe_parameters

SPACE: Space = {"loss.l1": LogRange(0.01, 100), "optim.lr": LogRange(1e-3, 1e-1)}
BASELINE = Baseline(hann_psnr=30.0, hann_ssim=0.8, hann_psnr_cutoff=0.5, hann_ssim_cutoff=0.4)
SEED = TrainConfig().train.model_copy(update={"seed": 1})
NOTHING: Any = TrainConfig().loss.model_copy(update={"l1": 0.0, "ms_ssim": 0.0, "edge": 0.0})


def tree(**sweep_settings: Any) -> SweepTree:
    return SweepTree.model_validate(
        {"loss": {"l1": 0.25, "ms_ssim": 0, "edge": 1}, "optim": {"lr": 0.01}, "sweep": sweep_settings}
    )


class TestSpace:
    @pytest.mark.parametrize(
        ("space", "said"),
        [
            ({}, "is empty"),
            ({"loss.l2": Range(0, 1)}, r"loss\.l2.*no such setting"),
            ({"los.l1": Range(0, 1)}, r"los.*no such setting"),
            ({"optim.lr.x": Range(0, 1)}, r"optim\.lr"),
            ({"loss.l1": Range(-1, 1)}, r"loss\.l1.*greater than or equal to 0"),
            ({"optim.lr": Range(0, 1)}, r"optim\.lr.*greater than 0"),
            ({"window.kind": Choice("frequency", "frequencies")}, r"window\.kind"),
            ({"train.epochs": Choice(1, 2)}, "all trials share"),
            ({"data.train_samples": Choice(1, 2)}, "all trials share"),
            ({"optim.plateau_patience": Range(0.1, 0.2)}, r"plateau_patience.*must be a whole number"),
        ],
    )
    def test_a_space_that_does_not_hold_is_refused_and_the_key_named(self, space: Space, said: str) -> None:
        with pytest.raises(ConfigError, match=re.compile(said, re.DOTALL)):
            check_space(space, tree())

    @pytest.mark.parametrize("make", [Range, LogRange])
    def test_a_range_without_values_is_refused(self, make: Callable[[float, float], Any]) -> None:
        for low, high in ((1, 1), (2, 1), (float("nan"), 1), (0.1, float("inf"))):
            with pytest.raises(ConfigError, match="is empty"):
                make(low, high)
        with pytest.raises(ConfigError, match="begin above 0"):
            LogRange(0, 1)
        with pytest.raises(ConfigError, match="leaves no choice"):
            Choice("hann", "hann")

    def test_weights_that_are_all_0_are_never_tried(self) -> None:
        space = {"loss.l1": Choice(0, 1), "loss.edge": Choice(0, 1)}
        for kind in ("random", "optuna"):
            search = open_search(space, tree(search=kind, trials=20))
            for number in range(20):
                parameters = search.propose(number)
                search.tell(parameters, 1.0)
                assert parameters["loss.l1"] or parameters["loss.edge"]
        assert len(grid(space, tree(), 4)) == 3
        with pytest.raises(ConfigError, match=r"go together.*all loss weights are 0"):
            check_space({"optim.lr": LogRange(0.1, 1)}, tree().model_copy(update={"loss": NOTHING}))

    def test_a_grid_has_both_ends_and_at_most_so_many_points(self) -> None:
        rows = grid({"optim.lr": LogRange(0.01, 1), "window.init": Choice("ones", "hann")}, tree(), 7)
        assert [row["window.init"] for row in rows] == ["ones", "hann"] * 3
        np.testing.assert_allclose([row["optim.lr"] for row in rows[::2]], [0.01, 0.1, 1], rtol=1e-12)
        with pytest.raises(ConfigError, match=r"4 combinations.*--sweep.trials is 3"):
            grid(SPACE, tree(), 3)

    def test_a_grid_that_is_too_large_is_refused_before_it_is_built(self) -> None:
        with pytest.raises(ConfigError, match=r"more than 10000 combinations.*--sweep.trials"):
            grid({"optim.lr": LogRange(0.01, 1)}, tree(), 10**12)
        many: Space = {f"key{number}": Choice(*range(10)) for number in range(12)}
        with pytest.raises(ConfigError, match="more than 10000 combinations"):
            grid(many, tree(), 10**12)
        with pytest.raises(ConfigError, match="1000000000000 combinations"):
            grid(many, tree(), 16)

    def test_values_are_described_as_a_space_is_written(self) -> None:
        assert describe(LogRange(1e-3, 1e-1)) == "LogRange(0.001, 0.1)"
        assert describe(Range(0, 2)) == "Range(0, 2)"
        assert describe(Choice("ones", 0.5)) == "Choice('ones', 0.5)"

    def test_settings_that_exclude_each_other_are_left_out(self) -> None:
        space = {"window.init": Choice("ones", "hann"), "window.cutoff": Choice(0.5, 1.0)}
        rows = grid(space, tree(), 4)
        assert len(rows) == 3
        assert all(is_valid(row, tree()) for row in rows)

    def test_the_start_is_the_settings_as_they_are_if_the_space_has_them(self) -> None:
        assert recipe_parameters(SPACE, tree()) == {"loss.l1": 0.25, "optim.lr": 0.01}
        assert recipe_parameters({"optim.lr": LogRange(0.02, 1)}, tree()) is None


class TestSearch:
    @pytest.mark.parametrize("kind", ["random", "grid", "optuna"])
    def test_one_seed_proposes_the_same_trials_whatever_was_interrupted(self, kind: str) -> None:
        def results(parameters: dict[str, Any]) -> float:
            return -abs(float(np.log(parameters["optim.lr"] / 0.02)))

        whole, first = (open_search(SPACE, tree(search=kind, trials=16)) for _ in range(2))
        proposed = []
        for number in range(16):
            proposed.append(whole.propose(number))
            whole.tell(proposed[-1], results(proposed[-1]))
        for number in range(9):
            assert first.propose(number) == proposed[number]
            first.tell(proposed[number], results(proposed[number]))
        second = open_search(SPACE, tree(search=kind, trials=16))
        for parameters in proposed[:9]:
            second.tell(parameters, results(parameters))
        assert [second.propose(9)] == proposed[9:10]
        other = open_search(SPACE, tree(search=kind, trials=16).model_copy(update={"train": SEED}))
        assert (other.propose(3) == proposed[3]) == (kind == "grid")

    def test_optuna_finds_more_than_chance(self) -> None:
        def best(kind: str) -> float:
            search = open_search(SPACE, tree(search=kind, trials=40))
            found = []
            for number in range(40):
                parameters = search.propose(number)
                found.append(-float(np.log(parameters["optim.lr"] / 0.02) ** 2 + np.log(parameters["loss.l1"]) ** 2))
                search.tell(parameters, found[-1])
            return max(found)

        assert best("optuna") > best("random")

    def test_optuna_avoids_where_trials_fail(self) -> None:
        late = []
        for seed in range(3):
            settings = tree(trials=60)
            seeded = settings.train.model_copy(update={"seed": seed})
            search = open_search({"optim.lr": LogRange(1e-3, 1e-1)}, settings.model_copy(update={"train": seeded}))
            for number in range(60):
                rate = search.propose(number)["optim.lr"]
                search.tell({"optim.lr": rate}, None if rate > 0.01 else 1.0)
                late += [rate] * (number >= 30)
        assert sum(rate > 0.01 for rate in late) < len(late) / 3  # at random it would be half of them

    def test_a_larger_grid_adds_to_a_smaller_one(self) -> None:
        search = open_search(SPACE, tree(search="grid", trials=9))
        corners = dict(enumerate(grid(SPACE, tree(), 4)))
        search.resume(corners)
        assert search.total == 9
        rows = [search.propose(number) for number in range(9)]
        assert rows[:4] == list(corners.values())
        assert len({str(row) for row in rows}) == 9


class TestRanking:
    def test_a_twentieth_of_ssim_counts_as_a_decibel(self) -> None:
        assert objective("psnr", 31.5, 0.7, BASELINE) == 1.5
        assert objective("ssim", 31.5, 0.85, BASELINE) == pytest.approx(0.05)
        assert objective("combined", 31.0, 0.8, BASELINE) == pytest.approx(objective("combined", 30.0, 0.85, BASELINE))
        assert objective("combined", 30.0, 0.8, BASELINE) == 0

    def test_the_front_is_what_nothing_beats_in_both(self) -> None:
        points = [(30.0, 0.9), (31.0, 0.8), (29.0, 0.7), (30.0, 0.8), (31.0, 0.8)]
        assert pareto_front(points) == [True, True, False, False, True]

    @pytest.mark.parametrize(
        ("processors", "gpus", "workers", "cpus", "fraction", "room"),
        [
            ([2], [0], 1, None, 0.0, 2),
            ([2], [0], 2, None, 0.0, 1),
            ([2], [0], 3, None, 0.0, 0),
            ([2, 3], [0, 0], 2, 2, 0.0, 1),
            ([16], [1], 1, None, 0.25, 4),
            ([16], [1], 1, None, 0.3, 3),
            ([2], [4], 1, None, 0.5, 2),
            ([16], [2], 2, None, 1.0, 1),
        ],
    )
    def test_only_as_many_trials_run_at_a_time_as_find_room(
        self, processors: list[int], gpus: list[int], workers: int, cpus: int | None, fraction: float, room: int
    ) -> None:
        assert room_for_trials(processors, gpus, workers, cpus, fraction) == room


def test_a_trial_has_the_settings_of_the_sweep_and_its_own() -> None:
    config = training_config(tree(), {"optim.lr": 0.5, "window.init": "hann"})
    assert (config.optim.lr, config.window.init, config.loss.l1) == (0.5, "hann", 0.25)


def test_the_settings_of_a_sweep_need_no_ray() -> None:
    code = (
        "import sys\n"
        "import fbp_ray.sweep, fbp_ray.sweep.config, fbp_ray.sweep.folder, fbp_ray.sweep.config\n"
        "assert 'ray' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
