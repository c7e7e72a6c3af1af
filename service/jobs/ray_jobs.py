"""A cluster's job interface over HTTP (Ray Jobs REST API).

Ray's own client would take a second and 150 MB to import, waits without limit for a cluster that hangs, and takes its
token from the process's environment. This one needs none of Ray.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, TypeVar
from urllib.parse import quote, urlsplit

from fbp_ray.train.cluster import Node
from service.settings import is_loopback

T = TypeVar("T")
SECONDS = 10.0  # that an answer may take
SUBMIT_SECONDS = 60.0  # a head that has just started finds an agent for its first job in 8 s, on a slow machine


class Unreachable(Exception):
    """The cluster does not answer, or does not let the service in; says why."""


class Refused(Exception):
    """The cluster does not take the job; says why."""


class JobStatus(NamedTuple):
    """How a job stands, as the cluster has it."""

    status: Literal["pending", "running", "succeeded", "failed", "stopped"]
    reason: str


class JobClient(Protocol):
    """What the service needs of a cluster's job interface. Every method may raise Unreachable."""

    def submit(self, submission: str, command: str, variables: dict[str, str]) -> None:
        """Has the cluster run a command; once, however often it is called. Raises Refused."""

    def look(self, submission: str) -> JobStatus | None:
        """How a job stands; None where the cluster does not know it."""

    def stop(self, submission: str) -> None:
        """Asks for the end of a job; nothing happens where it does not run."""

    def log(self, submission: str) -> str:
        """What it has printed; raises Refused where the cluster has lost that."""

    def nodes(self) -> list[Node]:
        """The cluster's machines."""


class RayJobs:
    """The interface at a dashboard's address.

    Args:
        address: http://HOST:PORT.
        token: of the cluster, if it wants one.
    """

    def __init__(self, address: str, token: str | None = None) -> None:
        self.address = address.rstrip("/")
        self._token = token
        handlers = [urllib.request.ProxyHandler({})] if is_loopback(urlsplit(address).hostname or "") else []
        self._opener = urllib.request.build_opener(*handlers)

    def version(self) -> str:
        """Of Ray there."""
        return self._ask("GET", "/api/version", lambda answer: str(answer["ray_version"]))

    def submit(self, submission: str, command: str, variables: dict[str, str]) -> None:
        """Has the cluster run a command, with some variables in its environment; once, however often it is called."""
        body = {"entrypoint": command, "submission_id": submission, "runtime_env": {"env_vars": variables}}
        try:
            self._ask("POST", "/api/jobs/", lambda answer: answer["submission_id"], body, SUBMIT_SECONDS)
        except _Status as error:
            if self.look(submission) is None:
                raise Refused(f"the cluster at {self.address} does not take the job: {error}") from None

    def look(self, submission: str) -> JobStatus | None:
        """How a job stands; None where the cluster does not know it."""
        try:
            return self._ask("GET", f"/api/jobs/{quote(submission)}", _standing)
        except _Status as error:
            if error.code == 404:
                return None
            raise Unreachable(f"the cluster at {self.address} does not say how the job stands: {error}") from None

    def stop(self, submission: str) -> None:
        """Asks for the end of a job; nothing happens where it does not run."""
        try:
            self._ask("POST", f"/api/jobs/{quote(submission)}/stop", lambda answer: answer["stopped"])
        except _Status as error:
            if error.code != 404:
                raise Unreachable(f"the cluster at {self.address} does not stop the job: {error}") from None

    def log(self, submission: str) -> str:
        """What it has printed; raises Refused where the cluster has lost that, with the machine it ran on."""
        try:
            return self._ask("GET", f"/api/jobs/{quote(submission)}/logs", lambda answer: str(answer["logs"]))
        except _Status as error:
            raise Refused(f"the cluster at {self.address} has no log of the job: {error}") from None

    def nodes(self) -> list[Node]:
        """The cluster's machines that are there."""
        try:
            return self._ask("GET", "/api/v0/nodes?detail=1&limit=10000", _nodes)
        except _Status as error:
            raise Unreachable(f"the cluster at {self.address} does not say what it has: {error}") from None

    def _ask(self, method: str, path: str, read: Callable[[Any], T], body: Any = None, seconds: float = SECONDS) -> T:
        request = urllib.request.Request(
            self.address + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        if self._token:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=seconds) as answer:
                return read(json.load(answer))
        except urllib.error.HTTPError as error:
            with error:
                text = _last_line(error.read(1_000_000))
            if error.code in (401, 403):
                raise Unreachable(
                    f"the cluster at {self.address} wants another token ({text}); set RAY_AUTH_TOKEN or "
                    "RAY_AUTH_TOKEN_PATH to its token"
                ) from None
            raise _Status(error.code, text) from None
        except (KeyError, TypeError, ValueError) as error:
            raise Unreachable(
                f"what answers at {self.address} is no Ray cluster ({type(error).__name__}: {error}); give the address "
                "of its dashboard: FBPRAY_JOBS__DASHBOARD=http://HOST:8265"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            why = error.reason if isinstance(error, urllib.error.URLError) else error
            raise Unreachable(f"the cluster at {self.address} does not answer: {why}") from None


class _Status(Exception):
    """An answer of HTTP that says no."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} (HTTP {code})")
        self.code = code


def _standing(answer: Any) -> JobStatus:
    status = str(answer["status"]).lower()
    if status not in ("pending", "running", "succeeded", "failed", "stopped"):
        raise ValueError(f"a job there is {status!r}")
    return JobStatus(status, str(answer.get("message") or ""))  # type: ignore[arg-type]


def _nodes(answer: Any) -> list[Node]:
    found = []
    for node in answer["data"]["result"]["result"]:
        has = node.get("resources_total") or {}
        if node["state"] == "ALIVE":
            found.append(Node(str(node["node_ip"]), int(has.get("CPU", 0)), int(has.get("GPU", 0))))
    return found


def _last_line(body: bytes) -> str:
    """Of an error's text, which may be a traceback."""
    lines = [line.strip() for line in body.decode(errors="replace").splitlines() if len(line.strip()) > 1]
    return lines[-1][:500] if lines else "no reason given"
