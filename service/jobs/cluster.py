"""Where jobs go: what the service needs of a cluster, and the cluster that its settings or RAY_ADDRESS name."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

from fbp_ray.train.cluster import Node
from service.jobs.ray_jobs import JobClient, RayJobs, Unreachable

CONNECT_SECONDS = 5.0
ASK_SECONDS = 60.0
_SET = "set FBPRAY_JOBS__DASHBOARD to its dashboard, http://HOST:8265"


class HeadError(Exception):
    """The cluster cannot take jobs, and trying again would not help; says why."""


class Opened(NamedTuple):
    """A cluster that takes jobs."""

    head: str
    """Its name in the record: another cluster, or the same one started anew, has another."""

    client: JobClient


class Cluster(ABC):
    """Where jobs go."""

    local: bool
    """Whether jobs run on this machine, and so see what the service sees."""

    python: str
    """The Python that runs them."""

    @abstractmethod
    def nodes(self) -> list[Node]:
        """Its machines, or those that it will have once it is started; raises Unreachable."""

    @abstractmethod
    def open(self, closing: threading.Event) -> Opened:
        """Has it ready to take jobs. Raises Unreachable, and HeadError; returns early when `closing` is set."""

    @abstractmethod
    def client(self, head: str) -> JobClient | None:
        """The interface of the cluster that has a job; None where that is gone for good. Raises Unreachable."""

    @abstractmethod
    def abandon(self) -> None:
        """Ends what is left of a cluster that is gone, as far as it is the service's."""

    @abstractmethod
    def close(self, busy: bool) -> None:
        """The service ends; `busy` while jobs run there."""


class GivenCluster(Cluster):
    """A cluster that somebody else runs. It is never stopped.

    Args:
        address: http://HOST:8265 of its dashboard, or HOST:6379 as RAY_ADDRESS has it.
        python: that runs jobs there.
    """

    local = False

    def __init__(self, address: str, python: str) -> None:
        self.address = address
        self.python = python
        self._found: RayJobs | None = None

    def nodes(self) -> list[Node]:
        """Its machines now."""
        return self._client().nodes()

    def open(self, closing: threading.Event) -> Opened:
        """It is there already, or it is not."""
        client = self._client()
        client.version()
        return Opened(client.address, client)

    def client(self, head: str) -> JobClient | None:
        """Its job interface, unless the job was given to another cluster."""
        client = self._client()
        return client if head == client.address else None

    def abandon(self) -> None:
        """Nothing of it is the service's."""

    def close(self, busy: bool) -> None:
        """It goes on."""

    def _client(self) -> RayJobs:
        if self._found is None:
            http = self.address.startswith(("http://", "https://"))
            self._found = RayJobs(self.address if http else find_dashboard(self.address), ray_token())
        return self._found


def find_dashboard(address: str) -> str:
    """The address of the dashboard of the cluster at HOST:PORT, or of the one on this machine ("auto").

    A process of its own asks with Ray: the service then need not load it, and Ray may hang or exit as it likes.

    Raises:
        Unreachable: nothing answers there, or the address is of another form.
    """
    match = re.fullmatch(r"\[?([^\[\]/\s]+?)\]?:(\d{1,5})", address)
    if match is None and address != "auto":
        raise Unreachable(f"RAY_ADDRESS is {address!r}, but jobs go to HOST:PORT or to a dashboard; {_SET}")
    if match is not None:
        try:
            socket.create_connection((match[1], int(match[2])), timeout=CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise Unreachable(
                f"no Ray cluster answers at RAY_ADDRESS={address}: {error}; check it, or {_SET}"
            ) from None
    code = "import sys; from ray.dashboard.utils import ray_address_to_api_server_url as f; print(f(sys.argv[1]))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, address],
            capture_output=True,
            text=True,
            timeout=ASK_SECONDS,
            check=False,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        )
    except subprocess.TimeoutExpired:
        raise Unreachable(f"the cluster at RAY_ADDRESS={address} does not say where its dashboard is; {_SET}") from None
    lines = done.stdout.split()
    if done.returncode != 0 or not lines or not lines[-1].startswith("http"):
        why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Unreachable(f"the cluster at RAY_ADDRESS={address} does not say where its dashboard is: {why}; {_SET}")
    return lines[-1]


def ray_token() -> str | None:
    """The token of a given cluster, from where Ray's own clients take it."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
