"""Stages of one's own, by dotted name: `--window.kind my_package.windows:Median --window.options size=5`.

A window of one's own is a subclass of `torch.nn.Module` that maps a sinogram (B, A, D) to a filtered one, as
`fbp_ray.filters` says. It is made with the geometry and its settings: `Median(geometry, settings)`. The settings are
those of the class's own pydantic model `Settings`; a class without one takes no options.
"""

from __future__ import annotations

import importlib
from typing import Any

from pydantic import BaseModel, ValidationError
from torch import nn

from fbp_ray.errors import ConfigError
from fbp_ray.geometry import ParallelBeam
from fbp_ray.settings import Frozen, explain

WHAT = "a stage is a subclass of torch.nn.Module that is made as CLASS(geometry, settings): see docs/your-own-window.md"


def own_stage(name: str, options: dict[str, Any], geometry: ParallelBeam) -> nn.Module:
    """The stage that `PACKAGE.MODULE:CLASS` names, for this geometry.

    Raises:
        ConfigError: the module is not installed or cannot be imported, the name is no stage, or an option does not fit.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # the module may raise anything
        raise ConfigError(
            f"{name} cannot be imported: {type(error).__name__}: {error}; install the package of the module {module} "
            "here and wherever Ray's workers run, or add its folder to PYTHONPATH"
        ) from None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        what = f"the module {module} has no {attribute}" if found is None else f"{name} is {found!r}"
        raise ConfigError(f"{what}; {WHAT}")
    settings = getattr(found, "Settings", Frozen)
    if not (isinstance(settings, type) and issubclass(settings, BaseModel)):
        raise ConfigError(f"{name}.Settings is {settings!r}, not a pydantic model; {WHAT}")
    try:
        checked = settings.model_validate(options)
    except ValidationError as error:
        known = ", ".join(settings.model_fields) or "none"
        raise ConfigError(f"the options of {name} ({known}) do not hold: {explain(error, settings)}") from None
    try:
        stage: nn.Module = found(geometry, checked)
    except TypeError as error:
        raise ConfigError(f"{name} cannot be made: {error}; {WHAT}") from None
    return stage
