"""The recipes that come with the package, and what sweeps search, over HTTP: a form shows what is used in the end."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, get_args

from fastapi import APIRouter
from pydantic import BaseModel, Field

from fbp_ray.cli import on_recipe, recipe_names
from fbp_ray.config import TrainConfig
from fbp_ray.settings import flatten
from service.access import Operate
from service.jobs.program import SpaceName
from service.problems import documented

router = APIRouter(prefix="/recipes", tags=["jobs"], dependencies=[Operate])


class RecipeDocument(BaseModel):
    """A recipe."""

    name: str
    settings: dict[str, Any] = Field(
        description="the settings in which it differs from the defaults of the schema, by their dotted names"
    )


class RecipeList(BaseModel):
    """The recipes, by name."""

    recipes: list[RecipeDocument]
    searched: dict[str, list[str]] = Field(
        description="the settings that a sweep of a space gives to its trials, by the name of the space"
    )


@cache
def _recipes() -> RecipeList:
    defaults = flatten(TrainConfig().model_dump(mode="json"))
    found = []
    for name in recipe_names():
        settings = flatten(on_recipe(TrainConfig, {"recipe": name}).model_dump(mode="json"))
        own = {key: value for key, value in settings.items() if key != "recipe" and value != defaults.get(key)}
        found.append(RecipeDocument(name=name, settings=own))
    searched = {name: list(import_module(f"sweeps.{name}").SPACE) for name in get_args(SpaceName)}
    return RecipeList(recipes=found, searched=searched)


@router.get("", summary="List recipes", responses=documented(401, 403))
async def list_recipes() -> RecipeList:
    """What a training or a sweep starts from: the value of `recipe`, and what it sets."""
    return _recipes()
