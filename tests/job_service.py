"""The job routes on a port of this machine, for tests that need nothing else of the service."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from service import problems
from service.jobs import Jobs, router
from service.jobs.cluster import Cluster
from service.observe import Metrics
from service.record import Record
from service.settings import JobsConfig, Settings


class Model(BaseModel):
    """What activating a model returns."""

    name: str
    source: str


class JobService:
    """The application with its jobs alone, and a client of it.

    Args:
        folder: for its state, and for runs.
        cluster: where jobs go; without it that of the settings.
        interval: seconds from one look at the jobs to the next.
        jobs: further settings.
    """

    def __init__(self, folder: Path, cluster: Cluster | None = None, interval: float = 0.01, **jobs: Any) -> None:
        self.folder = folder
        jobs = {"storage": str(folder / "runs"), **jobs}
        settings = Settings(state=folder / "state", jobs=JobsConfig(**jobs))
        self.metrics = Metrics()
        self.record = Record(settings.state)
        self.app = app = FastAPI()
        app.state.settings = settings
        app.state.closing = self.closing = threading.Event()
        app.state.jobs = self.jobs = Jobs(
            settings, self.record, self.metrics, lambda name, source: Model(name=name, source=source), cluster, interval
        )
        problems.add_handlers(app)
        app.include_router(router)
        listening = socket.create_server(("127.0.0.1", 0))
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        once = httpx.Limits(max_keepalive_connections=0)  # the server may have ended a connection that is kept
        self.http = httpx.Client(base_url=address, timeout=60, trust_env=False, limits=once)
        self.jobs.start()

    def close(self, stop_head: bool = True) -> None:
        """Ends the service; `stop_head=False` as if it had been killed, so that it leaves what it started."""
        if self.closing.is_set():
            return
        self.closing.set()
        self.http.close()
        self._server.should_exit = True
        self._thread.join()
        if stop_head:
            self.jobs.close()
        else:
            self.jobs._dispatcher.close()
            self.jobs._cluster.close(busy=True)
        self.record.close()

    def post(self, config: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """A new job."""
        answer = self.http.post("/jobs", json={"kind": "train", "config": config or {}} | more)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def get(self, id: str) -> dict[str, Any]:
        """A job's document."""
        return dict(self.http.get(f"/jobs/{id}").json())

    def until(self, id: str, status: str, reason: str = "", seconds: float = 20.0) -> dict[str, Any]:
        """Waits until a job has a status, and the words in its reason."""
        end = time.monotonic() + seconds
        while (job := self.get(id))["status"] != status or reason not in job["reason"]:
            assert time.monotonic() < end, (job, self.http.get(f"/jobs/{id}/logs").text)
            time.sleep(0.01)
        return job
