"""Two hosts on one machine, each with a Ray node of its own, for tests of what happens when one goes away.

Where this process may make network namespaces, each host is one, and what crosses between them crosses a network.
Elsewhere both share the loopback: machines can still be lost and come back, but no interface has to be found.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

RAY = str(Path(sys.executable).with_name("ray"))
PORT = 6399
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


class Host:
    """One host.

    Args:
        address: its IPv4 address.
        folder: for Ray's files; short, as it holds unix sockets.
        namespace: its network namespace, None for that of this process.
    """

    def __init__(self, address: str, folder: Path, namespace: str | None) -> None:
        self.address = address
        self.folder = folder
        self.namespace = namespace
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self, command: Sequence[str], log: Path, without: Path | None = None, **environment: str
    ) -> subprocess.Popen[bytes]:
        """Starts a program there; one that finds the folder `without` empty, if that is given."""
        enter = [] if self.namespace is None else ["ip", "netns", "exec", self.namespace]
        if without is not None:
            empty = 'mount -t tmpfs empty "$0" && exec "$@"'
            enter = [*enter, "unshare", "--mount", "sh", "-c", empty, str(without)]
        with log.open("ab") as file:
            process = subprocess.Popen(
                [*enter, *command],
                env={**os.environ, **QUIET, "RAY_TMPDIR": str(self.folder), **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parents[2],
            )
        self._started.append(process)
        return process

    def start_ray(self, head: Host, log: Path, cpus: int = 1, without: Path | None = None, **environment: str) -> None:
        """Starts a Ray node, the head or one that joins it, and waits until it says that it runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        role = ["--head", f"--port={PORT}", "--include-dashboard=false"]
        if head is not self:
            role = [f"--address={head.address}:{PORT}"]
        common = [f"--node-ip-address={self.address}", f"--num-cpus={cpus}", "--disable-usage-stats", "--block"]
        before = log.stat().st_size if log.exists() else 0
        words = [RAY, "start", *role, *common, "--object-store-memory=100000000"]
        process = self.start(words, log, without, **environment)
        for _ in range(900):
            if b"Ray runtime started" in log.read_bytes()[before:]:
                return
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        raise AssertionError(log.read_text())

    def processes(self) -> list[psutil.Process]:
        """The processes there."""
        if self.namespace is not None:
            found = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=False)
            return _alive(int(pid) for pid in found.stdout.split())
        return _alive(process.pid for started in self._started for process in family(started.pid))

    def kill(self) -> None:
        """What a power failure does: every process there is gone at once."""
        for _ in range(50):
            processes = self.processes()
            if not processes:
                break
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(0.1)
        for started in self._started:
            started.wait()
        self._started.clear()


def family(pid: int) -> list[psutil.Process]:
    """A process, its children and theirs."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _alive(pids: Iterable[int]) -> list[psutil.Process]:
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def namespaces_work() -> bool:
    """Whether this process may make network namespaces."""
    if shutil.which("ip") is None:
        return False
    name = f"fbp{os.getpid()}p"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    if made:
        subprocess.run(["ip", "netns", "del", name], check=True)
    return made


@contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """Two hosts that see each other; at the end nothing is left of them."""
    if namespaces_work():
        tag = f"fbp{os.getpid()}"
        first, second = (Host(f"10.77.0.{n}", folder / str(n), f"{tag}{n}") for n in (1, 2))
    else:
        first, second = (Host("127.0.0.1", folder / str(n), None) for n in (1, 2))
    try:
        if first.namespace and second.namespace:
            for host in (first, second):
                _ip("netns", "add", str(host.namespace))
            ends = ("eth0", "netns", first.namespace), ("eth0", "netns", second.namespace)
            _ip("link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1])
            for host in (first, second):
                _ip("-n", str(host.namespace), "addr", "add", f"{host.address}/24", "dev", "eth0")
                _ip("-n", str(host.namespace), "link", "set", "eth0", "up")
                _ip("-n", str(host.namespace), "link", "set", "lo", "up")
        yield first, second
    finally:
        for host in (first, second):
            host.kill()
            if host.namespace:
                subprocess.run(["ip", "netns", "del", host.namespace], capture_output=True, check=False)
            shutil.rmtree(host.folder, ignore_errors=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
