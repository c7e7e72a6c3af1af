"""Hosts as containers are: each with a network, processes, a name, a file system and a user of its own.

They are made with `unshare`, `nsenter` and `ip`, as root or as root of a user namespace, in a process that has a
network and processes of its own already (`replay.py` sees to it): when that ends, nothing is left of them.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

NETWORK = "10.77.0"
OUTSIDE = f"{NETWORK}.254"
# Gives a folder new entries without touching those of the machine: they stay what they are, in a folder of memory.
COVER = """
cover() {
  mkdir -p "$scratch$1"
  mount --rbind "$1" "$scratch$1"
  mount -t tmpfs -o mode=755 cover "$1"
  for entry in "$scratch$1"/*; do
    if [ -d "$entry" ]; then
      mkdir -p "$1/${entry##*/}"
      mount --rbind "$entry" "$1/${entry##*/}"
    fi
  done
}
bind() {
  mkdir -p "$2"
  mount --rbind "$1" "$2"
}
mount -t tmpfs scratch "$scratch"
"""
_INIT = """
read -r go
hostname "$name"
%s
mount --bind "$hosts" /etc/hosts
mount --bind "$hosts.dns" /etc/resolv.conf
mount --bind "$hosts.users" /etc/passwd
mount -t tmpfs -o size="$shm" shm /dev/shm
cd /
mount -t tmpfs -o mode=1777 tmp /tmp
cd /srv/fbp-ray
"$@" &
wait $!
"""


class Host:
    """One of them.

    Args:
        name: of the host.
        number: of its address.
        mounts: shell lines that put its files in place; they know `cover` and `bind`.
        hosts: a file for /etc/hosts; beside it, with the endings .dns and .users, those for
            /etc/resolv.conf and /etc/passwd.
        user: the program that gives up root, with its options; nothing where that cannot be.
        log: where what it prints goes.
    """

    def __init__(self, name: str, number: int, mounts: str, hosts: Path, user: Sequence[str], log: Path) -> None:
        self.name = name
        self.address = f"{NETWORK}.{number}"
        self.log = log
        self._link = f"host{number}"
        self._mounts = mounts
        self._hosts = hosts
        self._user = list(user)
        self._environment: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str], environment: Mapping[str, str], shm: str = "2g") -> None:
        """Starts the host, and its only program."""
        self._environment = dict(environment)
        scratch = self._hosts.with_name("scratch")
        scratch.mkdir(exist_ok=True)
        own = {"name": self.name, "hosts": str(self._hosts), "shm": shm, "scratch": str(scratch)}
        unshare = ["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*unshare, "sh", "-euc", COVER + _INIT % self._mounts, "host", *self._user, *command],
                env={**environment, **own},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._process = process
        mine = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{process.pid}/ns/net").readlink() == mine:
            time.sleep(0.01)
        _run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", str(process.pid))
        _run("ip", "link", "set", self._link, "master", "hosts", "up")
        for words in (
            f"addr add {self.address}/24 dev eth0",
            "link set lo up",
            "link set eth0 up",
            f"route add default via {OUTSIDE}",
        ):
            _run("nsenter", "--net", "--target", str(process.pid), "ip", *words.split())
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.close()

    def execute(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Runs a command there, as `docker exec` does."""
        assert self._process is not None
        inside = psutil.Process(self._process.pid).children()[0].pid
        enter = ["nsenter", "--target", str(inside), "--net", "--mount", "--pid", "--uts"]
        there = ["sh", "-c", 'cd /srv/fbp-ray && exec "$@"', "execute"]
        return subprocess.run(
            [*enter, *there, *self._user, *command], env=self._environment, capture_output=True, text=True, check=False
        )

    def running(self) -> bool:
        """Whether its program runs."""
        return self._process is not None and self._process.poll() is None

    def processes(self) -> list[psutil.Process]:
        """What runs there."""
        found = []
        if self._process is not None:
            with contextlib.suppress(psutil.Error):
                found = psutil.Process(self._process.pid).children(recursive=True)
        return found

    def kill(self) -> None:
        """What a power failure does: all of it is gone at once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
        while subprocess.run(["ip", "link", "del", self._link], capture_output=True, check=False).returncode == 0:
            time.sleep(0.05)


class Names(threading.Thread):
    """Tells hosts the addresses of names, as the name server of a container engine does: all that a name has.

    Args:
        addresses: of each name, in lower case.
    """

    def __init__(self, addresses: Mapping[str, Sequence[str]]) -> None:
        super().__init__(daemon=True)
        self._addresses = addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((OUTSIDE, 53))

    def run(self) -> None:
        """Answers until the process ends."""
        while True:
            query, client = self._socket.recvfrom(512)
            with contextlib.suppress(IndexError, UnicodeDecodeError):
                self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        """The answer to a question (RFC 1035, 4.1)."""
        labels, position = [], 12
        while length := query[position]:
            labels.append(query[position + 1 : position + 1 + length].decode().lower())
            position += length + 1
        question = query[12 : position + 5]
        kind = int.from_bytes(question[-4:-2], "big")
        known = self._addresses.get(".".join(labels))
        found = known or [] if kind == 1 else []  # A; there are no others
        answers = b"".join(b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4" + socket.inet_aton(address) for address in found)
        flags = 0x8580 if known is not None else 0x8583  # there is no such name
        counts = b"\0\1" + len(found).to_bytes(2, "big") + b"\0\0\0\0"
        return query[:2] + flags.to_bytes(2, "big") + counts + question + answers


def make_network() -> None:
    """The network between the hosts, which this process is in as well."""
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", "hosts", "type", "bridge")
    _run("ip", "addr", "add", f"{OUTSIDE}/24", "dev", "hosts")
    _run("ip", "link", "set", "hosts", "up")


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
