"""The application: wiring, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware

from service import health, models, problems, reconstruct
from service.batching import Batcher
from service.bodies import BodyBudget
from service.database import Database
from service.formats.guarded import ReaderPool
from service.jobs import routes as jobs
from service.jobs.manager import Jobs
from service.json_limits import JsonLimits
from service.model_registry import ModelRegistry
from service.observe import Metrics, Observed
from service.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """The service as an ASGI application.

    Raises:
        ConfigError: the state folder cannot be used.
    """
    metrics = Metrics()
    app = FastAPI(
        title="fbp-ray",
        summary="Learned filtered backprojection of low-dose CT: POST sinograms, get images; submit jobs, follow them.",
        description="Research use only; not for diagnosis.",
        version=health.VERSION,
        lifespan=_lifespan,
    )
    app.state.settings = settings
    app.state.metrics = metrics
    app.state.closing = threading.Event()  # set when the service is told to end: answers without an end then end
    app.state.record = record = Database(settings.state)
    app.state.batcher = Batcher(settings.batching, metrics)
    app.state.catalogue = catalogue = ModelRegistry(settings, record, metrics)
    app.state.bodies = BodyBudget(settings.limits, metrics)
    app.state.guarded = ReaderPool(app.state.bodies.most)
    app.state.jobs = Jobs(settings, record, metrics, catalogue.activate)
    problems.add_handlers(app)
    for part in (reconstruct, models, jobs, health):
        app.include_router(part.router)
    app.add_middleware(JsonLimits, limits=settings.limits)
    if settings.access.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.access.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Request-Id", "X-Shape"],
            expose_headers=["*"],
        )
    app.add_middleware(Observed, metrics=metrics)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state = app.state
    state.batcher.start()
    warming = threading.Thread(target=state.catalogue.start, name="warming", daemon=True)
    warming.start()
    await run_in_threadpool(state.jobs.start)
    try:
        yield
    finally:
        state.closing.set()
        await run_in_threadpool(state.jobs.close)
        await run_in_threadpool(state.catalogue.close)
        state.batcher.close()
        state.guarded.close()
        state.record.close()
