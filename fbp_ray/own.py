"""Code of somebody's own by dotted name: windows, networks, loss terms and metrics; see docs/your-own-code.md.

    --window.kind my_package.windows:Median --window.options size=5

A window is a `torch.nn.Module` that maps a sinogram (B, A, D) to a filtered one, as `fbp_ray.filters` says, a network
one that maps an image (B, H, W) to an image. Both are made with the geometry and their settings: `Median(geometry,
settings)`. A loss term is a function of prediction and target, both (B, H, W), that gives a scalar, a metric one that
gives a figure for each image, (B,); where it has settings it is a class, made with them, whose instances are called.
Settings are those of the class's own pydantic model `Settings`; a class without one takes no options.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from fbp_ray.config import MetricsConfig
from fbp_ray.errors import ConfigError
from fbp_ray.geometry import ParallelBeam
from fbp_ray.own_names import own_title
from fbp_ray.settings import Frozen, explain

PAGE = "see docs/your-own-code.md"
STAGE = f"a stage is a subclass of torch.nn.Module that is made as CLASS(geometry, settings): {PAGE}"
FIGURE = f"a loss term or a metric is a function of (prediction, target), or a class that makes one: {PAGE}"
Figure = Callable[[Tensor, Tensor], Tensor]
Options = Mapping[str, dict[str, Any]]


def own_stage(name: str, options: dict[str, Any], geometry: ParallelBeam) -> nn.Module:
    """The window or network that `PACKAGE.MODULE:CLASS` names, for this geometry.

    Raises:
        ConfigError: the module is not installed or cannot be imported, the name is no stage, or an option does not fit.
    """
    found = _find(name, STAGE)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ConfigError(f"{name} is {found!r}; {STAGE}")
    stage: nn.Module = _make(found, name, options, STAGE, geometry)
    return stage


def own_term(name: str, options: Options) -> Figure:
    """The loss term that `PACKAGE.MODULE:NAME` names; raises as `own_stage` does, and where it gives no scalar."""
    term = _figure(name, json.dumps(options.get(name, {})))
    return lambda prediction, target: _checked(term(prediction, target), torch.Size(), name)


def own_metrics(config: MetricsConfig) -> dict[str, Figure]:
    """The metrics that the settings name, by their titles; raise as `own_term` does, where one gives no (B,)."""

    def metric(name: str) -> Figure:
        figure = _figure(name, json.dumps(config.options.get(name, {})))
        return lambda prediction, target: _checked(figure(prediction, target), target.shape[:1], name)

    return {own_title(name): metric(name) for name in config.own}


def typed_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as what the class's `Settings` make of them; raises as `own_stage` does."""
    found = _find(name, PAGE)
    return _settings(found, name, options, PAGE).model_dump(mode="json", exclude_unset=True)


@lru_cache(maxsize=32)  # made once, not at every step
def _figure(name: str, options: str) -> Figure:
    found = _find(name, FIGURE)
    if isinstance(found, type):
        found = _make(found, name, json.loads(options), FIGURE)
    elif options != "{}":
        raise ConfigError(f"{name} is a function, which takes no options; {FIGURE}")
    if not callable(found):
        raise ConfigError(f"{name} is {found!r}; {FIGURE}")
    return found  # type: ignore[no-any-return]


def _checked(value: Any, shape: torch.Size, name: str) -> Tensor:
    if isinstance(value, Tensor) and value.shape == shape:
        return value
    came = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    expected = "a figure for each image, a tensor" if shape else "a scalar, a tensor"
    raise ConfigError(f"{name} gave {came:.80} instead of {expected} {tuple(shape)}; {FIGURE}")


def _find(name: str, what: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # the module may raise anything
        raise ConfigError(
            f"{name} cannot be imported: {type(error).__name__}: {error}; install the package of the module {module} "
            "here and wherever Ray's workers run, or add its folder to PYTHONPATH"
        ) from None
    if found is None:
        raise ConfigError(f"the module {module} has no {attribute}; {what}")
    return found


def _settings(found: Any, name: str, options: dict[str, Any], what: str) -> BaseModel:
    settings = getattr(found, "Settings", Frozen)
    if not (isinstance(settings, type) and issubclass(settings, BaseModel)):
        raise ConfigError(f"{name}.Settings is {settings!r}, not a pydantic model; {what}")
    try:
        return settings.model_validate(options)
    except ValidationError as error:
        known = ", ".join(settings.model_fields) or "none"
        why = explain(error, settings).replace("; --help lists them", "").replace("--", "")  # they are no options
        raise ConfigError(f"the options of {name} ({known}) do not hold: {why}") from None


def _make(found: type, name: str, options: dict[str, Any], what: str, *arguments: Any) -> Any:
    given = _settings(found, name, options, what)
    try:
        return found(*arguments, given)
    except Exception as error:  # somebody's own code may raise anything
        raise ConfigError(f"{name} cannot be made: {type(error).__name__}: {error}; {what}") from error
