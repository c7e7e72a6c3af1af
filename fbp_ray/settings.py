"""What all settings have in common: frozen pydantic models, their names on a command line, their errors as messages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError


def expand_home(place: str) -> str:
    """`~/runs` as a path in the home folder; any other path, or a URI, as it is."""
    return os.path.expanduser(place)  # noqa: PTH111  Path would drop a slash of `s3://`


LocalPath = Annotated[Path, AfterValidator(lambda path: Path(expand_home(str(path))))]
"""A setting that is a path on this machine; `~` is the home folder."""

PlaceName = Annotated[str, AfterValidator(expand_home)]
"""A setting that is a path or a URI, as `fbp_ray.storage.open_folder` takes it; `~` is the home folder."""


class Frozen(BaseModel):
    """A value: its fields never change, and it refuses fields that it does not have."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by the names that they have on the command line, such as `optim.lr`."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def explain(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """A pydantic error as lines: the option, what was wrong and what came, unless the field of `model` is a secret."""
    lines = []
    for item in error.errors(include_url=False, include_context=False):
        option = ".".join(part for part in item["loc"] if isinstance(part, str))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "there is no such setting; --help lists them"
        hidden = isinstance(item["input"], dict | BaseModel) or _is_secret(model, item["loc"])
        given = "" if hidden else f" (got {item['input']!r})"
        lines.append(f"--{option}: {message}{given}" if option else message)
    return "\n       ".join(lines)


def _is_secret(model: type[BaseModel] | None, place: Sequence[int | str]) -> bool:
    for name in place:
        field = model.model_fields.get(str(name)) if model else None
        if field is None:
            return False
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return "SecretStr" in repr(field.annotation)
        model = field.annotation
    return False
