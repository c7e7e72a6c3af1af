"""GET /access: what the caller may do, and how large what it sends may be."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from service.access import Reconstruct, role_of, token_of
from service.memory import MEGABYTE
from service.observability import VERSION
from service.problems import documented
from service.settings import Settings

router = APIRouter(tags=["operations"])


class AccessDocument(BaseModel):
    """What the caller may do."""

    role: Literal["reconstruct", "operate"] = Field(description="that of the token; without tokens `operate`")
    tokens: bool = Field(description="whether the service asks for tokens")
    version: str = Field(description="of the service")
    body_bytes: int = Field(description="the largest body, unpacked too")
    stack: int = Field(description="the most sinograms of a request")
    window: str = Field(description="of the classic FBP, unless a request names another")
    cutoff: float = Field(description="its cut-off, as a fraction of Nyquist's frequency")


@router.get("/access", dependencies=[Reconstruct], responses=documented(401, 403))
async def get_access(request: Request) -> AccessDocument:
    """The role of the caller, and the limits that hold for it."""
    settings: Settings = request.app.state.settings
    tokens = bool(settings.access.reconstruct or settings.access.operate)
    role = role_of(token_of(request.headers, settings), settings) if tokens else "operate"
    return AccessDocument(
        role=role or "reconstruct",
        tokens=tokens,
        version=VERSION,
        body_bytes=int(settings.limits.body_mb * MEGABYTE),
        stack=settings.limits.stack,
        window=settings.models.window,
        cutoff=settings.models.cutoff,
    )
