"""What can be seen of the service: request ids, logs, Prometheus metrics, and whether it is ready."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import time
import warnings
from datetime import UTC, datetime
from http import HTTPMethod
from importlib import metadata
from typing import Any, Literal
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access import Reconstruct
from service.problems import Problem, documented, problem_response

VERSION = metadata.version("fbp-ray")
router = APIRouter(tags=["operations"])
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SECONDS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 30.0, 120.0)
_METHODS = frozenset(HTTPMethod)
MAX_TEXT = 300  # of a path in the log
MAX_CLIENT = 45  # characters of an address, IPv6 with an IPv4 in it
_STANDARD_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "color_message", "taskName"}
_log = logging.getLogger("service")
_access = logging.getLogger("service.access")


class Metrics:
    """The metrics of one application, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("fbp_requests", "Requests answered", ["method", "route", "status"], registry=registry)
        self.seconds = Histogram(
            "fbp_request_seconds",
            "Seconds to the last byte of the answer",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.images = Counter("fbp_images", "Images reconstructed", ["model"], registry=registry)
        self.batch = Histogram(
            "fbp_batch_images", "Images of a batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=registry
        )
        self.batch_seconds = Histogram(
            "fbp_batch_seconds", "Seconds that a batch took to compute", buckets=_SECONDS, registry=registry
        )
        self.queue = Gauge("fbp_queue_images", "Images that wait for a batch", registry=registry)
        self.bodies = Gauge(
            "fbp_body_bytes",
            "Bytes that requests hold: bodies, what they unpack to, images and answers",
            registry=registry,
        )
        self.model = Gauge(
            "fbp_model_info", "1 for each model that serves, and its version", ["name", "version"], registry=registry
        )
        self.jobs = Gauge("fbp_jobs", "Jobs by status", ["status"], registry=registry)


class RequestObserver:
    """Middleware that gives each request an id (its X-Request-Id, or a new one), times it, counts it and logs it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _ID.fullmatch(given) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.perf_counter()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message["headers"], *own]
            await send(message)

        try:
            await self.app(scope, receive, answer)
        except asyncio.CancelledError:
            if not scope["app"].state.closing.is_set():
                raise
            if not status:  # the time for ending is over before the request is
                detail = "the service ends; send the request again when it is back"
                await problem_response(Problem(503, detail, {"Retry-After": "10"}), request_id)(scope, receive, answer)
        except Exception as error:
            _log.error("unforeseen error", exc_info=error, extra={"request_id": request_id})
            if status:
                raise  # half an answer is out already: only the end of the connection can tell
            detail = "the service met an error that it did not foresee; its log has it under this request_id"
            await problem_response(Problem(500, detail), request_id)(scope, receive, answer)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self.metrics.requests.labels(method, route, status or "gone").inc()
            self.metrics.seconds.labels(route).observe(seconds)
            if not route.startswith(("/health", "/metrics")):
                _access.info(
                    "%s %s %s",
                    method,
                    scope["path"][:MAX_TEXT],
                    status or "gone",
                    extra={
                        "request_id": request_id,
                        "method": method,
                        "path": scope["path"][:MAX_TEXT],
                        "status": status,
                        "seconds": round(seconds, 4),
                        "client": str((scope.get("client") or ("", 0))[0])[:MAX_CLIENT],  # a proxy says who it is
                    },
                )


class JsonLines(logging.Formatter):
    """Formats a log record as a line of JSON; the fields of `extra` become members."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD_FIELDS}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """Formats a log record as a line of text, in which nothing that a caller sends ends the line or moves the cursor.

    The lines of a traceback follow, indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        lines = [f"{record.levelname} {record.name}: {record.getMessage()}"]
        if record.exc_info:
            lines += [f"    {line}" for line in self.formatException(record.exc_info).split("\n")]
        return "\n".join(_in_one_line(line) for line in lines)


def _in_one_line(text: str) -> str:
    """The text with escapes in place of what cannot be printed."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def log_to_stderr(form: str) -> None:
    """Sends the logs of the service and of its server to standard error, as JSON lines or as text."""
    warnings.filterwarnings("always", module=r"fbp_ray\.")  # else Python keeps the text of each, of strangers' scans
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    for name in ("service", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []


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
    closing = request.app.state.closing.is_set()
    reason = "the service is about to end" if closing else request.app.state.registry.waiting_for
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
