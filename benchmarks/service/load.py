"""Clients that ask as soon as they are answered, in processes of their own."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from fbp_ray.errors import RunError

LEFT_OUT = 1.0  # seconds at the beginning


class Seen(NamedTuple):
    """What some clients saw, and what the service spent on it."""

    clients: int
    images_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    failed: int
    client_cores: float
    """Processors that the clients kept busy; a process of theirs that takes a whole one may be what limits."""

    images_of_a_batch: float = 0.0
    computing_ms: float = 0.0
    """Of an image in its batch, copies to and from the device included."""

    processor_ms: float = 0.0
    """Of all the service's threads, an image."""


class _Answers(NamedTuple):
    """What one process of clients saw."""

    seconds: float
    took: list[float]
    failed: int
    cores: float


def ask(port: int, body: Path, clients: int, seconds: float) -> Seen:
    """Has so many clients send the file `body` for so many seconds, in a process for every four cores at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = max(1, min(clients, cores // 4))
    shares = [clients // processes + (number < clients % processes) for number in range(processes)]
    command = [sys.executable, "-m", "benchmarks.service.load", str(port), str(body), str(seconds)]
    running = [subprocess.Popen([*command, str(share)], stdout=subprocess.PIPE, text=True) for share in shares]
    outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise RunError("the clients could not ask; what they printed says why")
    found = [_Answers(**json.loads(output)) for output in outputs]
    took = sorted(spent for answers in found for spent in answers.took)

    def at(share: float) -> float:
        return took[int(share * (len(took) - 1))] * 1000

    return Seen(
        clients=clients,
        images_per_second=sum(len(answers.took) / answers.seconds for answers in found),
        p50_ms=median(took) * 1000,
        p95_ms=at(0.95),
        p99_ms=at(0.99),
        failed=sum(answers.failed for answers in found),
        client_cores=sum(answers.cores for answers in found),
    )


def main() -> None:
    """A process of clients."""
    port, seconds, clients = int(sys.argv[1]), float(sys.argv[3]), int(sys.argv[4])
    body = Path(sys.argv[2]).read_bytes()
    begin = time.perf_counter() + LEFT_OUT
    end = begin + seconds
    took: list[tuple[float, float]] = []
    failed: list[int] = []

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60, blocksize=1 << 20)
        while (began := time.perf_counter()) < end:
            connection.request("POST", "/reconstruct", body)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                failed.append(answer.status)
            elif began >= begin:
                took.append((began, time.perf_counter() - began))
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = max(at + spent for at, spent in took) - begin
    cores = time.process_time() / (elapsed + LEFT_OUT)
    print(json.dumps(_Answers(elapsed, [spent for _, spent in took], len(failed), cores)._asdict()))


if __name__ == "__main__":
    main()
