"""From a command line to a configuration, and from an error to a message: what all programs of the package share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    DotEnvSettingsSource,
    EnvSettingsSource,
    SettingsError,
)

from fbp_ray.errors import ConfigError, FbpRayError
from fbp_ray.settings import explain

Config = TypeVar("Config", bound=BaseModel)


def run_program(main: Callable[[Sequence[str]], None]) -> None:
    """Runs `main` on the command line; an `FbpRayError` becomes one message on stderr and an exit code."""
    try:
        main(sys.argv[1:])
    except FbpRayError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def parse(model: type[Config], argv: Sequence[str], program: str) -> Config:
    """The options of a command line as a `model`: `--name value`, nested fields as `--part.name value`.

    Raises:
        ConfigError: a value that the model refuses.
        SystemExit: `--help` (0), or an option that does not exist (2).
    """
    return _validate(model, _options(model, argv, program))


def parse_with_recipe(model: type[Config], argv: Sequence[str], program: str) -> Config:
    """The same, on top of `--recipe NAME` (shipped with the package) and `--config FILE` (YAML); the later wins."""
    options = _options(_with_config_file(model), argv, program)
    path = options.pop("config", None)
    from_file = read_yaml(Path(path)) if path is not None else {}
    return on_recipe(model, _merge(from_file, options))


def on_recipe(model: type[Config], values: dict[str, Any]) -> Config:
    """Settings on top of the recipe that they name.

    Raises:
        ConfigError: a value that the model refuses, or a recipe that there is not.
    """
    recipe = str(values.get("recipe", model.model_fields["recipe"].default))
    return _validate(model, _merge(_merge({"recipe": recipe}, read_recipe(recipe)), values))


def parse_with_environment(model: type[Config], argv: Sequence[str], program: str, prefix: str) -> Config:
    """The same, on top of `--config FILE` (YAML), of a file `.env` here and of the environment; the later wins.

    Args:
        model: what to fill.
        argv: the command line.
        program: as it is called.
        prefix: of the variables: a field is PREFIX_NAME, one of a part is PREFIX_PART__NAME, the file PREFIX_CONFIG.

    Raises:
        ConfigError: a value that the model refuses, a file that cannot be read, or a variable that means no setting.
    """
    with_file = _with_config_file(model)
    options = _options(with_file, argv, program)
    settings = _settings(with_file)
    names: dict[str, Any] = {"env_prefix": f"{prefix}_", "env_nested_delimiter": "__"}
    try:
        environment = EnvSettingsSource(settings, **names)()
        dotenv = DotEnvSettingsSource(settings, env_file=Path(".env"), dotenv_filtering="match_prefix", **names)()
    except SettingsError as error:
        raise ConfigError(f'{error}: {error.__cause__}; a list is given as JSON: \'["one", "two"]\'') from None
    known = {f"{prefix}_{name}".upper() for name in with_file.model_fields}
    for name in os.environ:
        if name.startswith(f"{prefix}_") and name.split("__")[0].upper() not in known:
            raise ConfigError(f"the environment has {name}, which is no setting; unset it, or see --help for the names")
    given = _merge(_merge(dotenv, environment), options)
    path = given.pop("config", None)
    from_file = read_yaml(Path(path)) if path is not None else {}
    return _validate(model, _merge(from_file, given))


def read_recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe that ships with the package."""
    folder = resources.files("fbp_ray") / "recipes"
    file = folder / f"{name}.yaml"
    if not name.replace("_", "").isalnum() or not file.is_file():
        known = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
        raise ConfigError(f"no recipe is called {name!r}; there are {', '.join(known)}. For a file use --config FILE")
    return _parse_yaml(file.read_text(encoding="utf-8"), name)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping."""
    try:
        return _parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error}") from None


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


def _options(model: type[BaseModel], argv: Sequence[str], program: str) -> dict[str, Any]:
    """What the command line says, unvalidated, as a nested dictionary."""
    source: CliSettingsSource[Any] = CliSettingsSource(
        _settings(model),
        cli_prog_name=program,
        cli_parse_args=list(argv),
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_use_class_docs_for_groups=True,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return source()


def _settings(model: type[BaseModel]) -> type[BaseSettings]:
    """What the sources of pydantic-settings take for a model."""
    fields: Any = {name: (field.annotation, field) for name, field in model.model_fields.items()}
    return create_model(model.__name__, __base__=BaseSettings, __doc__=model.__doc__, **fields)


def _with_config_file(model: type[BaseModel]) -> type[BaseModel]:
    from pydantic import Field

    field = Field(default=None, description="YAML file with settings that take the place of the recipe's")
    fields: Any = {"config": (Path | None, field)}
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, **fields)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        merged[key] = _merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def _validate(model: type[Config], values: dict[str, Any]) -> Config:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, model)) from None
