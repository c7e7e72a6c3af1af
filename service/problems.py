"""Errors as RFC 9457 problem documents. They say what was expected, what came and what to do; never a traceback."""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from fbp_ray.errors import FbpRayError, RunError

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 20  # of a request that are told


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 has it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Unprocessable Content",
                    "status": 422,
                    "detail": "the model best takes a sinogram of (1000, 513) = (angles, cells), but this has "
                    "(513, 1000); swap its last two axes",
                    "request_id": "6f1ed002ab5595859014ebf0951522d9",
                }
            ]
        }
    )

    type: str = Field(description="a URI that names the kind of problem; about:blank says no more than the status")
    title: str = Field(description="the status in words")
    status: int = Field(description="the HTTP status")
    detail: str = Field(description="what was expected, what came and the way out")
    request_id: str = Field(default="", description="what to look for in the service's log")
    errors: list[dict[str, str]] = Field(
        default=[], description="what of a request does not hold: `field`, by its dotted name, and `message`"
    )


class Problem(Exception):
    """An error that is answered to the caller.

    Args:
        status: the HTTP status, 400 to 599.
        detail: what was expected, what came and what to do.
        headers: further headers of the answer.
        extra: further members of the document.
    """

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra


def cannot_remember(folder: Path, error: OSError | sqlite3.Error) -> Problem:
    """The answer where the state folder does not take what the service must remember: 507 without room, else 503."""
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    full = full or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    way_out = "make room there" if full else "it must be there, and writable"
    detail = f"the service's state folder {folder} cannot be used: {error}; {way_out}. Nothing was changed"
    return Problem(507 if full else 503, detail, {"Retry-After": "30"})


def problem_response(problem: Problem, request_id: str = "") -> Response:
    """The answer to a request that failed."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "request_id": request_id,
        **problem.extra,
    }
    return Response(json.dumps(document), problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        for status in statuses
    }


def add_handlers(app: FastAPI) -> None:
    """Has the application answer every error with a problem document, and its OpenAPI document describe that."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        document = make()
        document["components"]["schemas"]["ProblemDocument"] = ProblemDocument.model_json_schema()
        return document

    app.openapi = openapi  # type: ignore[method-assign]

    async def answer(request: Request, error: Exception) -> Response:
        return problem_response(_as_problem(request, error), getattr(request.state, "request_id", ""))

    for kind in (Problem, FbpRayError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)


def _as_problem(request: Request, error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return Problem(422, _explain(error), errors=[*map(_by_field, error.errors()[:MOST_ERRORS])])
        case HTTPException():
            headers, detail = dict(error.headers or {}), str(error.detail)
            if error.status_code == 404:
                detail = f"there is nothing at {request.url.path:.200}; GET /docs lists what there is"
            elif error.status_code == 405:
                allowed = headers.get("Allow", "others")
                detail = f"{request.url.path:.200} does not take {request.method}; it takes {allowed}"
            return Problem(error.status_code, detail, headers)
        case _:
            return Problem(409 if isinstance(error, RunError) else 422, str(error))


def _explain(error: RequestValidationError) -> str:
    return sentences(error.errors()) + "; GET /docs describes every parameter"


def _by_field(item: Any) -> dict[str, str]:
    field = ".".join(f"{part!s:.80}" for part in item["loc"][1:])
    return {"field": field, "message": _message(item)}


def _message(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return "there is no such setting"
    return str(item["msg"]).removeprefix("Value error, ")


def sentences(errors: Sequence[Any]) -> str:
    """The errors of a request's parts, as pydantic has them, a sentence each; of many the first ones."""
    found = []
    for item in errors[:MOST_ERRORS]:
        place, *names = (f"{part!s:.80}" for part in item["loc"])
        name = ".".join(names) or "it"
        given = item.get("input")
        shown = f" (got {given!r:.100})" if isinstance(given, str | int | float | bool) else ""
        found.append(f"{place} {name}: {_message(item)}{shown}")
    if len(errors) > MOST_ERRORS:
        found.append(f"and {len(errors) - MOST_ERRORS} errors more")
    return "; ".join(found)
