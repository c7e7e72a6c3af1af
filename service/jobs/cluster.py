"""A Ray cluster as a place for jobs: the Ray Jobs REST API, and the cluster that the settings or RAY_ADDRESS name.

Ray's own client takes a second and 150 MB to import, waits without limit for a cluster that hangs, and takes its token
from the process's environment. `RayJobs` needs no part of Ray.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import quote, urlsplit

import httpx

from fbp_ray.errors import ConfigError, RunError
from fbp_ray.train.cluster import Node, check_address
from service.settings import is_loopback

T = TypeVar("T")
_log = logging.getLogger("service.jobs")
SECONDS = 10.0  # that an answer may take
SUBMIT_SECONDS = 60.0  # a head that has just started finds an agent for its first job in 8 s, on a slow machine
FIND_SECONDS = 60.0  # that Ray may take to say where a cluster's dashboard is
_SET = "set FBPRAY_JOBS__DASHBOARD to its dashboard, http://HOST:8265"


class Unreachable(Exception):
    """The cluster does not answer, or does not let the service in; says why. It may later."""


class Refused(Exception):
    """The cluster does not take the job, and trying again would not help; says why."""


class JobStatus(NamedTuple):
    """How a job stands, as the cluster has it."""

    status: Literal["pending", "running", "succeeded", "failed", "stopped"]
    reason: str


class RayJobs:
    """The Ray Jobs REST API at a dashboard's address. Every method may raise Unreachable.

    Args:
        address: http://HOST:PORT.
        token: of the cluster, if it wants one.
        head: the cluster's name in the record, by default its address. Another cluster, or the same one started anew,
            has another.
    """

    def __init__(self, address: str, token: str | None = None, head: str | None = None) -> None:
        self.address = address.rstrip("/")
        self.head = head or self.address
        try:
            url = httpx.URL(self.address)
        except httpx.InvalidURL as error:
            raise Unreachable(f"{self.address} is no address of a Ray dashboard: {error}; {_SET}") from None
        self.is_private = url.scheme == "https" or is_loopback(url.host)  # nobody on the way reads what is sent
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {token}"} if token else {},
            trust_env=not is_loopback(url.host),  # no proxy leads to this machine
            verify=ssl.create_default_context(),  # trusts what the system trusts
            follow_redirects=False,  # neither the token nor a job goes anywhere else
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def version(self, seconds: float = SECONDS) -> str:
        """The cluster's version of Ray, if it answers in so many seconds."""
        return self._ask(
            "GET", "/api/version", lambda answer: str(answer["ray_version"]), "is not ready", None, seconds
        )

    def submit(self, submission: str, command: str, variables: dict[str, str]) -> None:
        """Has the cluster run a command, with some variables in its environment; once, however often it is called.

        Raises:
            Refused: it does not take the job.
        """
        body = {"entrypoint": command, "submission_id": submission, "runtime_env": {"env_vars": variables}}
        try:
            self._ask(
                "POST",
                "/api/jobs/",
                lambda answer: answer["submission_id"],
                "does not take the job",
                body,
                SUBMIT_SECONDS,
            )
        except _HttpError as error:
            if self.look(submission) is None:
                raise Refused(str(error)) from None

    def look(self, submission: str) -> JobStatus | None:
        """How a job stands; None where the cluster does not know it."""
        try:
            return self._ask("GET", f"/api/jobs/{quote(submission)}", _job_status, "does not say how the job stands")
        except _HttpError as error:
            if error.status == 404:
                return None
            raise

    def stop(self, submission: str) -> None:
        """Asks for the end of a job; nothing happens where it does not run."""
        try:
            path = f"/api/jobs/{quote(submission)}/stop"
            self._ask("POST", path, lambda answer: answer["stopped"], "does not stop the job")
        except _HttpError as error:
            if error.status != 404:
                raise

    def log(self, submission: str) -> str:
        """What it has printed; raises Refused where the cluster has lost that, with the machine it ran on."""
        try:
            path = f"/api/jobs/{quote(submission)}/logs"
            return self._ask("GET", path, lambda answer: str(answer["logs"]), "has no log of the job")
        except _HttpError as error:
            raise Refused(str(error)) from None

    def nodes(self) -> list[Node]:
        """The cluster's machines that are there."""
        return self._ask("GET", "/api/v0/nodes?detail=1&limit=10000", _nodes, "does not say what it has")

    def _ask(
        self,
        method: str,
        path: str,
        read: Callable[[Any], T],
        failing: str,
        body: Any = None,
        seconds: float = SECONDS,
    ) -> T:
        """What `read` makes of the answer; `failing` says what it means if the cluster answers with an error."""
        try:
            answer = self._http.request(method, self.address + path, json=body, timeout=seconds)
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            raise Unreachable(f"the cluster at {self.address} does not answer: {why}") from None
        if answer.status_code in (401, 403):
            raise Unreachable(
                f"the cluster at {self.address} wants another token ({_last_line(answer.text)}); set RAY_AUTH_TOKEN "
                "or RAY_AUTH_TOKEN_PATH to its token"
            )
        if not answer.is_success:
            why = f"{_last_line(answer.text)} (HTTP {answer.status_code})"
            raise _HttpError(f"the cluster at {self.address} {failing}: {why}", answer.status_code)
        try:
            return read(answer.json())
        except (KeyError, TypeError, ValueError) as error:
            raise Unreachable(
                f"what answers at {self.address} is no Ray cluster ({type(error).__name__}: {error}); give the address "
                "of its dashboard: FBPRAY_JOBS__DASHBOARD=http://HOST:8265"
            ) from None


class _HttpError(Unreachable):
    """The cluster answers with an error."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def _host(address: str) -> str:
    """The host of a URL; empty where it has none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _last_line(text: str) -> str:
    """The last line of an error, which may be a traceback."""
    lines = [line.strip() for line in text.splitlines() if len(line.strip()) > 1]
    return lines[-1][:500] if lines else "no reason given"


def _job_status(answer: Any) -> JobStatus:
    status = str(answer["status"]).lower()
    if status not in ("pending", "running", "succeeded", "failed", "stopped"):
        raise ValueError(f"a job there is {status!r}")
    return JobStatus(status, str(answer.get("message") or ""))  # type: ignore[arg-type]


def _nodes(answer: Any) -> list[Node]:
    found = []
    for node in answer["data"]["result"]["result"]:
        resources = node.get("resources_total") or {}
        if node["state"] == "ALIVE":
            found.append(Node(str(node["node_ip"]), int(resources.get("CPU", 0)), int(resources.get("GPU", 0))))
    return found


class Cluster:
    """A Ray cluster that somebody else runs, as a place for jobs. `LocalHead` is one that the service runs itself.

    Args:
        address: http://HOST:8265 of its dashboard, or HOST:6379 as RAY_ADDRESS has it.
        python: that runs jobs there.
    """

    local = False  # whether jobs run on this machine, and so see what the service sees

    def __init__(self, address: str, python: str) -> None:
        self.python = python
        self._address = address
        self._jobs: RayJobs | None = None

    def nodes(self) -> list[Node]:
        """Its machines, or those that it will have once it is started; raises Unreachable."""
        return self._connect().nodes()

    def open(self, closing: threading.Event) -> RayJobs:
        """Has it ready to take jobs.

        Raises:
            Unreachable: it does not answer in time, or `closing` is set meanwhile.
            Refused: it cannot be made ready; says why.
        """
        jobs = self._connect()
        jobs.version()
        return jobs

    def client(self, head: str) -> RayJobs | None:
        """The interface of the cluster that has a job; None where that is gone for good. Raises Unreachable."""
        jobs = self._connect()
        return jobs if head == jobs.head else None

    def abandon(self) -> None:
        """Ends what is left of a cluster that is gone, as far as it is the service's."""

    def close(self, busy: bool) -> None:
        """Leaves the cluster, because the service ends; `busy` while jobs run there."""

    def _connect(self) -> RayJobs:
        if self._jobs is None:
            http = self._address.startswith(("http://", "https://"))
            token = ray_token(self._address if http else None)
            self._jobs = RayJobs(self._address if http else find_dashboard(self._address), token)
            if token and not self._jobs.is_private:
                _log.warning("Ray's token goes to %s unencrypted", self._jobs.address)
        return self._jobs


def find_dashboard(address: str) -> str:
    """The address of the dashboard of the cluster at HOST:PORT, or of the one on this machine ("auto").

    A process of its own asks Ray: the service then need not load it, and Ray may hang or exit as it likes.

    Raises:
        Unreachable: nothing answers there, or the address is of another form.
    """
    if address != "auto":
        try:
            check_address(address)
        except ConfigError:
            raise Unreachable(
                f"RAY_ADDRESS is {address!r}, but jobs go to HOST:PORT or to a dashboard; {_SET}"
            ) from None
        except RunError as error:
            raise Unreachable(f"{error}; or {_SET}") from None
    code = "from ray.job_submission import JobSubmissionClient; print(JobSubmissionClient().get_address())"
    environment = {**os.environ, "RAY_ADDRESS": address, "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_API_SERVER_ADDRESS", None)  # would win over the address
    if ray_token() is not None:
        environment["RAY_AUTH_MODE"] = "token"
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=FIND_SECONDS, check=True
        )
        return str(re.findall(r"^https?://\S+$", done.stdout, re.MULTILINE)[-1])
    except subprocess.TimeoutExpired:
        why = f"it does not answer within {FIND_SECONDS:g} s"
    except (subprocess.CalledProcessError, IndexError) as error:
        why = _last_line(getattr(error, "stderr", ""))
    raise Unreachable(f"the cluster at RAY_ADDRESS={address} does not say where its dashboard is: {why}; {_SET}")


def ray_token(dashboard: str | None = None) -> str | None:
    """The token of a cluster that somebody else runs, from where Ray's own clients take it.

    Args:
        dashboard: an address of the settings. The token in the home folder is that of the cluster on this machine, or
            at RAY_ADDRESS: no other host gets it, unless RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH says that it should.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if dashboard is not None and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        host = _host(dashboard)
        if not host or (not is_loopback(host) and host != _host(f"//{os.environ.get('RAY_ADDRESS', '')}")):
            return None
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
