"""Reading the Dockerfile: its stages, and their instructions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.deploy.compose import DOCKER

DOCKERFILE = DOCKER / "Dockerfile"


class Instruction(NamedTuple):
    """One of them."""

    name: str
    """FROM, RUN, .. in capitals"""

    text: str
    """What follows, in one line"""


class Stage(NamedTuple):
    """One stage."""

    base: str
    """The image, or the stage, that it begins with"""

    instructions: tuple[Instruction, ...]


def read_dockerfile(path: Path = DOCKERFILE) -> tuple[dict[str, str], dict[str, Stage]]:
    """The arguments before the first stage, and the stages by name."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    name = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages[name] = Stage(base, ())
        elif name:
            stage = stages[name]
            stages[name] = stage._replace(instructions=(*stage.instructions, Instruction(word, rest)))
        else:
            key, _, value = rest.partition("=")
            arguments[key] = value
    return arguments, stages


def environment_of(stages: Mapping[str, Stage], name: str) -> dict[str, str]:
    """The variables that a stage sets, with those of the stages that it begins with; `${NAME}` stays as it is."""
    if name not in stages:
        return {}
    found = environment_of(stages, stages[name].base)
    for instruction in stages[name].instructions:
        if instruction.name == "ENV":
            found |= dict(re.findall(r"([A-Z_]+)=(\S+)", instruction.text))
    return found


def last(stages: Mapping[str, Stage], name: str, instruction: str) -> Any:
    """What the last such instruction of a stage, or of those that it begins with, says; a list for one in JSON."""
    stage = stages[name]
    for found in reversed(stage.instructions):
        if found.name == instruction:
            text = found.text[found.text.index("[") :] if "[" in found.text else found.text
            return json.loads(text) if text.startswith("[") else text
    return last(stages, stage.base, instruction)
