"""Whether the service lives, whether it is ready, and its figures for Prometheus."""

from __future__ import annotations

from importlib import metadata
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from service.access import Reconstruct
from service.problems import Problem, documented

VERSION = metadata.version("fbp-ray")
router = APIRouter(tags=["operations"])


class Health(BaseModel):
    """How the service is."""

    status: Literal["live", "ready"]
    version: str = VERSION


@router.get("/health/live")
async def live() -> Health:
    """The process answers."""
    return Health(status="live")


@router.get("/health/ready", responses=documented(503))
async def ready(request: Request) -> Health:
    """Models are loaded and warm, and the service is not about to end; until then 503 and the reason."""
    reason = "the service is about to end" if request.app.state.closing.is_set() else None
    reason = reason or request.app.state.catalogue.waiting_for
    if reason is not None:
        raise Problem(503, f"not ready: {reason}", {"Retry-After": "2"})
    return Health(status="ready")


@router.get(
    "/metrics",
    dependencies=[Reconstruct],
    response_class=Response,
    responses={200: {"description": "text for Prometheus", "content": {"text/plain": {}}}, **documented(401, 403)},
)
async def metrics(request: Request) -> Response:
    """Requests, latency, batch sizes, queue, model versions, job counts."""
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)
