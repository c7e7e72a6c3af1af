"""A Ray head on this machine, on loopback alone, that the service starts when the first job comes.

It outlives the service when jobs run, also where that is killed: `head.json` in the state folder says which process it
is, and the next service finds it by that. Several heads may run on a machine; every port of each is a free one.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import site
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from fbp_ray.run import is_alive
from fbp_ray.storage import write_atomically
from fbp_ray.threads import processors
from fbp_ray.train.cluster import ALONE, ENVIRONMENT, Node
from service.jobs.cluster import Cluster, RayJobs, Refused, Unreachable
from service.settings import PREFIX, Settings

HOST = "127.0.0.1"
START_SECONDS = 90.0
LOOK_SECONDS = 2.0  # for an answer of a head that is starting
END_SECONDS = 3.0  # that a head may take by itself: it may be starting, and the service has to be gone in time
TRIES = 3
OTHERS = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN")  # would lead to another cluster, or token
MAX_PATH = 24  # characters of the folder for Ray's files: a unix socket in it has 83 more, and 107 is the limit


def open_cluster(settings: Settings) -> Cluster:
    """The cluster that the settings or RAY_ADDRESS name, else the head of this machine."""
    address = settings.jobs.dashboard or os.environ.get("RAY_ADDRESS")
    if address and address != "local":
        return Cluster(address, settings.jobs.python or "python")
    return LocalHead(settings.state.absolute(), settings.jobs.python)


class Head(BaseModel):
    """The content of head.json: a head that was started, and how to find it."""

    model_config = ConfigDict(frozen=True)

    head: str  # its name in the record of jobs
    pid: int
    started: float  # when its process was created: no other has this pid and this time
    dashboard: str  # http://HOST:PORT
    address: str  # HOST:PORT, as RAY_ADDRESS has it
    folder: str  # of Ray's files; every process of the head has it in its environment

    @property
    def is_alive(self) -> bool:
        """Whether its process is still at work."""
        return is_alive({"host": socket.gethostname(), **self.model_dump()})


class LocalHead(Cluster):
    """The head of this machine: found or started when a job comes, and stopped with the service unless jobs run.

    Args:
        state: folder of the service's state, absolute.
        python: that runs jobs; this one by default.
    """

    local = True

    def __init__(self, state: Path, python: str | None = None) -> None:
        super().__init__(HOST, python or sys.executable)
        self._state = state
        self._file = state / "head.json"
        self._process: subprocess.Popen[bytes] | None = None

    def nodes(self) -> list[Node]:
        return [Node(HOST, processors(), gpus())]

    def open(self, closing: threading.Event) -> RayJobs:
        for _ in range(TRIES):  # somebody else may take a port before Ray does
            head = self.read()
            if head is None or not head.is_alive:
                self.abandon()
                head = self._start()
            if self._wait(head, closing):
                return self._client(head)
            printed = (self._state / "head.log").read_text(encoding="utf-8", errors="replace").strip()[-2000:]
            self.abandon()
        raise Refused(f"Ray does not start on this machine; it printed: {printed or 'nothing'}")

    def client(self, head: str) -> RayJobs | None:
        known = self.read()
        return self._client(known) if known is not None and known.head == head and known.is_alive else None

    def read(self) -> Head | None:
        """The head that head.json names; None where there is none."""
        try:
            return Head.model_validate_json(self._file.read_bytes())
        except (OSError, ValueError):
            return None

    def abandon(self) -> None:
        head = self.read()
        if head is not None:
            self._end(head)
            with contextlib.suppress(OSError):  # it names a head that is gone, which is as good as none
                self._file.unlink(missing_ok=True)

    def close(self, busy: bool) -> None:
        if not busy:
            self.abandon()
        elif self._process is not None:
            self._process.returncode = 0  # it is nobody's child any more: Python would warn that it still runs
            self._process = None

    def _client(self, head: Head) -> RayJobs:
        if self._jobs is None or self._jobs.head != head.head:
            self._jobs = RayJobs(head.dashboard, self._token(), head.head)
        return self._jobs

    def _token(self) -> str:
        """The head's token: without it nobody on this machine can run commands as this user."""
        file = self._state / "ray-token"
        if not file.exists() or not re.fullmatch("[0-9a-f]{64}", file.read_text(errors="replace")):
            write_atomically(file, secrets.token_hex(32), mode=0o600)  # whole, or none: half of one protects nothing
        return file.read_text()

    def _start(self) -> Head:
        """Starts a head; raises Unreachable where there is no room to remember it."""
        folder: Path | None = None
        try:
            self._token()
            ray, folder = _ray(), _short_folder()
            return self._start_in(folder, ray)
        except OSError as error:
            if folder is not None:
                self._end(self._record(0, 0.0, folder, 0, 0))
            raise Unreachable(
                f"no Ray head is started: {error}; jobs wait until there is room, and {self._state} can be written"
            ) from None

    def _start_in(self, folder: Path, ray: str) -> Head:
        port, dashboard, agent, clients = _free_ports(4)
        # By its folder every process of the head is found, should this one be killed before it knows more.
        write_atomically(self._file, self._record(0, 0.0, folder, dashboard, port).model_dump_json(indent=2))
        command = [
            *(ray, "start", "--head", "--block", "--disable-usage-stats"),
            *(f"--node-ip-address={HOST}", f"--dashboard-host={HOST}", "--include-dashboard=true"),
            *(f"--port={port}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"),
            *(f"--ray-client-server-port={clients}", "--min-worker-port=0", "--max-worker-port=0"),
            *(f"--num-cpus={processors()}", f"--num-gpus={gpus()}"),
        ]
        with (self._state / "head.log").open("wb") as log:
            self._process = process = subprocess.Popen(
                command,
                env=self._environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        created = psutil.Process(process.pid).create_time()
        head = self._record(process.pid, created, folder, dashboard, port)
        write_atomically(self._file, head.model_dump_json(indent=2))
        return head

    def _record(self, pid: int, started: float, folder: Path, dashboard: int, port: int) -> Head:
        return Head(
            head=f"local:{pid}:{secrets.token_hex(4)}",
            pid=pid,
            started=started,
            dashboard=f"http://{HOST}:{dashboard}",
            address=f"{HOST}:{port}",
            folder=str(folder),
        )

    def _environment(self, folder: Path) -> dict[str, str]:
        """What the head and its jobs find: Ray's settings are these, and the service's tokens are not there."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in OTHERS and not name.startswith((f"{PREFIX}_", "RAY_JOB_"))
        }
        root = str(Path(__file__).parents[2])
        installed = root in (*site.getsitepackages(), site.getusersitepackages())
        here = [] if installed else [root]  # jobs run the code that the service runs
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

    def _wait(self, head: Head, closing: threading.Event) -> bool:
        """Waits for the head to answer; whether it does, rather than end."""
        jobs = self._client(head)
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if not head.is_alive:
                return False
            try:
                jobs.version(LOOK_SECONDS)
                return True
            except Unreachable as error:
                why = error
            if closing.wait(0.2):
                raise Unreachable("the service ends")
        raise Unreachable(f"the Ray head on this machine does not answer within {START_SECONDS:g} s: {why}")

    def _end(self, head: Head) -> None:
        """Ends the head's processes: itself, then all that have its folder in their environment, or came from those."""
        known = _with_children(processes_of(head.folder))
        if head.is_alive:
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile, or takes too long
                process = psutil.Process(head.pid)
                process.terminate()
                process.wait(END_SECONDS)
        for _ in range(50):  # a process that is being killed may still have started another
            known |= _with_children(processes_of(head.folder))
            left = [process for process in known if _runs(process)]
            if not left:
                break
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(0.1)
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
            self._process = None
        shutil.rmtree(head.folder, ignore_errors=True)


def gpus() -> int:
    """The GPUs that this process may use."""
    import torch

    return torch.cuda.device_count()


def processes_of(folder: str) -> list[psutil.Process]:
    """The processes, of this user, that were started with this folder for Ray's files."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if _was_started_with(process, f"RAY_TMPDIR={folder}") and _runs(process):
                found.append(process)
    return found


def _with_children(processes: list[psutil.Process]) -> set[psutil.Process]:
    """Those of the dashboard write their titles over all of their environment."""
    found = set(processes)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found |= set(process.children(recursive=True))
    return found


def _runs(process: psutil.Process) -> bool:
    """Whether it is this process, not a later one of its number, and has not ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _was_started_with(process: psutil.Process, variable: str) -> bool:
    """Whether a process has a variable. Ray's agents write their titles over the first ones, where psutil stops."""
    try:
        return variable.encode() in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    except FileNotFoundError:  # it has ended, or this system has no such files
        name, _, value = variable.partition("=")
        return process.environ().get(name) == value


def _short_folder() -> Path:
    """A new folder for Ray's files, in /tmp where the usual place has too long a name."""
    long = len(os.fsencode(tempfile.gettempdir())) > MAX_PATH - len("/fbp-12345678")
    return Path(tempfile.mkdtemp(prefix="fbp-", dir="/tmp" if long and Path("/tmp").is_dir() else None))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as servers:
        return [servers.enter_context(socket.create_server((HOST, 0))).getsockname()[1] for _ in range(count)]


def _ray() -> str:
    """The `ray` command of this Python."""
    scripts = os.pathsep.join([str(Path(sys.executable).parent), sysconfig.get_path("scripts")])
    command = shutil.which("ray", path=scripts)
    if command is None:
        raise Refused(f"there is no `ray` command in {scripts}; install the package with its requirements there")
    return command
