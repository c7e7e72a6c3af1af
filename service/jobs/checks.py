"""What is found out about a job before it is started: whether it can run, and reaches nothing that it may not."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from fbp_ray.cli import on_recipe
from fbp_ray.config import TrainConfig
from fbp_ray.errors import CheckpointError, ConfigError, DataError, FbpRayError, RunError
from fbp_ray.evaluate import EvaluateConfig
from fbp_ray.reconstruct import ReconstructConfig
from fbp_ray.run import RunFolder, own_settings
from fbp_ray.settings import what_is_wrong
from fbp_ray.shipped import is_shipped
from fbp_ray.sweep.config import SweepTree
from fbp_ray.train.cluster import Node, allocate
from service.jobs.store import Job
from service.places import Places
from service.problems import Problem
from service.settings import refuse_own

_log = logging.getLogger("service.jobs")


def check(job: Job, nodes: Sequence[Node], local: bool, places: Places, own: Collection[str] = ()) -> None:
    """Refuses what could never run, by the rules of the package itself, as far as this machine can tell.

    Args:
        job: what is to be submitted. Data and checkpoints on another machine are left to the job.
        nodes: the machines of the cluster.
        local: whether jobs run on this machine.
        places: that the service may use.
        own: windows of somebody's own that may run.

    Raises:
        FbpRayError, Problem: why, and what to do about it.
    """
    try:
        if job.kind == "evaluate":
            _check_evaluation(job, local, places, own)
        elif job.kind == "reconstruct":
            _check_volume(job, local, places, own)
        elif job.kind == "sweep":
            _check_sweep(job, nodes, local, places, own)
        else:
            _check_training(job, nodes, local, places, own)
    except (FbpRayError, Problem):
        raise
    except Exception as error:  # a folder that may not be read, a name that no system takes, files that are damaged, ..
        why = what_is_wrong(error)
        _log.warning("a job is refused", exc_info=error)
        raise Problem(422, f"the configuration names something that cannot be used: {why}; see `data`, `run`") from None


def _check_training(job: Job, nodes: Sequence[Node], local: bool, places: Places, own: Collection[str]) -> None:
    config = on_recipe(TrainConfig, job.config, instead=lambda values: own_settings(values, places.open))
    _refuse_address(config)
    refuse_own(config.own_code, own)
    _check_settings(config, local, places)
    _check_resources(config, nodes)
    run = RunFolder(places.open(job.place))
    if config.data.dir is None and run.folder.has("config.yaml"):
        known = yaml.safe_load(run.folder.read("config.yaml"))
        config = _with_data(config, known.get("data", {}).get("dir"), places)
    run.check_resumable(config)


def _check_sweep(job: Job, nodes: Sequence[Node], local: bool, places: Places, own: Collection[str]) -> None:
    from fbp_ray.sweep.config import allocate_trials, refuse_run_options, training_config, with_workers
    from fbp_ray.sweep.folder import SWEEP, SweepFolder
    from fbp_ray.sweep.space import Space, check_space, values_each

    tree = on_recipe(SweepTree, job.config)
    space: Space = import_module(f"sweeps.{job.request['space']}").SPACE
    _refuse_address(tree)
    refuse_own(tree.own_code, own)
    refuse_run_options(tree)
    check_space(space, tree)
    if tree.sweep.search == "grid":
        values_each(space, tree.sweep.trials)
    _check_settings(training_config(with_workers(tree, tree.sweep.workers_per_trial), {}), local, places)
    allocate_trials(tree, nodes)
    if tree.sweep.train_best:
        _check_resources(tree, nodes)
    folder = SweepFolder(places.open(job.place))
    known = folder.run.read_json(SWEEP) or {}
    if tree.data.dir is None:
        tree = _with_data(tree, known.get("settings", {}).get("data.dir"), places)
    folder.check_resumable(tree, space)


def _check_evaluation(job: Job, local: bool, places: Places, own: Collection[str]) -> None:
    from fbp_ray.checkpoint import find_checkpoint, read_manifest
    from fbp_ray.evaluate.alone import refuse_what_needs_truth
    from fbp_ray.evaluate.inputs import data_folder, open_part
    from fbp_ray.evaluate.program import check_out

    config = EvaluateConfig.model_validate(job.config)
    check_out(places.open(job.place), config.overwrite)
    if not (local or is_shipped(config.checkpoint) or "://" in config.checkpoint or Path(config.checkpoint).exists()):
        return
    with _said_of("checkpoint", CheckpointError, ConfigError):
        manifest = read_manifest(find_checkpoint(places.open_model(config.checkpoint)))
    refuse_own([*manifest.model.own_code, *config.metrics.own], own)
    folder = Path(places.resolve(str(data_folder(config, manifest))))
    if folder.is_dir():
        _refuse_links(folder, places)
        if not open_part(config, manifest, config.split, needs_truth=False).truth:
            refuse_what_needs_truth(config, folder)
    elif local:
        raise DataError(f"there is no data folder {folder}; name one in `data.dir`")


def _check_volume(job: Job, local: bool, places: Places, own: Collection[str]) -> None:
    from fbp_ray.checkpoint import read_manifest
    from fbp_ray.reconstruct.partial import Partial
    from fbp_ray.reconstruct.plan import make_plan

    config = ReconstructConfig.model_validate(job.config)
    _refuse_address(config)
    folder = config.data.dir
    if not folder.is_dir():
        if local:
            raise DataError(f"there is no data folder {folder}; name one in `data.dir`")
        return
    _refuse_links(folder, places)
    if config.checkpoint is not None:
        if not (
            local or is_shipped(config.checkpoint) or "://" in config.checkpoint or Path(config.checkpoint).exists()
        ):
            return
        with _said_of("checkpoint", CheckpointError, ConfigError):
            manifest = read_manifest(places.open_model(config.checkpoint))
        refuse_own(manifest.model.own_code, own)
    Partial(config.out).check(make_plan(config))


def _check_settings(config: TrainConfig, local: bool, places: Places) -> None:
    """Checks settings and data, as far as the data are here. The sample data are made by the job itself."""
    from fbp_ray.checkpoint import read_manifest
    from fbp_ray.train.program import check, check_settings, resolve

    folder = config.data.dir
    if folder is not None and (local or folder.is_dir()):
        if config.init.checkpoint is not None:
            with _said_of("init.checkpoint", CheckpointError, ConfigError):
                read_manifest(places.open_model(config.init.checkpoint))
        _refuse_links(folder, places)
        with _said_of("data.dir", DataError):
            check(resolve(config))
    else:
        check_settings(config)


def _check_resources(config: TrainConfig, nodes: Sequence[Node]) -> None:
    try:
        allocate(config.scaling, nodes)
    except RunError as error:
        raise Problem(422, str(error)) from None


def _refuse_address(config: TrainConfig | ReconstructConfig) -> None:
    if config.ray.address is not None:
        raise ConfigError(
            f"a job does not choose its cluster, but `ray.address` is {config.ray.address!r}; leave it out: jobs go to "
            "the cluster of the service"
        )


@contextmanager
def _said_of(setting: str, *errors: type[FbpRayError]) -> Iterator[None]:
    """Has errors of these kinds name the setting that they are about, unless they begin with the name of another."""
    try:
        yield
    except errors as error:
        if str(error).startswith("--"):
            raise
        raise type(error)(f"--{setting}: {error}") from None


def _with_data(config: Any, folder: object, places: Places) -> Any:
    """The settings with the sample data in the folder where an earlier run has them."""
    return config.model_copy(update={"data": config.data.model_copy(update={"dir": _data_folder(folder, places)})})


def _data_folder(written: object, places: Places) -> Path | None:
    """The data folder that a file of a run names; raises ConfigError where it is none that the service may use."""
    return Path(places.resolve(str(written))) if written else None


def _refuse_links(folder: Path, places: Places) -> None:
    """Raises ConfigError where files in a data folder lead to others that the service may not use."""
    from fbp_ray.data.hdf5_reader import other_files

    for file in sorted(folder.glob("*.hdf5")):
        for other in (file, *other_files(file)):
            try:
                places.resolve(str(other))
            except ConfigError as error:
                raise ConfigError(f"{file} takes its data from elsewhere: {error}") from None
