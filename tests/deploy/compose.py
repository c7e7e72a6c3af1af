"""Reading `compose.yaml` as the Compose specification says: overrides merged, variables replaced."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = DOCKER / "compose.yaml"
GPU = DOCKER / "compose.gpu.yaml"
_VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::-([^}]*))?\}")
_REPLACED = ("command", "entrypoint", "test")  # lists that an override takes the place of; others it adds to


def read_compose(*files: Path, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The compose files, each on top of the one before.

    Args:
        files: to read; compose.yaml by default.
        environment: values of the variables in them; by default those that they give themselves.
    """
    merged: dict[str, Any] = {}
    for file in files or (COMPOSE,):
        merged = _merge(merged, yaml.safe_load(file.read_text(encoding="utf-8")))
    return dict(_interpolate(merged, environment or {}))


def _merge(base: Any, over: Any, key: str = "") -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{name: _merge(base.get(name), value, name) for name, value in over.items()}}
    if isinstance(base, list) and isinstance(over, list) and key not in _REPLACED:
        return [*base, *over]
    return over


def _interpolate(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _interpolate(inner, environment) for key, inner in value.items()}
    if isinstance(value, list):
        return [_interpolate(inner, environment) for inner in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: environment.get(found[1]) or found[2] or "", value)
    return value
