"""A sweep as a program: options, folder, trials, results. `sweeps/` has the programs, each a search space."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from fbp_ray.cli import parse_with_recipe, run_program
from fbp_ray.config import TrainConfig
from fbp_ray.data import Batches, LoDoPaB, geometry_of
from fbp_ray.errors import ConfigError, RunError
from fbp_ray.run import RunFolder
from fbp_ray.storage import open_folder
from fbp_ray.sweep.config import SweepTree, training_config
from fbp_ray.sweep.folder import FINISHED, SweepFolder
from fbp_ray.sweep.page import as_page
from fbp_ray.sweep.plots import draw_plots
from fbp_ray.sweep.results import CONFIG, Results, read_results, write_results
from fbp_ray.sweep.search import Search, open_search
from fbp_ray.sweep.space import Space, check_space
from fbp_ray.sweep.table import SweepProgress, results_table
from fbp_ray.train.process import Process
from fbp_ray.train.program import check, resolve, train_run
from fbp_ray.train.record import measure_baseline

if TYPE_CHECKING:
    from fbp_ray.sweep.object_store import Stored


def sweep_program(space: Space, program: str) -> None:
    """Runs a sweep over `space` with the options of the command line, and exits with a code.

    Args:
        space: what may become of which settings.
        program: the file of the script, such as "sweeps/loss_weights.py".
    """

    def main(argv: Sequence[str]) -> None:
        sweep(space, argv, program)

    run_program(main)


def sweep(space: Space, argv: Sequence[str], program: str) -> Results:
    """Runs the sweep that options, as `--name value`, describe; otherwise as `run_sweep`."""
    return run_sweep(space, parse_with_recipe(SweepTree, argv, f"python {program}"), program)


def run_sweep(space: Space, tree: SweepTree, program: str) -> Results:
    """Runs a sweep, or goes on with one; returns the results.

    Args:
        space: what may become of which settings.
        tree: its settings.
        program: the file of the script, such as "sweeps/loss_weights.py".

    Raises:
        ConfigError: options or a space that do not hold, or more trials at a time than the cluster has room for.
        RunError: the folder cannot be used, or every trial failed.
    """
    began = time.monotonic()
    tree = resolve_sweep(tree, Path(program).stem)
    check_space(space, tree)
    check(resolve(training_config(with_workers(tree, tree.sweep.workers_per_trial), {})))
    search = open_search(space, tree)
    folder = SweepFolder(open_folder(tree.sweep.storage) / str(tree.sweep.name))
    folder.begin(tree, space)
    console = Console()
    console.print(f"sweep {folder}; to go on with it: --sweep.name {tree.sweep.name}", highlight=False, soft_wrap=True)

    results = _run(tree, folder, search, list(space), console)
    write_results(folder, results)
    _draw(folder, results)
    console.print(results_table(results, console.width))
    _refuse_nothing(results)
    if tree.sweep.train_best:
        _train_best(tree, folder, results)
    best = results.ranked[0]
    console.print(
        f"best: trial {best.name} of {len(results.outcomes)}, in {time.monotonic() - began:.0f} s\n"
        f"table {folder}/results.csv, page {folder}/index.html\n"
        f"checkpoint {folder}/best: python -m fbp_ray.evaluate --checkpoint {folder}/best\n"
        f"settings {folder}/{CONFIG}: python -m fbp_ray.train --config {folder}/{CONFIG}",
        highlight=False,
        soft_wrap=True,
    )
    return results


def resolve_sweep(tree: SweepTree, stem: str) -> SweepTree:
    """The settings with nothing left open; raises ConfigError for those that a sweep does not take."""
    refuse_run_options(tree)
    resolved = resolve(tree)
    name = tree.sweep.name or f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    named = {"sweep": tree.sweep.model_copy(update={"name": name})}
    made = {field: getattr(resolved, field) for field in TrainConfig.model_fields if field != "run"}
    return tree.model_copy(update=made | named)


def refuse_run_options(tree: SweepTree) -> None:
    """Raises ConfigError for options of a run that a sweep does not take."""
    if tree.run.name is not None or tree.run.extend is not None:
        raise ConfigError("a sweep has no --run.name and no --run.extend; use --sweep.name and --sweep.trials")


def _run(tree: SweepTree, folder: SweepFolder, search: Search, keys: list[str], console: Console) -> Results:
    from fbp_ray.sweep.object_store import (  # after the options are known to hold: Ray takes seconds to import
        room_for,
        store,
    )
    from fbp_ray.sweep.resources import allocate_trials
    from fbp_ray.sweep.trial import Task
    from fbp_ray.sweep.tuning import run_trials
    from fbp_ray.train.cluster import cluster, nodes

    assert tree.data.dir is not None
    geometry = geometry_of(tree.data.dir)
    training = LoDoPaB(tree.data.dir, "train", geometry, tree.data.train_samples)
    validation = LoDoPaB(tree.data.dir, "validation", geometry, tree.data.validation_samples)
    begun = folder.outcomes()
    search.take_up({outcome.number: outcome.parameters for outcome in begun})
    finished = sum(outcome.status in FINISHED for outcome in begun)
    if finished == len(begun) >= search.total:
        console.print(f"all {finished} trials are finished; --sweep.trials {2 * finished} makes as many more")
        return read_results(folder, keys, tree.sweep.metric)

    with cluster(tree.ray.address):
        share = allocate_trials(tree, nodes())
        alone = Process(0, 1, torch.device("cpu"))
        baseline = measure_baseline(
            folder.run, validation, Batches(validation, tree.train.batch_size, seed=None), alone
        )
        before = read_results(folder, keys, tree.sweep.metric)
        progress = SweepProgress(search.total, tree.train.epochs, before, console)
        if begun:
            progress.line(f"going on: {finished} trials are finished, {len(begun) - finished} were interrupted")
        data: tuple[Stored, Stored] | None = None
        problem = room_for(training, validation, tree.data) if share.workers == 1 else None
        if share.workers == 1 and problem is None:
            data = store(training, tree.data), store(validation, tree.data)
        elif problem is not None:
            progress.line(problem)
        progress.line(_how(share.concurrent, share.workers, share.cpus, share.gpus))
        task = Task(tree.sweep.metric, baseline, share.cpus, share.gpus > 0, share.workers, data)

        def show(event: dict[str, Any]) -> None:
            results = read_results(folder, keys, tree.sweep.metric) if event["event"] == "end" else None
            if results is not None:
                write_results(folder, results)
            progress.show(event, results)

        with progress:
            run_trials(with_workers(tree, share.workers, share.cpus), folder, search, task, share, show)
    return read_results(folder, keys, tree.sweep.metric)


def with_workers(tree: SweepTree, workers: int, cpus: int | None = None) -> SweepTree:
    """The settings, with the training processes of a trial, and the processors of each."""
    scaling = tree.scaling.model_copy(update={"num_workers": workers, "min_workers": None, "cpus_per_worker": cpus})
    return tree.model_copy(update={"scaling": scaling})


def _how(concurrent: int, workers: int, cpus: int, gpus: float) -> str:
    each = f"{cpus} processor{'s' if cpus > 1 else ''}"
    each += f" and {gpus:g} of a GPU" if gpus and workers == 1 else ""
    each = f"{workers} workers of {each}" if workers > 1 else each
    return f"{concurrent} trial{'s' if concurrent > 1 else ''} at a time, each on {each}"


def _draw(folder: SweepFolder, results: Results) -> None:
    plots = draw_plots(results)
    settings = folder.folder.read(CONFIG).decode() if results.ranked else ""
    try:
        for name, content in plots.items():
            folder.folder.write(name, content)
        folder.folder.write("index.html", as_page(folder.folder.name, results, plots, settings))
    except OSError as error:
        raise RunError(f"the plots cannot be written to {folder}: {error}; the trials themselves are kept") from None


def _refuse_nothing(results: Results) -> None:
    """Raises RunError where there is no result at all."""
    if results.ranked:
        return
    reasons = [f"trial {outcome.name}: {outcome.reason}" for outcome in results.outcomes if outcome.status == "failed"]
    raise RunError(
        f"all {len(results.outcomes)} trials failed, so there is no best one. The first of them:\n       "
        + "\n       ".join(reasons[:3])
        + "\n       put the cause right and choose another --sweep.name, or remove a trial's folder to try it again"
    )


def _train_best(tree: SweepTree, folder: SweepFolder, results: Results) -> None:
    """Trains the best settings with TorchTrainer, unless that was done before."""

    best = results.ranked[0]
    run = RunFolder(folder.folder / f"trained-{best.name}")
    if run.status().get("state") == "completed":
        print(f"trained already: {run}")
        return
    config = training_config(tree, best.parameters)
    name = config.run.model_copy(update={"name": run.folder.name, "storage": str(folder.folder.absolute())})
    resolved = run.begin(resolve(config.model_copy(update={"run": name})))
    train_run(resolved, run)
    print(f"trained with the best settings: {run}")
