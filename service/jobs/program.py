"""What a job does: the request for it, completed, checked, handed to Ray, and carried out inside the job.

`python -m service.jobs.program KIND` is what Ray runs. Nothing that a caller sends becomes part of that command: the
configuration is in an environment variable, in base64, because Ray would replace `${NAME}` in its value.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import math
import os
import secrets
import shlex
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import Field

from fbp_ray.cli import on_recipe, run_program
from fbp_ray.config import TrainConfig
from fbp_ray.errors import ConfigError, DataError, FbpRayError, RunError
from fbp_ray.evaluate import EvaluateConfig
from fbp_ray.reconstruct import ReconstructConfig
from fbp_ray.run import RunFolder, own_settings
from fbp_ray.settings import Frozen, what_is_wrong
from fbp_ray.shipped import is_shipped
from fbp_ray.sweep.config import SweepTree
from fbp_ray.train.cluster import Node, allocate
from service.jobs.documents import Kind
from service.jobs.store import Job
from service.places import Places, without_secrets
from service.problems import Problem
from service.settings import refuse_own

_log = logging.getLogger("service.jobs")
VARIABLE = "FBP_RAY_JOB"
MAX_BYTES = 90_000  # of a configuration: a variable holds 128 KB, and base64 makes four bytes of three
SpaceName = Literal["loss_weights", "learning_rate"]


class TrainJob(Frozen):
    """A training: what `python -m fbp_ray.train` takes. What is not given is the recipe's."""

    kind: Literal["train"] = Field(description="train, sweep, evaluate or reconstruct")
    config: TrainConfig = Field(default=TrainConfig(), description="the settings of the run")


class SweepJob(Frozen):
    """A sweep: what the programs in `sweeps/` take."""

    kind: Literal["sweep"] = Field(description="train, sweep, evaluate or reconstruct")
    space: SpaceName = Field(description="what is searched: the program sweeps/SPACE.py has its ranges")
    config: SweepTree = Field(default=SweepTree(), description="the settings that trials share, and of the search")


class EvaluateJob(Frozen):
    """An evaluation: what `python -m fbp_ray.evaluate` takes."""

    kind: Literal["evaluate"] = Field(description="train, sweep, evaluate or reconstruct")
    config: EvaluateConfig = Field(description="what to evaluate, on what")


class ReconstructJob(Frozen):
    """A volume: what `python -m fbp_ray.reconstruct` takes."""

    kind: Literal["reconstruct"] = Field(description="train, sweep, evaluate or reconstruct")
    config: ReconstructConfig = Field(description="what to reconstruct, by what, and where the volume goes")


JobRequest = TrainJob | SweepJob | EvaluateJob | ReconstructJob

EXAMPLES: dict[str, Any] = {
    "train": {
        "summary": "Train on the sample CT",
        "value": {"kind": "train", "config": {"recipe": "quickstart", "train": {"epochs": 2}}},
    },
    "reference": {
        "summary": "Train on data of your own, under a name that goes on where it was interrupted",
        "value": {
            "kind": "train",
            "config": {"recipe": "reference", "data": {"dir": "/data/lodopab"}, "run": {"name": "reference-1"}},
        },
    },
    "sweep": {
        "summary": "Find the weights of the loss",
        "value": {
            "kind": "sweep",
            "space": "loss_weights",
            "config": {"sweep": {"trials": 16, "name": "weights"}, "train": {"epochs": 4}},
        },
    },
    "evaluate": {
        "summary": "Score a run beside the classic FBP",
        "value": {"kind": "evaluate", "config": {"checkpoint": "runs/reference-1", "split": "test"}},
    },
    "reconstruct": {
        "summary": "Make a volume of a scan's rows",
        "value": {
            "kind": "reconstruct",
            "config": {"checkpoint": "runs/reference-1", "data": {"dir": "data/scan"}, "out": "data/volume.h5"},
        },
    },
}


def digest(body: JobRequest) -> str:
    """A hash of what a request asks for."""
    return hashlib.sha256(json.dumps(_as_json(body), sort_keys=True).encode()).hexdigest()


def new_job(body: JobRequest, storage: str, key: str | None, places: Places) -> Job:
    """The job that a request asks for, with an id and absolute paths, and with a name and a storage where it has none.

    Args:
        body: the request.
        storage: where the results go unless the request says so.
        key: the idempotency key of the request.
        places: those that it may name.

    Raises:
        Problem: 413, the configuration is too long.
        ConfigError: it names a place that the service may not use, or holds what no file can.
    """
    id = secrets.token_hex(5)
    request = _as_json(body)
    pack(request)
    config: dict[str, Any] = request.setdefault("config", {})
    if isinstance(body, EvaluateJob):
        if body.config.submission is not None:
            raise ConfigError("a job writes no submission; use python -m fbp_ray.evaluate --submission FILE.zip")
        place = config["out"] = _place(config.get("out"), f"{storage}/evaluate-{id}", places)
        config["checkpoint"] = places.resolve_model(config["checkpoint"])
    elif isinstance(body, ReconstructJob):
        place = config["out"] = places.resolve(config["out"])
        if config.get("checkpoint"):
            config["checkpoint"] = places.resolve_model(config["checkpoint"])
    else:
        part = config.setdefault("run" if isinstance(body, TrainJob) else "sweep", {})
        part["name"] = part.get("name") or f"{body.kind}-{id}"
        part["storage"] = _place(part.get("storage"), storage, places)
        place = places.resolve(f"{without_secrets(part['storage'])}/{part['name']}")  # it may be a link
        if config.get("init", {}).get("checkpoint"):
            config["init"]["checkpoint"] = places.resolve_model(config["init"]["checkpoint"])
    if config.get("data", {}).get("dir"):
        config["data"]["dir"] = places.resolve(config["data"]["dir"])
    pack(request)
    return Job(id=id, kind=body.kind, request=request, place=place, key=key, digest=digest(body))


def _place(given: str | None, otherwise: str, places: Places) -> str:
    """A place that a request gives, or that of the settings, which may have options."""
    return otherwise if given in (None, otherwise) else places.resolve(str(given))


def _as_json(body: JobRequest) -> dict[str, Any]:
    """A request that can be shown again, and be an argument of a program.

    Raises:
        ConfigError: it holds text that is not UTF-8, or that has a NUL, or numbers that are not finite.
    """
    if not _is_plain(body.model_dump()):
        raise ConfigError("a configuration has numbers that are finite, and text without NUL and lone surrogates")
    return body.model_dump(mode="json", exclude_unset=True) | {"kind": body.kind}


def _is_plain(value: Any) -> bool:
    """Whether a value comes back from JSON as it is, and may be part of an argument of a program."""
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, str | Path):
        return "\0" not in str(value) and str(value).encode("utf-8", "replace").decode() == str(value)
    return not isinstance(value, float) or math.isfinite(value)


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
    checkpoint = find_checkpoint(places.open_model(config.checkpoint))
    manifest = read_manifest(checkpoint)
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
        refuse_own(read_manifest(places.open_model(config.checkpoint)).model.own_code, own)
    Partial(config.out).check(make_plan(config))


def _check_settings(config: TrainConfig, local: bool, places: Places) -> None:
    """Checks settings and data, as far as the data are here. The sample data are made by the job itself."""
    from fbp_ray.checkpoint import read_manifest
    from fbp_ray.train.program import check, check_settings, resolve

    folder = config.data.dir
    if folder is not None and (local or folder.is_dir()):
        if config.init.checkpoint is not None:
            read_manifest(places.open_model(config.init.checkpoint))
        _refuse_links(folder, places)
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


def command(python: str, kind: Kind) -> str:
    """The shell line that Ray runs for a job of this kind, with the Python interpreter of the service's settings."""
    return f"{shlex.quote(python)} -m service.jobs.program {kind}"


def pack(request: dict[str, Any]) -> str:
    """A request as the value of the variable; raises Problem 413 where it is too long."""
    content = json.dumps(request).encode()
    if len(content) > MAX_BYTES:
        raise Problem(
            413,
            f"the configuration takes {len(content)} bytes, more than {MAX_BYTES}; a configuration has at most "
            f"{MAX_BYTES} bytes",
        )
    return base64.b64encode(content).decode()


def main(argv: Sequence[str]) -> None:
    """Trains, sweeps, evaluates or reconstructs inside a job, as the package's program does with the same settings.

    Raises:
        FbpRayError: what that program raises; ConfigError where the environment has no configuration.
    """
    try:
        (kind,) = argv
        request = json.loads(base64.b64decode(os.environ.pop(VARIABLE), validate=True))
        config = request["config"]
        if kind not in get_args(Kind):
            raise ValueError(f"there is no kind {kind}")
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"this is for jobs of the service: a kind ({', '.join(get_args(Kind))}), and its configuration in "
            f"{VARIABLE} ({type(error).__name__}: {error}); use python -m fbp_ray.train, a program in sweeps/, python "
            "-m fbp_ray.evaluate or python -m fbp_ray.reconstruct"
        ) from None
    if kind == "train":
        from fbp_ray.train.program import train

        train(on_recipe(TrainConfig, config, instead=own_settings))
    elif kind == "sweep":
        from fbp_ray.sweep.program import run_sweep

        space = request["space"]
        run_sweep(import_module(f"sweeps.{space}").SPACE, on_recipe(SweepTree, config), f"sweeps/{space}.py")
    elif kind == "reconstruct":
        from fbp_ray.reconstruct.program import reconstruct

        reconstruct(ReconstructConfig.model_validate(config))
    else:
        from fbp_ray.evaluate.program import evaluate

        evaluate(EvaluateConfig.model_validate(config))


if __name__ == "__main__":
    run_program(main)
