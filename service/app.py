"""The application and its server: wiring, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from service import arrays, caller, models, observability, problems, reconstruct, runs, static_page, windows
from service.batching import Batcher
from service.body_limits import Intake
from service.connections import Server
from service.database import Database
from service.jobs import recipes
from service.jobs import routes as jobs
from service.jobs.looks import Looks
from service.jobs.manager import Jobs
from service.memory import MEGABYTE, SMALL, Memory
from service.model_registry import ModelRegistry
from service.models import ModelDocument
from service.observability import Metrics, RequestObserver
from service.problems import Problem
from service.reader_pool import ReaderPool
from service.settings import Settings
from service.turns import Turns

M_ARENA_MAX = -8  # malloc.h
READERS = 2
"""Processes that read HDF5 and TIFF, and threads that unpack."""
WAITING = 64
"""Requests that may wait for a thread."""
TRIM_SECONDS = 0.25
TRIM_BYTES = 16_000_000


def create_app(settings: Settings, other_jobs: Any = None) -> FastAPI:
    """The service as an ASGI application.

    Args:
        settings: its settings.
        other_jobs: takes the place of Jobs in a process that runs none.

    Raises:
        ConfigError: the state folder cannot be used.
    """
    metrics = Metrics()
    app = FastAPI(
        title="fbp-ray",
        summary="Learned filtered backprojection of low-dose CT: POST sinograms, get images; submit jobs, follow them.",
        description="Research use only; not for diagnosis.",
        version=observability.VERSION,
        lifespan=_lifespan,
    )
    app.state.settings = settings
    app.state.metrics = metrics
    app.state.page = static_page.read_page()
    app.state.closing = threading.Event()  # set when the service is told to end, so that endless answers end too
    app.state.database = database = Database(settings.state)
    app.state.memory = memory = Memory(settings.limits, metrics)
    app.state.batcher = Batcher(settings.batching, metrics, memory)
    app.state.registry = registry = ModelRegistry(settings, database, metrics)
    limits = settings.limits
    seconds = limits.request_seconds
    app.state.turns = Turns(threads=4, waiting=WAITING, seconds=seconds, what="reading and writing")
    app.state.unpacking = Turns(READERS, WAITING, min(seconds, 3 * limits.file_seconds), "unpacking files")
    app.state.activating = Turns(2, WAITING, seconds, "activating models")
    app.state.storing = Turns(4, WAITING, seconds, "jobs and their storage")
    app.state.looks = Looks(app.state.storing.run)
    app.state.reader_pool = ReaderPool(int(limits.body_mb * MEGABYTE), READERS, limits.file_seconds)

    def activate(name: str, source: str) -> ModelDocument:
        return ModelDocument.of(registry.activate(name, source))

    app.state.jobs = other_jobs or Jobs(settings, database, metrics, activate)
    problems.add_handlers(app)
    for part in (reconstruct, arrays, models, windows, jobs, recipes, runs, observability, caller, static_page):
        app.include_router(part.router)
    app.add_middleware(Intake, settings=settings, memory=memory)
    if settings.access.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.access.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Request-Id", "X-Shape"],
            expose_headers=["*"],
        )
    app.add_middleware(RequestObserver, metrics=metrics)
    app.add_middleware(Below, root_path=settings.root_path)
    return app


class Below:
    """Tells the application the path that a proxy has it below, and puts that back where the proxy strips it."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app = app
        self.root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if self.root_path and scope["type"] == "http":
            path = scope["path"].removeprefix(self.root_path)
            scope = {**scope, "root_path": self.root_path, "path": self.root_path + path}
        await self.app(scope, receive, send)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state = app.state
    state.batcher.start()
    threading.Thread(target=state.registry.run, name="models", daemon=True).start()
    await run_in_threadpool(state.jobs.start)
    trimming = asyncio.create_task(_trim(state.memory, state.turns))
    try:
        yield
    finally:
        trimming.cancel()
        state.closing.set()
        await run_in_threadpool(state.jobs.close)
        state.registry.close()
        state.batcher.close()
        for turns in (state.turns, state.unpacking, state.activating, state.storing):
            turns.close()
        state.reader_pool.close()
        state.database.close()


async def _trim(memory: Memory, turns: Turns) -> None:
    """Has the memory of requests that have ended given back to the system, now and then."""
    for turn in itertools.count():  # much soon, and little after some seconds
        await asyncio.sleep(TRIM_SECONDS)
        if memory.given_back > (memory.budget * SMALL if turn % 12 else TRIM_BYTES):
            with contextlib.suppress(Problem):
                await turns.run(memory.give_to_system)


def serve(settings: Settings) -> None:
    """Serves until this process is told to end, then finishes the requests that it has."""
    limit_malloc_pools()
    observability.log_to_stderr(settings.log)
    Server(create_app(settings), settings).run()


def limit_malloc_pools() -> None:
    """Limits glibc's malloc to two pools of memory.

    It would make one for every thread that takes in bodies, and each pool keeps the most that it ever held.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_ARENA_MAX, 2)
