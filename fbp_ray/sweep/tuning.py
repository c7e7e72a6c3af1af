"""Ray Tune: runs the trials, stops those that are behind, and starts those again whose process was lost.

Tune's own record of the experiment is thrown away: a sweep goes on from what its trials have left in their folders.

Tune ends the process of a trial that its scheduler stops at once: without the checkpoint that it may still be writing,
and without giving back the placement group of its workers. Here a trial to be stopped finds another owner in its run
folder, as does every run that was taken over, and returns by itself.
"""

from __future__ import annotations

import logging
import os
import tempfile
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import uuid4

import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from fbp_ray.baseline import Baseline
from fbp_ray.errors import FbpRayError, RunError
from fbp_ray.run import ResolvedConfig, RunFolder, State
from fbp_ray.sweep.config import Metric, SweepTree, TrialResources, objective
from fbp_ray.sweep.folder import FINISHED, SweepFolder
from fbp_ray.sweep.object_store import ObjectStoreCache, StoredData
from fbp_ray.sweep.report import TrialBegan, TrialEnded, TrialEpoch, TrialEvent
from fbp_ray.sweep.space import Parameters, Search
from fbp_ray.train.events import EpochEnd, Event
from fbp_ray.train.loop import train
from fbp_ray.train.process import Process
from fbp_ray.train.room import fit_and_let_go

ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # each trial writes its own history
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # the last report of a trial has no metric
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the sweep, which goes on with the same command
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",  # its record would be written at every turn
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output does not keep quiet
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean what they mean to the driver
}
REDUCTION_FACTOR = 2  # of the trials that reach a rung, one in so many goes on
LOST = "its process was lost more often than --run.max_failures; to try it again, remove its folder"
BEHIND = "behind the others after epoch {}"
TRACEBACK = "traceback.txt"

Show = Callable[[TrialEvent], None]


class TrialTask(NamedTuple):
    """What all trials of a sweep have in common."""

    metric: Metric
    baseline: Baseline
    threads: int
    use_gpu: bool
    workers: int
    data: tuple[StoredData, StoredData] | None
    """The training and the validation part in the object store, None where trials read the files."""


def run_trial(config: dict[str, Any], task: TrialTask) -> None:
    """Trains one trial. Reports epoch, psnr, ssim and objective of each epoch; at the end `failed`: why, or "".

    Args:
        config: the run folder, the session that has begun it, and the training's configuration as JSON.
        task: what all trials have in common.
    """
    run = RunFolder(config["run"], config["session"])

    def report(event: Event) -> None:
        if not isinstance(event, EpochEnd):
            return
        row = event.row
        psnr, ssim = row["validation_psnr"], row["validation_ssim"]
        value = objective(task.metric, psnr, ssim, task.baseline)
        tune.report({"epoch": int(row["epoch"]), "psnr": psnr, "ssim": ssim, "objective": value})
        if task.workers == 1:  # several workers find out by themselves
            run.check_owner()

    failed = ""
    try:
        settings = ResolvedConfig.model_validate_json(config["config"])
        if task.workers > 1:
            from fbp_ray.train.launch import launch

            launch(settings, run, report)
        else:
            torch.set_num_threads(task.threads)  # each thread of a process has a number of its own
            caches = task.data and (ObjectStoreCache(task.data[0]), ObjectStoreCache(task.data[1]))
            device = torch.device("cuda" if task.use_gpu else "cpu")
            train(settings, run, Process(0, 1, device), report, caches)
    except FbpRayError as error:
        failed = str(error)
    except Exception as error:
        run.folder.write(TRACEBACK, "".join(traceback.format_exception(error)))
        failed = f"{type(error).__name__}: {error}; its traceback is in {run}/{TRACEBACK}"
    tune.report({"failed": failed})


def run_trials(
    tree: SweepTree, folder: SweepFolder, search: Search, task: TrialTask, resources: TrialResources, show: Show
) -> None:
    """Runs the trials that are missing, those first that were interrupted.

    Args:
        tree: the sweep.
        folder: its folder, begun, with the classic FBP's figures.
        search: proposes new trials, and is told the results of those that are finished.
        task: what the trials have in common.
        resources: what each takes of the cluster.
        show: is called with what happens.

    Raises:
        FbpRayError: a trial's folder could not be made.
    """
    os.environ.update(ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the sweep says in a line how a trial ended
    searcher = TrialSearcher(tree, folder, search, show)
    if not searcher.remaining:
        return
    with tempfile.TemporaryDirectory(prefix="fbp-ray-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(run_trial, task=task), _bundles(resources)),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=_scheduler(tree, folder, searcher.stop),
                num_samples=searcher.remaining,
                max_concurrent_trials=resources.concurrent,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=tree.run.max_failures),
            ),
        )
        try:
            fit_and_let_go(tuner.fit)
        except Exception as error:
            raise searcher.problem or RunError(f"the sweep could not go on: {error}") from None


def _bundles(resources: TrialResources) -> tune.PlacementGroupFactory:
    if resources.workers > 1:
        # The process of such a trial only waits for its workers. Were it given a processor, trials could take all
        # processors before any of them has its workers.
        return tune.PlacementGroupFactory([{"memory": float(2**20)}])
    bundle = {"CPU": float(resources.cpus)}
    return tune.PlacementGroupFactory([bundle | {"GPU": resources.gpus} if resources.gpus else bundle])


def _scheduler(tree: SweepTree, folder: SweepFolder, stop: Callable[[str, int], None]) -> TrialScheduler:
    """The scheduler of a sweep. ASHA compares new trials with those that an earlier session has finished, too."""
    epochs = tree.train.epochs
    least = min(tree.sweep.min_epochs or max(1, epochs // 4), epochs)
    if tree.sweep.scheduler == "none" or least == epochs:
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    scheduler = AskingASHA(stop, epochs, least)
    metric, baseline = tree.sweep.metric, folder.baseline
    for outcome in folder.outcomes():
        if outcome.status in FINISHED:
            figures = [(row["validation_psnr"], row["validation_ssim"]) for row in outcome.history]
            scheduler.add_finished(outcome.name, [objective(metric, psnr, ssim, baseline) for psnr, ssim in figures])
    return scheduler


class AskingASHA(ASHAScheduler):
    """ASHA that asks a trial to stop instead of having Tune end its process.

    Args:
        stop: asks a trial, by Tune's name for it, to stop after an epoch.
        epochs: of a whole trial.
        min_epochs: before a trial may be stopped.
    """

    def __init__(self, stop: Callable[[str, int], None], epochs: int, min_epochs: int) -> None:
        super().__init__(
            time_attr="epoch",
            metric="objective",
            mode="max",
            max_t=epochs,
            grace_period=min_epochs,
            reduction_factor=REDUCTION_FACTOR,
            stop_last_trials=False,
        )
        self.stop = stop
        self.epochs = epochs

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Takes an epoch; Tune is always told to go on."""
        decision = super().on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.STOP and result["epoch"] < self.epochs:
            self.stop(trial.trial_id, result["epoch"])
        return TrialScheduler.CONTINUE

    def add_finished(self, name: str, objectives: list[float]) -> None:
        """Takes the epochs of a trial that was finished before."""
        trial: Any = SimpleNamespace(trial_id=name)
        self.on_trial_add(None, trial)  # type: ignore[arg-type]
        for epoch, value in enumerate(objectives, start=1):
            super().on_trial_result(None, trial, {"epoch": epoch, "objective": value})  # type: ignore[arg-type]
        self.on_trial_remove(None, trial)  # type: ignore[arg-type]


class _Running(NamedTuple):
    number: int
    parameters: Parameters
    run: RunFolder


class TrialSearcher(Searcher):
    """Gives Tune the trials of a sweep, and keeps their folders.

    Args:
        tree: the sweep.
        folder: where the trials are.
        search: proposes new trials.
        show: is called with what happens.
    """

    def __init__(self, tree: SweepTree, folder: SweepFolder, search: Search, show: Show) -> None:
        super().__init__(metric="objective", mode="max")
        self.tree = tree
        self.folder = folder
        self.search = search
        self.show = show
        self.problem: FbpRayError | None = None
        self._baseline = folder.baseline
        known = folder.outcomes()
        self._interrupted = [(one.number, one.parameters) for one in known if one.status not in FINISHED]
        begun = {one.number for one in known}
        self._new = [number for number in range(search.total) if number not in begun]
        self._running: dict[str, _Running] = {}
        self._stopped: dict[str, int] = {}
        for one in known:
            if one.status in FINISHED:
                search.tell(one.parameters, one.objective(tree.sweep.metric, self._baseline))

    @property
    def remaining(self) -> int:
        """How many trials are still to be run."""
        return len(self._interrupted) + len(self._new)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune need not keep the searcher in its own record."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next trial: one that was interrupted, or a new one."""
        try:
            if self._interrupted:
                number, parameters = self._interrupted.pop(0)
            elif self._new:
                number = self._new.pop(0)
                parameters = self.search.propose(number)
            else:
                return str(Searcher.FINISHED)  # type: ignore[return-value]
            run, config = self.folder.begin_trial(self.tree, number, parameters)
        except FbpRayError as error:
            self.problem = error
            raise
        self._running[trial_id] = _Running(number, parameters, run)
        self.show(TrialBegan(number, parameters))
        return {"run": str(run.folder.absolute()), "session": run.session, "config": config.model_dump_json()}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Shows an epoch, unless it came after the one that stopped the trial."""
        if "epoch" in result and result["epoch"] <= self._stopped.get(trial_id, result["epoch"]):
            number = self._running[trial_id].number
            self.show(TrialEpoch(number, result["epoch"], result["psnr"], result["ssim"]))

    def stop(self, trial_id: str, epoch: int) -> None:
        """Stops a trial after an epoch: gives its run another owner, which the trial finds out and ends."""
        if trial_id not in self._stopped:
            self._stopped[trial_id] = epoch
            RunFolder(self._running[trial_id].run.folder, uuid4().hex).set_status("stopped", BEHIND.format(epoch))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Says in a trial's folder how it ended, unless it was stopped; tells the search and the person."""
        if trial_id not in self._running:
            return
        number, parameters, run = self._running.pop(trial_id)
        if trial_id not in self._stopped:
            reason = LOST if error else str((result or {}).get("failed", ""))
            state: State = "failed" if reason else "completed"
            run.set_status(state, reason)
        outcome = self.folder.outcome(number)
        assert outcome is not None
        self.search.tell(parameters, outcome.objective(self.tree.sweep.metric, self._baseline))
        self.show(TrialEnded(number))
