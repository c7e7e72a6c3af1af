"""Who may do what: bearer tokens have one of two roles, and pages of other sites get nothing."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.problems import Problem
from service.settings import Settings, is_loopback

Role = Literal["reconstruct", "operate"]
_ROLES: tuple[Role, ...] = ("reconstruct", "operate")  # the later may do all that the former may
_bearer = HTTPBearer(auto_error=False, description="a token of the service's settings; none is needed on loopback")


def require(role: Role) -> Callable[..., Awaitable[None]]:
    """A dependency that lets only callers with the role through.

    The others get 401 without a token or with an unknown one, and 403 with one that may not do this.
    """

    async def check(
        request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)] = None
    ) -> None:
        settings: Settings = request.app.state.settings
        access = settings.access
        if not (access.reconstruct or access.operate):
            _refuse_other_sites(request)
            return
        if given is None:
            raise Problem(
                401,
                f"this needs a token with the role {role}; send the header `Authorization: Bearer TOKEN`",
                {"WWW-Authenticate": "Bearer"},
            )
        found = role_of(given.credentials, settings)
        if found is None:
            raise Problem(
                401, "the token is not one of the service's", {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            )
        if _ROLES.index(found) < _ROLES.index(role):
            raise Problem(
                403, f"the token has the role {found}, but this needs {role}; ask the operator for such a token"
            )

    return check


def role_of(token: str, settings: Settings) -> Role | None:
    """The highest role of a token, None for an unknown one. It takes the same time whatever the token is."""
    found: Role | None = None
    for role in _ROLES:
        for known in getattr(settings.access, role):
            if hmac.compare_digest(token.encode(), known.get_secret_value().encode()):
                found = role
    return found


def _refuse_other_sites(request: Request) -> None:
    """Without tokens, a browser on this machine could call the service for any page that it shows; this stops it."""
    host = request.url.hostname or ""
    origin = request.headers.get("origin")
    allowed = origin is None or origin in request.app.state.settings.access.cors_origins
    if not is_loopback(host) or not (allowed or urlsplit(origin or "").netloc == request.url.netloc):
        raise Problem(
            403,
            f"without tokens the service answers this machine only, not {origin or host}; set a token "
            "(FBPRAY_ACCESS__OPERATE_FILE), or allow the origin (FBPRAY_ACCESS__CORS_ORIGINS)",
        )


Reconstruct = Depends(require("reconstruct"))
Operate = Depends(require("operate"))
