"""What all programs of the package share: settings from a command line, messages from errors, and progress.

Settings come from several layers: the defaults, a recipe, a YAML file, the environment and the command line. Where two
layers give the same setting, the later one wins. Only the settings of all layers together are validated.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, create_model
from pydantic_settings import BaseSettings, CliSettingsSource, DotEnvSettingsSource, EnvSettingsSource, SettingsError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fbp_ray.errors import ConfigError, FbpRayError
from fbp_ray.settings import NO_FILE, SettingsFile, as_text, expand_home, explain, no_such, option_names
from fbp_ray.versions import unmet_requirements

Config = TypeVar("Config", bound=BaseModel)
Instead = Callable[[dict[str, Any]], dict[str, Any] | None]
FRAGILE = ("ray", "torch", "numba", "llvmlite")


def run_program(main: Callable[[Sequence[str]], None]) -> None:
    """Runs `main` on the command line. An `FbpRayError` becomes a message on stderr and an exit code.

    Packages whose next release may change what this one relies on are named in a line first, if they are not of the
    versions that were tested.
    """
    for text in unmet_requirements(FRAGILE).values():
        print(f"warning: {text}", file=sys.stderr)
    try:
        main(sys.argv[1:])
    except FbpRayError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt as stopped:
        print(str(stopped) or "interrupted", file=sys.stderr)
        sys.exit(130)


def parse(model: type[Config], argv: Sequence[str], program: str) -> Config:
    """The options of a command line as a `model`: `--name value`, nested fields as `--part.name value`.

    Raises:
        ConfigError: an option that does not exist, or a value that the model refuses.
        SystemExit: `--help`.
    """
    return _validate(model, _options(_settings(model), argv, program))


def parse_with_recipe(
    model: type[Config],
    argv: Sequence[str],
    program: str,
    instead: Instead = lambda values: None,
    usual: Mapping[str, Any] = MappingProxyType({}),
) -> Config:
    """Like `parse`, on top of `--recipe NAME` (shipped with the package) and `--config FILE` (YAML); the later wins.

    `instead` and `usual` are as for `on_recipe`.
    """
    options = _options(_settings(model, config_file=True), argv, program)
    file = _config_file(options)
    return on_recipe(model, _merge(file.settings, options), file, instead, usual)


def on_recipe(
    model: type[Config],
    values: dict[str, Any],
    file: SettingsFile = NO_FILE,
    instead: Instead = lambda values: None,
    usual: Mapping[str, Any] = MappingProxyType({}),
) -> Config:
    """Settings on top of the recipe that they name.

    Args:
        model: what to fill.
        values: the settings that are given.
        file: some of them come from it.
        instead: what gives settings that take the place of the recipe, for settings that want it.
        usual: settings of the program on top of the recipe's.

    Raises:
        ConfigError: a value that the model refuses, or a recipe that does not exist.
    """
    recipe = str(values.get("recipe", model.model_fields["recipe"].default))
    start = instead(values) or _merge({"recipe": recipe, **read_recipe(recipe)}, usual)
    return _validate(model, _merge(start, values), file)


def parse_with_environment(model: type[Config], argv: Sequence[str], program: str, prefix: str) -> Config:
    """Like `parse`, on top of `--config FILE` (YAML), a file `.env` here and the environment; the later wins.

    Args:
        model: what to fill.
        argv: the command line.
        program: how the program is called, for its help.
        prefix: of the variables: PREFIX_NAME is a field, PREFIX_PART__NAME a nested one, PREFIX_CONFIG the file.

    Raises:
        ConfigError: a value that the model refuses, a file that cannot be read, or a variable that means no setting.
    """
    settings = _settings(model, config_file=True)
    options = _options(settings, argv, program)
    names: dict[str, Any] = {"env_prefix": f"{prefix}_", "env_nested_delimiter": "__"}
    try:
        environment = EnvSettingsSource(settings, **names)()
        dotenv = DotEnvSettingsSource(
            settings, env_file=Path(".env"), env_file_encoding="utf-8-sig", dotenv_filtering="match_prefix", **names
        )()
    except SettingsError as error:
        raise ConfigError(f'{error}: {error.__cause__}; a list is given as JSON: \'["one", "two"]\'') from None
    except UnicodeDecodeError:
        raise ConfigError("the file .env is not text in UTF-8; save it as UTF-8") from None
    known = {f"{prefix}_{name}".upper() for name in settings.model_fields}
    for name in os.environ:
        if name.startswith(f"{prefix}_") and name.split("__")[0].upper() not in known:
            raise ConfigError(f"the environment has {name}, which is no setting; unset it, or see --help for the names")
    given = _merge(_merge(dotenv, environment), options)
    file = _config_file(given)
    return _validate(model, _merge(file.settings, given), file)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Gives a function to call with the number of things done since the last call."""
    console = Console()
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=total)
            yield lambda count: bar.advance(task, count)
        return

    done = 0

    def advance(count: int) -> None:
        nonlocal done
        if (done + count) * 10 // total > done * 10 // total:
            print(f"{what}: {done + count} of {total}", flush=True)
        done += count

    yield advance


def clock(seconds: float) -> str:
    """0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def recipe_names() -> list[str]:
    """The recipes that ship with the package."""
    folder = resources.files("fbp_ray") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe that ships with the package."""
    file = resources.files("fbp_ray") / "recipes" / f"{name}.yaml"
    if not name.replace("-", "").isalnum() or not file.is_file():
        known = ", ".join(recipe_names())
        raise ConfigError(f"--recipe: no recipe is called {name!r}; there are {known}. For a file use --config FILE")
    return _parse_yaml(file.read_text(encoding="utf-8"), name)


def _parse_yaml(text: str, name: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{name} should hold a mapping such as 'optim: {{lr: 0.001}}', but holds a {type(content)}")
    return content


def _settings(model: type[BaseModel], config_file: bool = False) -> type[BaseSettings]:
    """The fields of a model, and `config` where asked for, in a class that the sources of pydantic-settings take."""
    fields: Any = {name: (field.annotation, field) for name, field in model.model_fields.items()}
    if config_file:
        description = "YAML file with settings that take the place of the recipe's"
        fields["config"] = (Path | None, Field(default=None, description=description))
    return create_model(model.__name__, __base__=BaseSettings, __doc__=model.__doc__, **fields)


def _options(settings: type[BaseSettings], argv: Sequence[str], program: str) -> dict[str, Any]:
    """What the command line gives, as nested dictionaries that are not validated yet."""
    try:
        source: CliSettingsSource[Any] = CliSettingsSource(
            settings,
            cli_prog_name=program,
            cli_parse_args=[_underscored(option) for option in _joined(argv)],
            cli_implicit_flags=True,
            cli_avoid_json=True,
            cli_hide_none_type=True,
            cli_use_class_docs_for_groups=True,
            cli_exit_on_error=False,  # it would print the usage, all options, before the line that helps
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        return source()
    except SettingsError as error:
        raise ConfigError(_what_is_wrong(str(error).removeprefix("error parsing CLI: "), settings)) from None


def _what_is_wrong(error: str, settings: type[BaseSettings]) -> str:
    """The message for an error of the parser of command lines."""
    if pair := re.match(r"Parsing error encountered for ([\w.]+): not enough values to unpack", error):
        return f"--{pair[1]}: takes NAME=VALUE, and values with commas or brackets as JSON: '{{\"NAME\": [1, 2]}}'"
    unknown = error.removeprefix("unrecognized arguments: ")
    if unknown == error:
        return error.removeprefix("argument ").replace("expected one argument", "a value is missing")
    names = [word.split("=")[0] for word in unknown.split() if word.startswith("--")]
    known = option_names(settings)
    lines = [f"{name}: {no_such('option', name.removeprefix('--'), known)}" for name in names]
    return "\n       ".join(lines) or f"{unknown!r} belongs to no option; an option is --name value, --help lists them"


def _joined(argv: Sequence[str]) -> list[str]:
    """`A,B` for numbers `A B` in a row, which an option for a range takes; negative ones are no options."""
    words: list[str] = []
    for word in argv:
        last = words[-1] if words else ""
        if _is_number(word) and _is_number(re.split("[=,]", last)[-1]):
            words[-1] += f",{word}"
        elif word.startswith("-") and last.startswith("--") and all(map(_is_number, word.split(","))):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _underscored(option: str) -> str:
    """`--root_path` for `--root-path`; what is no option, and `--no-OPTION`, as it is."""
    name, equals, value = option.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}" if name.startswith("--") and name[:5] != "--no-" else option


def _config_file(values: dict[str, Any]) -> SettingsFile:
    """Takes `config` out of the settings, and reads the YAML file that it names."""
    path = values.pop("config", None)
    if path is None:
        return NO_FILE
    try:
        text = as_text(Path(expand_home(str(path))).read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error}") from None
    return SettingsFile(str(path), _parse_yaml(text, str(path)))


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        merged[key] = _merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def _validate(model: type[Config], values: dict[str, Any], file: SettingsFile = NO_FILE) -> Config:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, model, file)) from None
