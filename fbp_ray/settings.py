"""What all settings have in common: frozen pydantic models, their names on a command line, their errors as messages."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo


def this_python() -> str:
    """This Python as a command for the folder in which the program was started."""
    here = Path(sys.executable)
    if shutil.which("python") == str(here):
        return "python"
    return shlex.quote(str(here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here))


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


class SettingsFile(NamedTuple):
    """The settings in a file, and its name for messages."""

    name: str
    settings: dict[str, Any]


NO_FILE = SettingsFile("", {})


def explain(error: ValidationError, model: type[BaseModel] | None = None, file: SettingsFile = NO_FILE) -> str:
    """A pydantic error as lines: the option, what is wrong, what came, and from which file.

    Args:
        error: names the settings.
        model: has them. The values of its secrets are not shown, and beside a misspelt name stands the nearest one.
        file: some of the settings came from it.
    """
    fields = _fields(model) if model else {}
    secrets = [name for name, field in fields.items() if "SecretStr" in repr(field.annotation)]
    lines = []
    for item in error.errors(include_url=False, include_context=False):
        place, given = item["loc"], item["input"]
        option = ".".join(part for part in place if isinstance(part, str))
        message = item["msg"].removeprefix("Value error, ")
        unknown = item["type"] == "extra_forbidden"
        if unknown:
            nearest = "".join(f", the nearest is --{name}" for name in get_close_matches(option, fields, n=1))
            message = f"there is no such setting{nearest}; --help lists them"
        secret = any(f"{option}.".startswith(f"{name}.") for name in secrets)
        origin = [] if unknown or secret or isinstance(given, dict | BaseModel) else [f"got {given!r}"]
        if _contains(file.settings, place, given):
            origin.append(f"in {file.name}")
        message += f" ({', '.join(origin)})" if origin else ""
        lines.append(f"--{option}: {message}" if option else message)
    return "\n       ".join(lines)


def _fields(model: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """A model's fields, and those of the models in it, by the names that they have on the command line."""
    found = {}
    for name, field in model.model_fields.items():
        found[prefix + name] = field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= _fields(field.annotation, f"{prefix}{name}.")
    return found


def _contains(settings: Any, place: Sequence[int | str], value: Any) -> bool:
    for name in place:
        if not isinstance(settings, dict) or name not in settings:
            return False
        settings = settings[name]
    return bool(place) and settings == value
