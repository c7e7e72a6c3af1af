"""The application as a replica of Ray Serve holds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from fastapi import FastAPI

from service.app import create_app
from service.observe import log_to_stderr
from service.problems import Problem
from service.settings import Settings


class JobsElsewhere:
    """In place of the jobs of a replica: it starts none, and says where they go."""

    def start(self) -> None:
        """There is nothing to start."""

    def close(self) -> None:
        """There is nothing to end."""

    def __getattr__(self, name: str) -> NoReturn:
        raise Problem(
            501,
            "the replicas of Ray Serve run no jobs; send them to `python -m service` on another port of the machine "
            "that has the state folder. The models that are activated there serve here too",
        )


class Replica:
    """Builds the application where Ray Serve has placed it.

    Args:
        settings: of the service.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.application: FastAPI | None = None

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application; it has started only when its models are loaded and warm."""
        log_to_stderr(self.settings.log)
        self.application = app = create_app(self.settings)
        app.state.jobs = JobsElsewhere()
        started = app.router.lifespan_context

        @asynccontextmanager
        async def warm(app: FastAPI) -> AsyncIterator[Any]:
            async with started(app) as state:
                await until_warm(app)
                yield state

        app.router.lifespan_context = warm
        return app

    async def check_health(self) -> None:
        """Raises RuntimeError when the replica must be replaced."""
        if self.application is not None and not self.application.state.batcher.alive:
            raise RuntimeError("the thread that computes batches has ended")


async def until_warm(app: FastAPI) -> None:
    """Returns when the models are loaded and warm; raises RuntimeError when they cannot be."""
    while (reason := app.state.catalogue.waiting_for) is not None:
        if app.state.catalogue.failed:
            raise RuntimeError(reason)
        await asyncio.sleep(0.05)
