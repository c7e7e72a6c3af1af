"""Who may do what: bearer tokens have one of two roles, and pages of other sites get nothing."""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, Collection
from typing import Annotated, Literal

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers

from service.problems import Problem
from service.settings import Settings, is_loopback

Role = Literal["reconstruct", "operate"]
_ROLES: tuple[Role, ...] = ("reconstruct", "operate")  # the later may do all that the former may
_HOST = re.compile(r"([a-z0-9.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")
_bearer = HTTPBearer(auto_error=False, description="a token of the service's settings; none is needed on loopback")


def require(role: Role) -> Callable[..., Awaitable[None]]:
    """A dependency that lets only callers with the role through.

    The others get 401 without a token or with an unknown one, and 403 with one that may not do this. Bodies are looked
    at before dependencies are: body_limits.py asks the same first.
    """

    async def check(
        request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)] = None
    ) -> None:
        authorise(role, request.headers, request.app.state.settings)

    return check


def authorise(role: Role, headers: Headers, settings: Settings) -> None:
    """Lets only callers with the role through, by nothing but the headers of their request.

    Raises:
        Problem: 401 or 403.
    """
    access = settings.access
    if not (access.reconstruct or access.operate):
        refuse_other_sites(headers, access.cors_origins)
        return
    token = token_of(headers, settings)
    if not token:
        raise Problem(
            401,
            f"this needs a token with the role {role}; send one header `Authorization: Bearer TOKEN`",
            {"WWW-Authenticate": "Bearer"},
        )
    found = role_of(token, settings)
    if found is None:
        raise Problem(
            401, "the token is not one of the service's", {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        )
    if _ROLES.index(found) < _ROLES.index(role):
        raise Problem(403, f"the token has the role {found}, but this needs {role}; ask the operator for such a token")


def token_of(headers: Headers, settings: Settings) -> str:
    """The token that a request has, however it is written; empty where the service asks for none.

    Of several none counts: a proxy may have looked at another than the service would.
    """
    given = headers.getlist("authorization")
    if not (settings.access.reconstruct or settings.access.operate) or len(given) != 1:
        return ""
    scheme, _, token = given[0].partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def role_of(token: str, settings: Settings) -> Role | None:
    """The highest role of a token, None for an unknown one. It takes the same time whatever the token is."""
    found: Role | None = None
    for role in _ROLES:
        for known in getattr(settings.access, role):
            if hmac.compare_digest(token.encode(), known.get_secret_value().encode()):
                found = role
    return found


def refuse_other_sites(headers: Headers, allowed: Collection[str]) -> None:
    """Without tokens, a browser on this machine could call the service for any page that it shows; this stops it.

    It looks at the headers as they came: what frameworks make of a malformed one is their own address.

    Raises:
        Problem: 403, the host is not this machine, or the origin is neither the host nor one that is allowed.
    """
    hosts = headers.getlist("host")
    host = hosts[0].lower() if len(hosts) == 1 else ""
    origins = headers.getlist("origin")
    named = _HOST.fullmatch(host)
    own = {*allowed, f"http://{host}", f"https://{host}"}
    if named is None or not is_loopback(named[1].strip("[]")) or not own.issuperset(origins):
        raise Problem(
            403,
            f"without tokens the service answers this machine only, not {(origins or hosts or ['no host'])[0][:100]}; "
            "set a token (FBPRAY_ACCESS__OPERATE_FILE), or allow the origin (FBPRAY_ACCESS__CORS_ORIGINS)",
        )


Reconstruct = Depends(require("reconstruct"))
Operate = Depends(require("operate"))
