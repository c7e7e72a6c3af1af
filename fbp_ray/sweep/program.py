"""What a sweep does: folder, trials, results."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from fbp_ray.config import TrainConfig
from fbp_ray.data import Batches
from fbp_ray.data.layout import has_truth
from fbp_ray.errors import ConfigError, RunError
from fbp_ray.run import RunFolder
from fbp_ray.settings import this_python
from fbp_ray.storage import open_folder
from fbp_ray.sweep.config import (
    SweepTree,
    TrialResources,
    allocate_trials,
    refuse_run_options,
    training_config,
    with_workers,
)
from fbp_ray.sweep.folder import (
    BEST_CONFIG,
    FINISHED,
    Results,
    SweepFolder,
    read_results,
    run_config,
    write_results,
)
from fbp_ray.sweep.report import SweepProgress, TrialEnded, TrialEvent, as_page, draw_plots, results_table
from fbp_ray.sweep.space import Search, Space, check_space, open_search
from fbp_ray.train.cluster import cluster, nodes, starting_ray, this_machine
from fbp_ray.train.parts import open_parts, split_of
from fbp_ray.train.process import Process
from fbp_ray.train.program import check, check_start, resolve, train_run
from fbp_ray.train.record import measure_baseline

if TYPE_CHECKING:
    from fbp_ray.sweep.object_store import StoredData

WIDE = 200
"""Columns of a log, where no line is broken."""


def run_sweep(space: Space, tree: SweepTree, program: str) -> Results:
    """Runs a sweep, or goes on with one; returns the results.

    Args:
        space: the settings that are searched, and their values.
        tree: the settings of the sweep.
        program: the file of the script, such as "sweeps/loss_weights.py".

    Raises:
        ConfigError: options or a space that do not hold, or more trials at a time than the cluster has room for.
        RunError: the folder cannot be used, or every trial failed.
    """
    began = time.monotonic()
    refuse_run_options(tree)
    if here := this_machine(tree.ray.address):
        allocate_trials(tree, here)
    check_start(tree)
    tree = _resolve(tree, Path(program).stem)
    check_space(space, tree)
    resolved = resolve(training_config(with_workers(tree, tree.sweep.workers_per_trial), {}))
    if resolved.data.dir.is_dir() and not has_truth(resolved.data.dir, "validation"):
        raise ConfigError(
            f"a sweep ranks its trials by PSNR and SSIM, but {resolved.data.dir} has no ground_truth_validation_*.hdf5;"
            " add the ground truth of the validation part, or train without it: python -m fbp_ray.train --target self"
        )
    check(resolved)
    search = open_search(space, tree)
    folder = SweepFolder(open_folder(tree.sweep.storage) / str(tree.sweep.name))
    folder.begin(tree, space)
    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    console.print(f"sweep {folder}; to go on with it: --sweep.name {tree.sweep.name}", highlight=False, soft_wrap=True)

    with _interrupted(tree):
        _run(tree, folder, search, list(space), console)
    results = read_results(folder, list(space), tree.sweep.metric)
    write_results(folder, results)
    _write_report(folder, results)
    console.print(results_table(results, console.width))
    _require_a_result(results)
    if tree.sweep.train_best:
        with _interrupted(tree):
            _train_best(tree, folder, results)
    best = results.ranked[0]
    console.print(
        f"best: trial {best.name} of {len(results.outcomes)}, in {time.monotonic() - began:.0f} s\n"
        f"table {folder}/results.csv, page {folder}/index.html\n"
        f"checkpoint {folder}/best: {this_python()} -m fbp_ray.evaluate --checkpoint {folder}/best\n"
        f"settings {folder}/{BEST_CONFIG}: {this_python()} -m fbp_ray.train --config {folder}/{BEST_CONFIG}",
        highlight=False,
        soft_wrap=True,
    )
    return results


@contextmanager
def _interrupted(tree: SweepTree) -> Iterator[None]:
    """Has Ctrl-C say how the sweep goes on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted; the epochs that were finished are kept: the same command, with --sweep.name "
            f"{tree.sweep.name}, goes on"
        ) from None


def _resolve(tree: SweepTree, stem: str) -> SweepTree:
    """The settings with nothing left open."""
    resolved = resolve(training_config(tree, {}))
    name = tree.sweep.name or f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    update = {field: getattr(resolved, field) for field in TrainConfig.model_fields if field != "run"}
    return tree.model_copy(update={**update, "sweep": tree.sweep.model_copy(update={"name": name})})


def _run(tree: SweepTree, folder: SweepFolder, search: Search, keys: list[str], console: Console) -> None:
    """Runs the trials that are missing, and shows how far they are."""
    begun = folder.outcomes()
    search.resume({outcome.number: outcome.parameters for outcome in begun})
    finished = sum(outcome.status in FINISHED for outcome in begun)
    if finished == len(begun) >= search.total:
        console.print(f"all {finished} trials are finished; --sweep.trials {2 * finished} makes as many more")
        return
    # Ray takes seconds to import: only now that the options are known to hold.
    console.print(starting_ray(tree.ray.address), highlight=False)
    from fbp_ray.sweep.object_store import no_room, store
    from fbp_ray.sweep.tuning import TrialTask, run_trials
    from fbp_ray.train.room import wait_for_room

    training, validation = open_parts(tree)
    with cluster(tree.ray.address, own_code=tree.own_code):
        resources = allocate_trials(tree, nodes())
        console.print("measuring the classic FBP on the validation part", highlight=False)
        batches = Batches(validation, tree.train.batch_size, seed=None)
        alone = Process(0, 1, torch.device("cpu"))
        baseline = measure_baseline(folder.run, validation, batches, alone, split_of(tree, validation.geometry))
        if baseline.left_out:
            console.print(baseline.left_out, highlight=False, soft_wrap=True)
        before = read_results(folder, keys, tree.sweep.metric)
        progress = SweepProgress(search.total, tree.train.epochs, before, console)
        if begun:
            progress.line(f"going on: {finished} trials are finished, {len(begun) - finished} were interrupted")
        data: tuple[StoredData, StoredData] | None = None
        if resources.workers == 1:
            problem = no_room(training, validation, tree.data)
            if problem is None:
                data = store(training, tree.data), store(validation, tree.data)
            else:
                progress.line(problem)
        progress.line(_describe(resources))
        task = TrialTask(
            tree.sweep.metric, baseline, resources.cpus, resources.gpus > 0, workers=resources.workers, data=data
        )

        def show(event: TrialEvent) -> None:
            results = None
            if isinstance(event, TrialEnded):
                results = read_results(folder, keys, tree.sweep.metric)
                write_results(folder, results)
            progress.show(event, results)

        wanted = {"CPU": resources.workers * resources.cpus, "GPU": resources.workers * resources.gpus}
        wait_for_room(wanted, progress.line)
        with progress:
            run_trials(with_workers(tree, resources.workers, resources.cpus), folder, search, task, resources, show)


def _describe(resources: TrialResources) -> str:
    concurrent, workers, cpus, gpus = resources
    each = f"{cpus} processor{'s' if cpus > 1 else ''}"
    each += f" and {gpus:g} of a GPU" if gpus and workers == 1 else ""
    each = f"{workers} workers of {each}" if workers > 1 else each
    return f"{concurrent} trial{'s' if concurrent > 1 else ''} at a time, each on {each}"


def _write_report(folder: SweepFolder, results: Results) -> None:
    plots = draw_plots(results)
    settings = folder.folder.read(BEST_CONFIG).decode() if results.ranked else ""
    try:
        for name, content in plots.items():
            folder.folder.write(name, content)
        folder.folder.write("index.html", as_page(folder.folder.name, results, plots, settings))
    except OSError as error:
        raise RunError(f"the plots cannot be written to {folder}: {error}; the trials themselves are kept") from None


def _require_a_result(results: Results) -> None:
    """Raises RunError where every trial failed."""
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
    train_run(run.begin(run_config(tree, best.parameters, run)), run)
    print(f"trained with the best settings: {run}")
