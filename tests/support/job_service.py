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

from fbp_ray.train.cluster import Node
from service import problems
from service.database import Database
from service.jobs.cluster import Cluster, JobStatus, Refused, Unreachable
from service.jobs.looks import Looks
from service.jobs.manager import Jobs
from service.jobs.routes import router
from service.observability import Metrics
from service.settings import JobsConfig, Settings
from service.turns import Turns


class Model(BaseModel):
    """What activating a model returns."""

    name: str
    source: str


class FakeCluster(Cluster):
    """A cluster whose jobs do what the test says."""

    python = "python"

    def __init__(self, local: bool = True) -> None:
        self.local = local
        self.head = "head-1"
        self.machines = [Node("127.0.0.1", 2, 0)]
        self.jobs: dict[str, JobStatus] = {}
        self.logs: dict[str, str] = {}
        self.submitted: list[tuple[str, str, dict[str, str]]] = []
        self.silent = False
        self.dead = False
        self.broken = ""
        self.refuses = ""
        self.stops = True
        self.closed: bool | None = None

    def _answer(self) -> None:
        if self.silent:
            raise Unreachable("the cluster at http://10.0.0.1:8265 does not answer: refused")

    def nodes(self) -> list[Node]:
        self._answer()
        return self.machines

    def open(self, closing: threading.Event) -> Any:
        self._answer()
        if self.broken:
            raise Refused(self.broken)
        if self.dead:
            self.head, self.dead = self.head + "+", False
        return self

    def client(self, head: str) -> Any:
        return self if head == self.head and not self.dead else None

    def abandon(self) -> None:
        if self.local:
            self.dead = True
            self.jobs.clear()

    def close(self, busy: bool) -> None:
        self.closed = busy

    def submit(self, submission: str, command: str, variables: dict[str, str]) -> None:
        self._answer()
        if self.refuses:
            raise Refused(self.refuses)
        self.submitted.append((submission, command, variables))
        self.jobs[submission] = JobStatus("pending", "Job has not started yet.")

    def look(self, submission: str) -> JobStatus | None:
        self._answer()
        return self.jobs.get(submission)

    def stop(self, submission: str) -> None:
        self._answer()
        if self.stops and self.jobs[submission].status == "running":
            self.jobs[submission] = JobStatus("stopped", "Job was intentionally stopped.")

    def log(self, submission: str) -> str:
        return self.logs.get(submission, "")

    def now(self, id: str, status: Any, reason: str = "") -> None:
        """Has a job stand so."""
        self.jobs[f"fbp-{id}"] = JobStatus(status, reason)


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
        places = (str(folder.parent), "/cluster", "memory://")
        settings = Settings(state=folder / "state", jobs=JobsConfig(**jobs), places=places)
        self.metrics = Metrics()
        self.record = Database(settings.state)
        self.app = app = FastAPI()
        app.state.settings = settings
        app.state.closing = self.closing = threading.Event()
        app.state.jobs = self.jobs = Jobs(
            settings, self.record, self.metrics, lambda name, source: Model(name=name, source=source), cluster, interval
        )
        app.state.storing = self._storing = Turns(4, 64, 60, "jobs")
        app.state.activating = self._activating = Turns(1, 64, 60, "models")
        app.state.looks = Looks(app.state.storing.run)
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

    def close(self) -> None:
        """Ends the service, which leaves the jobs that run to their cluster."""
        if self.closing.is_set():
            return
        self.closing.set()
        self.http.close()
        self._server.should_exit = True
        self._thread.join()
        self.jobs.close()
        self._storing.close()
        self._activating.close()
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
