"""The routes of the models."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from service.access import Operate, Reconstruct
from service.documents import Activation, ModelDocument, ModelList
from service.engine import CLASSIC
from service.model_registry import ModelRegistry
from service.problems import documented

router = APIRouter(tags=["models"])
Name = Annotated[str, Path(description="the model's name", max_length=64, examples=["best"])]


def _catalogue(request: Request) -> ModelRegistry:
    catalogue: ModelRegistry = request.app.state.catalogue
    return catalogue


@router.get("/models", dependencies=[Reconstruct], responses=documented(401, 403))
def list_models(request: Request) -> ModelList:
    """The models that serve."""
    choice = request.app.state.settings.models
    return ModelList(
        models=_catalogue(request).documents(), without_model=f"{CLASSIC}: {choice.window}, cut-off {choice.cutoff:g}"
    )


@router.get("/models/{name}", dependencies=[Reconstruct], responses=documented(401, 403, 404, 422))
def get_model(request: Request, name: Name) -> ModelDocument:
    """One model: geometry, shapes, unit, training data, metrics, checksum."""
    return _catalogue(request).document(name)


@router.post("/models/{name}/activate", dependencies=[Operate], responses=documented(400, 401, 403, 413, 422, 503))
def activate_model(request: Request, name: Name, activation: Activation) -> ModelDocument:
    """Loads a model, verifies it on the built-in phantom, and then serves it; on any failure the old one serves on."""
    return _catalogue(request).activate(name, activation.source)


@router.delete("/models/{name}", dependencies=[Operate], status_code=204, responses=documented(401, 403, 404, 422))
def forget_model(request: Request, name: Name) -> Response:
    """Ends serving a model; `best` is then again that of the newest completed run."""
    _catalogue(request).forget(name)
    return Response(status_code=204)
