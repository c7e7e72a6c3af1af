"""Ray Tune: starts the trials, ends those that are behind, and starts those anew whose process was lost.

Tune's own record of the experiment is thrown away. What a sweep goes on from is what its trials have left.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.execution.placement_groups import PlacementGroupFactory
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from fbp_ray.baseline import Baseline
from fbp_ray.errors import FbpRayError, RunError
from fbp_ray.run import State
from fbp_ray.sweep.config import SweepTree
from fbp_ray.sweep.folder import FINISHED, Outcome, SweepFolder
from fbp_ray.sweep.objective import merit
from fbp_ray.sweep.resources import TrialResources
from fbp_ray.sweep.search import Search
from fbp_ray.sweep.trial import Task, Trial

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # each trial writes its own history
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that fails has no metric
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the sweep, which goes on with the same command
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",  # its record would be written at every turn
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the other one does not keep quiet
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative places mean what they mean to the driver
}
NARROWING = 2  # of the trials that reach a rung, one in so many goes on
LOST = "its process was lost more often than --run.max_failures; to try it again, remove its folder"
BEHIND = "behind the others after epoch {}"
EPOCH = ("epoch", "psnr", "ssim", "merit")  # what is shown of an epoch
BEST = ("best_psnr", "best_ssim")  # and of the end

Show = Callable[[dict[str, Any]], None]


def run_trials(
    tree: SweepTree, folder: SweepFolder, search: Search, task: Task, resources: TrialResources, show: Show
) -> None:
    """Runs the trials that are missing, those first that were interrupted.

    Args:
        tree: the sweep.
        folder: its folder, begun, with the classic FBP's figures.
        search: proposes new trials; is told of those that are finished.
        task: what the trials share.
        resources: what each takes of the cluster.
        show: is called with {"event": "begin" | "epoch" | "end", "number": .., ..}.

    Raises:
        FbpRayError: a trial's folder could not be made.
    """
    os.environ.update(ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # how a trial ended is said in a line
    known = folder.outcomes()
    conductor = Conductor(tree, folder, search, known, show)
    remaining = len(conductor.waiting) + len(conductor.fresh)
    if remaining == 0:
        return
    with tempfile.TemporaryDirectory(prefix="fbp-ray-") as notes:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(Trial, task=task), _resources(resources)),
            tune_config=tune.TuneConfig(
                search_alg=conductor,
                scheduler=_scheduler(tree, known, task.baseline),
                num_samples=remaining,
                max_concurrent_trials=resources.concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=notes,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=tree.run.max_failures),
            ),
        )
        try:
            tuner.fit()
        except Exception as error:
            raise conductor.problem or RunError(f"the sweep could not go on: {error}") from None


def _resources(resources: TrialResources) -> PlacementGroupFactory:
    if resources.workers > 1:
        # The process of such a trial only waits for its workers. Were it given a processor, trials could have taken all
        # of them before any has its workers.
        return PlacementGroupFactory([{"memory": float(2**20)}])
    bundle = {"CPU": float(resources.cpus)}
    return PlacementGroupFactory([bundle | {"GPU": resources.gpus} if resources.gpus else bundle])


def _scheduler(tree: SweepTree, known: list[Outcome], baseline: Baseline) -> TrialScheduler:
    """The scheduler, which has seen the epochs of the trials that are finished."""
    epochs = tree.train.epochs
    least = min(tree.sweep.min_epochs or max(1, epochs // 4), epochs)
    if tree.sweep.scheduler == "none" or least == epochs:
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    scheduler = ASHAScheduler(
        time_attr="epoch",
        metric="merit",
        mode="max",
        max_t=epochs,
        grace_period=least,
        reduction_factor=NARROWING,
        stop_last_trials=False,
    )
    for outcome in known:
        if outcome.status in FINISHED:
            stand_in: Any = SimpleNamespace(trial_id=f"earlier-{outcome.number}")
            scheduler.on_trial_add(None, stand_in)  # type: ignore[arg-type]
            for row in outcome.history:
                by = merit(tree.sweep.metric, row["validation_psnr"], row["validation_ssim"], baseline)
                scheduler.on_trial_result(None, stand_in, {"epoch": int(row["epoch"]), "merit": by})  # type: ignore[arg-type]
            scheduler.on_trial_remove(None, stand_in)  # type: ignore[arg-type]
    return scheduler


class Conductor(Searcher):
    """What Tune asks for trials, and tells of them: keeps their folders.

    Args:
        tree: the sweep.
        folder: where the trials are.
        search: proposes new trials.
        known: the trials that were begun before.
        show: is called with what happens.
    """

    def __init__(self, tree: SweepTree, folder: SweepFolder, search: Search, known: list[Outcome], show: Show) -> None:
        super().__init__(metric="merit", mode="max")
        self.tree = tree
        self.folder = folder
        self.search = search
        self.show = show
        self.problem: FbpRayError | None = None
        self.waiting = [outcome for outcome in known if outcome.status not in FINISHED]
        begun = {outcome.number for outcome in known}
        self.fresh = [number for number in range(search.total) if number not in begun]
        self._running: dict[str, tuple[int, dict[str, Any]]] = {}
        self._last: dict[str, dict[str, Any]] = {}
        for outcome in known:
            if outcome.status in FINISHED:
                search.told(outcome.parameters, outcome.merit(tree.sweep.metric, folder.baseline))

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, for Tune's own record."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next trial: one that was interrupted, or a new one."""
        try:
            if self.waiting:
                earlier = self.waiting.pop(0)
                number, parameters = earlier.number, earlier.parameters
            elif self.fresh:
                number = self.fresh.pop(0)
                parameters = self.search.propose(number)
            else:
                return str(Searcher.FINISHED)  # type: ignore[return-value]
            run, config = self.folder.begin_trial(self.tree, number, parameters)
        except FbpRayError as error:
            self.problem = error
            raise
        self._running[trial_id] = number, parameters
        self.show({"event": "begin", "number": number, "parameters": parameters})
        place = str(run.folder.absolute())
        return {"run": place, "session": run.session, "config": config.model_dump_json()}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """An epoch of a trial."""
        if "epoch" in result:
            self._last[trial_id] = result
            number, _ = self._running[trial_id]
            self.show({"event": "epoch", "number": number, **{name: result[name] for name in EPOCH}})

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The end of a trial: its own, too early as it was behind, or for good as its process was lost."""
        if trial_id not in self._running:
            return
        result = result or {}
        self.on_trial_result(trial_id, result)
        number, parameters = self._running.pop(trial_id)
        last = {**self._last.pop(trial_id, {}), **result}
        status, reason = _how_it_ended(last, error, self.tree.train.epochs)
        value = None if status == "failed" else last.get("value")
        self.folder.end_trial(number, status, reason)
        self.search.told(parameters, value)
        figures = {name: last[name] for name in BEST if name in last and status != "failed"}
        self.show({"event": "end", "number": number, "status": status, "reason": reason, **figures})


def _how_it_ended(last: dict[str, Any], lost: bool, epochs: int) -> tuple[State, str]:
    """A trial's state and the reason for it, from its last result."""
    if lost:
        return "failed", LOST
    if last.get("ended"):
        reason = str(last["failed"])
        return ("failed", reason) if reason else ("completed", "")
    if last["epoch"] >= epochs:  # behind at its own end
        return "completed", ""
    return "stopped", BEHIND.format(last["epoch"])
