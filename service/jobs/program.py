"""What a job does: the request for it, completed, handed to Ray, and carried out inside the job.

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
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from fbp_ray.cli import on_recipe, run_program
from fbp_ray.config import TrainConfig
from fbp_ray.errors import ConfigError
from fbp_ray.evaluate import EvaluateConfig
from fbp_ray.reconstruct import ReconstructConfig
from fbp_ray.run import own_settings
from fbp_ray.settings import Frozen
from fbp_ray.sweep.config import SweepTree
from service.jobs.documents import Kind
from service.jobs.store import Job
from service.places import Places, without_secrets
from service.problems import Problem

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
        place = config["out"] = _place("out", config.get("out"), f"{storage}/evaluate-{id}", places)
        config["checkpoint"] = _named("checkpoint", config["checkpoint"], places.resolve_model)
    elif isinstance(body, ReconstructJob):
        place = config["out"] = _named("out", config["out"], places.resolve)
        if config.get("checkpoint"):
            config["checkpoint"] = _named("checkpoint", config["checkpoint"], places.resolve_model)
    else:
        about = "run" if isinstance(body, TrainJob) else "sweep"
        part = config.setdefault(about, {})
        part["name"] = part.get("name") or f"{body.kind}-{id}"
        part["storage"] = _place(f"{about}.storage", part.get("storage"), storage, places)
        inside = f"{without_secrets(part['storage'])}/{part['name']}"
        place = _named(f"{about}.name", inside, places.resolve)  # it may be a link
        if config.get("init", {}).get("checkpoint"):
            start = config["init"]
            start["checkpoint"] = _named("init.checkpoint", start["checkpoint"], places.resolve_model)
    if config.get("data", {}).get("dir"):
        config["data"]["dir"] = _named("data.dir", config["data"]["dir"], places.resolve)
    pack(request)
    return Job(id=id, kind=body.kind, request=request, place=place, key=key, digest=digest(body))


def _place(setting: str, given: str | None, otherwise: str, places: Places) -> str:
    """A place that a request gives, or that of the settings, which may have options."""
    return otherwise if given in (None, otherwise) else _named(setting, str(given), places.resolve)


def _named(setting: str, place: str, resolve: Callable[[str], str]) -> str:
    """A place as `resolve` has it; an error names the setting that it comes from."""
    try:
        return resolve(place)
    except ConfigError as error:
        raise ConfigError(f"--{setting}: {error}") from None


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
