"""Clients that ask as soon as they are answered, in a process of their own."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

LEFT_OUT = 1.0  # seconds at the beginning


class Seen(NamedTuple):
    """What some clients saw."""

    clients: int
    images_per_second: float
    p50_ms: float
    p95_ms: float
    failed: int


def ask(port: int, body: Path, clients: int, seconds: float) -> Seen:
    """Has so many clients send the file `body` for so many seconds."""
    command = [sys.executable, "-m", "benchmarks.service.load", str(port), str(body), str(clients), str(seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Seen(**json.loads(done.stdout))


def main() -> None:
    """The process of the clients."""
    port, clients, seconds = int(sys.argv[1]), int(sys.argv[3]), float(sys.argv[4])
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
    all_spent = sorted(spent for _, spent in took)
    seen = Seen(
        clients=clients,
        images_per_second=len(took) / elapsed,
        p50_ms=median(all_spent) * 1000,
        p95_ms=all_spent[int(0.95 * (len(all_spent) - 1))] * 1000,
        failed=len(failed),
    )
    print(json.dumps(seen._asdict()))


if __name__ == "__main__":
    main()
