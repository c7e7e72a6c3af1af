"""The recipes that come with the package, over HTTP: a form shows what is used where nothing is given."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from fbp_ray.cli import on_recipe, recipe_names
from fbp_ray.config import TrainConfig
from fbp_ray.settings import flatten
from service.access import Operate
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


@cache
def _recipes() -> RecipeList:
    defaults = flatten(TrainConfig().model_dump(mode="json"))
    found = []
    for name in recipe_names():
        settings = flatten(on_recipe(TrainConfig, {"recipe": name}).model_dump(mode="json"))
        own = {key: value for key, value in settings.items() if key != "recipe" and value != defaults.get(key)}
        found.append(RecipeDocument(name=name, settings=own))
    return RecipeList(recipes=found)


@router.get("", summary="List recipes", responses=documented(401, 403))
async def list_recipes() -> RecipeList:
    """What a training or a sweep starts from: the value of `recipe`, and what it sets."""
    return _recipes()
