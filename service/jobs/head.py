"""A Ray head on this machine, on loopback alone, that the service starts when the first job comes.

It outlives the service when jobs run, also where that is killed: `head.json` in the state folder says which process it
is, and the next service finds it by that. Several heads may run on a machine; every port of each is a free one.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from fbp_ray.storage import write_atomically
from fbp_ray.threads import processors
from fbp_ray.train.cluster import ALONE, ENVIRONMENT, Node
from service.jobs.cluster import Cluster, HeadError, Opened
from service.jobs.ray_jobs import JobClient, RayJobs, Unreachable
from service.settings import PREFIX

HOST = "127.0.0.1"
START_SECONDS = 90.0
END_SECONDS = 10.0
TRIES = 3
OTHERS = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN")  # would lead to another cluster, or token
SHORT = 24  # characters of the folder for Ray's files at most: a unix socket in it has 83 more, and 107 is the limit


class LocalHead(Cluster):
    """The head of this machine, and what is known of it.

    Args:
        state: folder of the service's state, absolute.
        python: that runs jobs; this one by default.
    """

    local = True

    def __init__(self, state: Path, python: str | None = None) -> None:
        self.python = python or sys.executable
        self._state = state
        self._file = state / "head.json"
        self._started: subprocess.Popen[bytes] | None = None

    def nodes(self) -> list[Node]:
        """This machine."""
        return [Node(HOST, processors(), gpus())]

    def open(self, closing: threading.Event) -> Opened:
        """Finds the head, or starts it.

        Raises:
            HeadError: it does not start; says what it printed.
            Unreachable: it takes too long, or the service is told to end meanwhile.
        """
        for attempt in range(1, TRIES + 1):
            known = self._known()
            if known is None or not self._alive(known):
                self.abandon()
                known = self._start()
            if self._wait(known, closing):
                return Opened(str(known["head"]), self._jobs(known))
            if attempt < TRIES:  # somebody else has taken a port
                self.abandon()
        printed = (self._state / "head.log").read_text(encoding="utf-8", errors="replace").strip()[-2000:]
        self.abandon()
        raise HeadError(f"Ray does not start on this machine; it printed: {printed or 'nothing'}")

    def client(self, head: str) -> JobClient | None:
        """The job interface of the head, unless its process is gone."""
        known = self._known()
        if known is None or known["head"] != head or not self._alive(known):
            return None
        return self._jobs(known)

    def abandon(self) -> None:
        """Ends what is left of the head, so that no process of it holds a run."""
        known = self._known()
        if known is None:
            return
        self._end(known)
        self._file.unlink(missing_ok=True)

    def close(self, busy: bool) -> None:
        """Stops the head, unless jobs run there."""
        if not busy:
            self.abandon()
        elif self._started is not None:
            self._started.returncode = 0  # it is nobody's child any more: Python would warn that it still runs
            self._started = None

    def _known(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads(self._file.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None

    def _alive(self, known: dict[str, Any]) -> bool:
        if self._started is not None:
            self._started.poll()  # a child that has ended stays until its parent has looked
        try:
            process = psutil.Process(int(known["pid"]))
            return process.create_time() == known["started"] and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def _jobs(self, known: dict[str, Any]) -> RayJobs:
        return RayJobs(known["dashboard"], self._token())

    def _token(self) -> str:
        """The head's token: without it nobody on this machine can run commands as this user."""
        file = self._state / "ray-token"
        if not file.exists():
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "w") as opened:
                    opened.write(secrets.token_hex(32))
        return file.read_text().strip()

    def _start(self) -> dict[str, Any]:
        self._token()
        folder = _short_folder()
        port, dashboard, agent, clients = _free_ports(4)
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
            *(f"--node-ip-address={HOST}", f"--dashboard-host={HOST}", "--include-dashboard=true"),
            *(f"--port={port}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"),
            *(f"--ray-client-server-port={clients}", "--min-worker-port=0", "--max-worker-port=0"),
            *(f"--num-cpus={processors()}", f"--num-gpus={gpus()}"),
        ]
        with (self._state / "head.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env=self._environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started = process
        known = {
            "head": f"local:{process.pid}:{secrets.token_hex(4)}",
            "pid": process.pid,
            "started": psutil.Process(process.pid).create_time(),
            "dashboard": f"http://{HOST}:{dashboard}",
            "address": f"{HOST}:{port}",
            "folder": str(folder),
        }
        write_atomically(self._file, json.dumps(known, indent=2))
        return known

    def _environment(self, folder: Path) -> dict[str, str]:
        """What the head and its jobs find: Ray's settings are these, and the service's tokens are not there."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in OTHERS and not name.startswith((f"{PREFIX}_", "RAY_JOB_"))
        }
        root = str(Path(__file__).parents[2])
        here = [] if root in _installed() else [root]  # jobs run the code that the service runs
        return {
            **ENVIRONMENT,
            **ALONE,
            **kept,
            "RAY_TMPDIR": str(folder),
            "TMPDIR": str(folder),  # what a killed job leaves goes with the head
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._state / "ray-token"),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # then Ray keeps to loopback, on every system
            "PYTHONPATH": os.pathsep.join([*here, *filter(None, [os.environ.get("PYTHONPATH")])]),
        }

    def _wait(self, known: dict[str, Any], closing: threading.Event) -> bool:
        """Waits for the head to answer; whether it does, rather than end."""
        client = self._jobs(known)
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if not self._alive(known):
                return False
            try:
                client.version()
                return True
            except Unreachable as error:
                why = error
            if closing.wait(0.2):
                raise Unreachable("the service ends")
        raise Unreachable(f"the Ray head on this machine does not answer within {START_SECONDS:g} s: {why}")

    def _end(self, known: dict[str, Any]) -> None:
        """Ends the head's processes: itself, then all that have its folder in their environment."""
        if self._alive(known):
            with contextlib.suppress(psutil.Error):
                head = psutil.Process(int(known["pid"]))
                head.terminate()
                with contextlib.suppress(psutil.TimeoutExpired):
                    head.wait(END_SECONDS)
        for _ in range(50):  # a process that is being killed may still have started another
            left = _processes_of(str(known["folder"]))
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            if not left:
                break
            time.sleep(0.1)
        if self._started is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._started.wait(1)
            self._started = None
        shutil.rmtree(known["folder"], ignore_errors=True)


def gpus() -> int:
    """The GPUs that this process may use."""
    import torch

    return torch.cuda.device_count()


def _processes_of(folder: str) -> list[psutil.Process]:
    """The processes, of this user, that were started with this folder for Ray's files."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if _was_started_with(process, f"RAY_TMPDIR={folder}") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _was_started_with(process: psutil.Process, variable: str) -> bool:
    """Whether a process has a variable. Ray's agents write their titles over the first ones, where psutil stops."""
    try:
        return variable.encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    except FileNotFoundError:  # it has ended, or this system has no such files
        name, _, value = variable.partition("=")
        return process.environ().get(name) == value


def _short_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fbp-"))
    if len(str(folder)) > SHORT and Path("/tmp").is_dir():
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="fbp-", dir="/tmp"))
    return folder


def _free_ports(count: int) -> list[int]:
    servers = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def _installed() -> list[str]:
    import site

    return [*site.getsitepackages(), site.getusersitepackages()]
