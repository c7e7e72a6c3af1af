"""What is refused before anything is submitted: what cannot be, and what the cluster could never run.

The rules are the package's own; here they are asked early, for what can be known on this machine. Data and checkpoints
of another machine are left to the job.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fbp_ray.cli import on_recipe
from fbp_ray.config import TrainConfig
from fbp_ray.errors import ConfigError, DataError, FbpRayError, RunError
from fbp_ray.storage import absolute, open_folder
from fbp_ray.train.cluster import Node, allocate
from service.jobs.commands import LONGEST, SPACES, pack
from service.jobs.documents import EvaluateJob, JobRequest, SweepJob, TrainJob
from service.problems import Problem


class Prepared(NamedTuple):
    """A request that can be submitted."""

    id: str
    request: dict[str, Any]
    """What the caller set, with names, and with places that mean the same to every process."""

    place: str
    """The folder of the results."""


def prepare(body: JobRequest, storage: str) -> Prepared:
    """Gives a job an id, and a name and a storage where its configuration has none.

    Raises:
        Problem: 413, the configuration is too long.
        ConfigError: a place that there cannot be.
    """
    id = secrets.token_hex(5)
    request = body.model_dump(mode="json", exclude_unset=True) | {"kind": body.kind}
    config: dict[str, Any] = request.setdefault("config", {})
    if isinstance(body, EvaluateJob):
        config["out"] = absolute(config.get("out") or f"{storage}/evaluate-{id}")
        config["checkpoint"] = absolute(config["checkpoint"])
        place = config["out"]
    else:
        part = config.setdefault("run" if isinstance(body, TrainJob) else "sweep", {})
        part["name"] = part.get("name") or f"{body.kind}-{id}"
        part["storage"] = absolute(part.get("storage") or storage)
        place = str(open_folder(part["storage"]) / part["name"])
        if config.get("init", {}).get("checkpoint"):
            config["init"]["checkpoint"] = absolute(config["init"]["checkpoint"])
    if config.get("data", {}).get("dir"):
        config["data"]["dir"] = absolute(config["data"]["dir"])
    try:
        pack(request)
    except ValueError as error:
        raise Problem(413, f"{error}; a configuration has at most {LONGEST} bytes") from None
    return Prepared(id, request, place)


def check(body: JobRequest, prepared: Prepared, nodes: Sequence[Node], local: bool) -> None:
    """Refuses what could never run.

    Args:
        body: what was asked for.
        prepared: what `prepare` made of it.
        nodes: of the cluster.
        local: whether jobs run on this machine.

    Raises:
        FbpRayError, Problem: why, and the way out.
    """
    try:
        if isinstance(body, EvaluateJob):
            _check_evaluation(prepared, local)
        elif isinstance(body, SweepJob):
            _check_sweep(prepared, nodes, local)
        else:
            _check_training(prepared, nodes, local)
    except FbpRayError:
        raise
    except (OSError, ValueError) as error:  # a folder that may not be read, a name that no system takes, ..
        raise Problem(
            422, f"the configuration names something that cannot be used: {error}; see `data`, `run`"
        ) from None


def _check_training(prepared: Prepared, nodes: Sequence[Node], local: bool) -> None:
    from fbp_ray.run import RunFolder

    config = on_recipe(TrainConfig, prepared.request["config"])
    _refuse_address(config)
    _check_settings(config, local)
    _check_room(config, nodes)
    run = RunFolder(prepared.place)
    if config.data.dir is None and run.folder.has("config.yaml"):
        known = yaml.safe_load(run.folder.read("config.yaml"))
        config = _with_data(config, known.get("data", {}).get("dir"))
    run.check_resumable(config)


def _check_sweep(prepared: Prepared, nodes: Sequence[Node], local: bool) -> None:
    from fbp_ray.sweep.config import SweepTree, training_config
    from fbp_ray.sweep.folder import SWEEP, SweepFolder
    from fbp_ray.sweep.program import refuse_run_options, with_workers
    from fbp_ray.sweep.resources import allocate_trials
    from fbp_ray.sweep.space import Space, check_space, grid

    tree = on_recipe(SweepTree, prepared.request["config"])
    space: Space = import_module(SPACES[prepared.request["space"]]).SPACE
    _refuse_address(tree)
    refuse_run_options(tree)
    check_space(space, tree)
    if tree.sweep.search == "grid":
        grid(space, tree, tree.sweep.trials)
    _check_settings(training_config(with_workers(tree, tree.sweep.workers_per_trial), {}), local)
    allocate_trials(tree, nodes)
    if tree.sweep.train_best:
        _check_room(tree, nodes)
    folder = SweepFolder(prepared.place)
    known = folder.run.read_json(SWEEP) or {}
    if tree.data.dir is None:
        tree = _with_data(tree, known.get("settings", {}).get("data.dir"))
    folder.check_resumable(tree, space)


def _check_evaluation(prepared: Prepared, local: bool) -> None:
    from fbp_ray.checkpoint import check_geometry, find_checkpoint, read_manifest
    from fbp_ray.data import LoDoPaB, geometry_of
    from fbp_ray.evaluate.program import EvaluateConfig

    config = EvaluateConfig.model_validate(prepared.request["config"])
    out = open_folder(prepared.place)
    if out.names() or out.folders():
        raise RunError(f"{out} holds results already; choose another `out`, nothing was changed")
    if not (local or "://" in config.checkpoint or Path(config.checkpoint).exists()):
        return
    checkpoint = find_checkpoint(config.checkpoint)
    folder = config.data.dir or Path(str(read_manifest(checkpoint).data.get("dir", "")))
    if folder.is_dir():
        geometry = geometry_of(folder)
        check_geometry(checkpoint, geometry)
        LoDoPaB(folder, config.split, geometry, config.data.samples)
    elif local:
        raise DataError(f"there is no data folder {folder}; name one in `data.dir`")


def _check_settings(config: TrainConfig, local: bool) -> None:
    """What the data and the settings say, as far as they are here. The sample data are made by the job itself."""
    from fbp_ray.train.program import check, check_settings, resolve

    folder = config.data.dir
    if folder is not None and (local or folder.is_dir()):
        check(resolve(config))
    else:
        check_settings(config)


def _check_room(config: TrainConfig, nodes: Sequence[Node]) -> None:
    try:
        allocate(config.scaling, nodes)
    except RunError as error:
        raise Problem(422, str(error)) from None


def _refuse_address(config: TrainConfig) -> None:
    if config.ray.address is not None:
        raise ConfigError(
            f"a job does not choose its cluster, but `ray.address` is {config.ray.address!r}; leave it out: jobs go to "
            "the cluster of the service"
        )


def _with_data(config: Any, folder: str | None) -> Any:
    """The settings with the sample data where an earlier run has them."""
    return config.model_copy(update={"data": config.data.model_copy(update={"dir": folder and Path(folder)})})
