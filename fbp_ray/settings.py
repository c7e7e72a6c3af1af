"""What all settings have in common: frozen pydantic models, their names on a command line, their errors as messages."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError
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


def cache_folder() -> Path:
    """Where fetched packages and what was found of data are kept; raises RuntimeError where there is no home folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fbp-ray"


def _no_uri(value: Any) -> Any:
    """A path would lose one of the slashes of a URI, and be another's."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(value)):  # a Path has lost one of the slashes
        raise ValueError("must be a path on a disk of this machine, not a URI; copy what is in an object store")
    return value


LocalPath = Annotated[Path, BeforeValidator(_no_uri), AfterValidator(lambda path: Path(expand_home(str(path))))]
"""A setting that is a path on this machine; `~` is the home folder."""

PlaceName = Annotated[str, AfterValidator(expand_home)]
"""A setting that is a path or a URI, as `fbp_ray.storage.open_folder` takes it; `~` is the home folder."""


def as_text(content: bytes) -> str:
    """The text of a file in UTF-8, with or without a byte-order mark; raises ValueError for another encoding."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8; save it as UTF-8") from None


class Frozen(BaseModel):
    """A value: its fields never change, and it refuses fields that it does not have."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by the names that they have on the command line, such as `optim.lr`."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def as_json(content: Any) -> str:
    """Text that every reader of JSON takes: a number that is not finite, which JSON does not have, is null."""

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: finite(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [finite(inner) for inner in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(content), indent=2)


class SettingsFile(NamedTuple):
    """The settings in a file, and its name for messages."""

    name: str
    settings: dict[str, Any]


NO_FILE = SettingsFile("", {})

PLAIN = {
    "missing": "is needed, but was not given",
    "int_": "must be a whole number",
    "float_": "must be a number",
    "bool_": "must be true or false",
    "string_type": "must be text",
    "path_type": "must be the name of a file or a folder",
    "string_pattern_mismatch": "must be letters, digits and . _ - alone, must begin with a letter or a digit, and must "
    "not be long",
    "model_": "has settings of its own, and no value; --help lists them",
    "dict_": "has settings of its own, and no value; --help lists them",
}
"""What errors of pydantic say to a person, by the begin of their type. The only pattern is that of names."""


def explain(error: ValidationError, model: type[BaseModel] | None = None, file: SettingsFile = NO_FILE) -> str:
    """A pydantic error as lines: the option, what is wrong, what came, and from which file.

    Args:
        error: names the settings.
        model: has them. The values of its secrets are not shown, and beside a misspelt name stands the nearest one.
        file: some of the settings came from it.
    """
    fields = _fields(model) if model else {}
    secrets = [name for name, field in fields.items() if "SecretStr" in repr(field.annotation)]
    found: dict[tuple[str, str], list[str]] = {}  # messages by option and origin: a setting of several types has many
    for item in error.errors(include_url=False, include_context=False):
        place, given = item["loc"], item["input"]
        unknown = item["type"] == "extra_forbidden"
        while not unknown and fields and place and _option(place) not in fields:  # one of the types of the setting
            place = place[:-1]
        option = _option(place)
        message = no_such("setting", option, fields) if unknown else _in_plain_words(item["type"], item["msg"])
        if item["type"] == "missing" and isinstance(place[-1], int):
            message = "has too few values"
        secret = any(f"{option}.".startswith(f"{name}.") for name in secrets)
        origin = [] if unknown or secret or isinstance(given, dict | BaseModel) else [f"got {given!r}"]
        if _contains(file.settings, place, given):
            origin.append(f"in {file.name}")
        found.setdefault((option, f" ({', '.join(origin)})" if origin else ""), []).append(message)
    lines = []
    for (option, came), messages in found.items():
        first, *others = dict.fromkeys(messages)
        message = " or ".join([first, *(other.removeprefix("must be ") for other in others)])
        lines.append(f"--{option}: {message}{came}" if option else f"{message}{came}")
    return "\n       ".join(lines)


def explain_json(error: ValidationError) -> str:
    """The first thing that is wrong about the content of a JSON file: where, what, and what came."""
    first = error.errors(include_url=False, include_context=False)[0]
    kind, place, given = first["type"], ".".join(map(str, first["loc"])), first["input"]
    message = _of_json(kind, first["msg"]).replace("Invalid JSON", "is not JSON")
    came = "" if kind in ("json_invalid", "missing") or isinstance(given, dict) else f" (got {given!r:.60})"
    return f"{place}: {message}{came}" if place else f"{message}{came}"


def what_is_wrong(error: Exception, model: type[BaseModel] | None = None) -> str:
    """What is wrong about the content of a file, in words of which none stands in it: others may read the message.

    Args:
        error: of reading it.
        model: of the content; the fields that it has are named.
    """
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        place, fields = list(first["loc"]), _fields(model) if model else {}
        while place and ".".join(map(str, place)) not in fields:
            place.pop()
        fault = "is not JSON" if first["type"] == "json_invalid" else "is not as it should be"
        whole = len(place) == len(first["loc"])  # or it is about something that stands in the file
        return f"{'.'.join(map(str, place)) or 'it'} {_of_json(first['type'], fault) if whole else fault}"
    if isinstance(error, OSError | json.JSONDecodeError):
        return str(error)
    return "it is not as it should be" + ("" if type(error) is ValueError else f" ({type(error).__name__})")


def _of_json(kind: str, message: str) -> str:
    """The message of an error of pydantic about a JSON file in plain words."""
    if kind.startswith(("model_", "dict_")):
        return "must be an object, {..}"
    return "is not known here" if kind == "extra_forbidden" else _in_plain_words(kind, message)


def no_such(what: str, name: str, known: Collection[str]) -> str:
    """What is wrong about a name that is not known, and the known one that is nearest."""
    nearest = "".join(f", the nearest is --{found}" for found in get_close_matches(name, known, n=1))
    return f"there is no such {what}{nearest}; --help lists them"


def option_names(model: type[BaseModel]) -> list[str]:
    """The names that the settings of a model have on the command line."""
    return list(_fields(model))


def _option(place: Sequence[int | str]) -> str:
    return ".".join(part for part in place if isinstance(part, str))


def _in_plain_words(kind: str, message: str) -> str:
    """The message of an error of pydantic without the words of a library."""
    for start, plain in PLAIN.items():
        if kind.startswith(start):
            return plain
    return message.removeprefix("Value error, ").replace("Input should be", "must be")


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
