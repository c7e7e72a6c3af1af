"""Minutes of good requests, bad ones and attacks together, while the model is switched.

No good request fails (503 with Retry-After means only that the service is full), no image is wrong, nothing leaks.
"""

from __future__ import annotations

import http.client
import itertools
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.service.attacks import ATTACKS
from benchmarks.service.server import Material, Server, image_of

CLIENTS = 8
SWITCH_SECONDS = 20.0
ATTACK_SECONDS = 1.0  # from one to the next
TOLERANCE = 1e-5
"""Of the largest value: a batch adds up in another order than a single image does."""

Send = Callable[[http.client.HTTPConnection], None]


class Soaked(NamedTuple):
    """What was seen."""

    seconds: float
    good: int
    failed: int
    """Good requests that were answered neither with 200 nor with 503 and when to try again."""

    busy: int
    """Good requests that were told to try again later."""

    wrong: int
    """Answers whose image is not that of the version that they name."""

    bad: int
    not_refused: int
    """Bad requests that were not answered with the 4xx that they deserve."""

    attacks: int
    health_ms: float
    """The slowest answer of /health/live."""

    switches: int
    versions: int
    p50_ms: float
    p99_ms: float
    memory_mb: tuple[float, ...]
    """After each tenth."""

    complaints: dict[str, int]

    @property
    def growth(self) -> float:
        """Memory at the end over that after the first tenth."""
        return self.memory_mb[-1] / self.memory_mb[0]


def bad_bodies(material: Material) -> list[tuple[bytes, dict[str, str], str, int]]:
    """Body, headers, query and the status that they deserve."""
    good = material.body.read_bytes()
    sinogram = material.sinogram.numpy().copy()
    sinogram[3, 4] = np.nan
    return [
        (b"", {}, "", 400),
        (b"not a sinogram", {}, "", 415),
        (good[:-100], {}, "", 400),
        (good, {}, "?output=gif", 422),
        (good, {}, "?model=nobody", 404),
        (sinogram.tobytes(), {"X-Shape": "1000,513"}, "", 422),
        (sinogram[:, :100].tobytes(), {"X-Shape": "1000,100"}, "", 422),
        (b"\x89HDF\r\n\x1a\n" + bytes(2000), {}, "", 400),
        (b"PK\x03\x04" + bytes(2000), {}, "", 400),
    ]


def soak(server: Server, material: Material, seconds: float, attacked: bool) -> Soaked:
    """Asks for so many seconds, with an attack a second where that is wanted."""
    end = time.perf_counter() + seconds
    counts: Counter[str] = Counter()
    complaints: Counter[str] = Counter()
    took: list[float] = []
    versions: set[str] = set()
    memory: list[float] = []
    good_body = material.body.read_bytes()
    scale = max(float(image.abs().max()) for image in material.images.values())
    bad = bad_bodies(material)

    def good(connection: http.client.HTTPConnection) -> None:
        began = time.perf_counter()
        connection.request("POST", "/reconstruct", good_body)
        answer = connection.getresponse()
        content = answer.read()
        counts["good"] += 1
        if answer.status == 503 and answer.getheader("Retry-After"):
            counts["busy"] += 1
            return
        took.append(time.perf_counter() - began)
        if answer.status != 200:
            counts["failed"] += 1
            complaints[f"{answer.status} {content[:200]!r}"] += 1
            return
        version = str(answer.getheader("X-Model-Version"))
        versions.add(version)
        expected = material.images.get(version)
        error = float("inf") if expected is None else float(torch.dist(image_of(content), expected, float("inf")))
        if not error <= TOLERANCE * scale:
            counts["wrong"] += 1
            complaints[f"{version} differs by {error:.3g}"] += 1

    def refused(connection: http.client.HTTPConnection, number: int) -> None:
        body, headers, query, deserved = bad[number]
        connection.request("POST", f"/reconstruct{query}", body, headers)
        answer = connection.getresponse()
        content = answer.read()
        counts["bad"] += 1
        if answer.status != deserved:
            counts["not_refused"] += 1
            complaints[f"bad {number}: {answer.status}, not {deserved}: {content[:200]!r}"] += 1

    def attacker() -> None:
        names = list(ATTACKS)
        for number in itertools.count():
            if over.wait(ATTACK_SECONDS):
                return
            counts["attacks"] += 1
            threading.Thread(target=ATTACKS[names[number % len(names)]], args=(server.port, over), daemon=True).start()

    def watcher() -> None:
        while not over.wait(0.2):
            began = time.perf_counter()
            try:
                status = server.request("GET", "/health/live")[0]
            except (OSError, http.client.HTTPException) as error:
                status = 0
                complaints[f"/health/live: {error}"] += 1
            health.append(time.perf_counter() - began)
            counts["failed"] += status != 200

    def client(number: int) -> None:
        chance = random.Random(number)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120, blocksize=1 << 20)
        while time.perf_counter() < end:
            try:
                if chance.random() < 0.25:
                    refused(connection, chance.randrange(len(bad)))
                else:
                    good(connection)
            except (OSError, http.client.HTTPException) as error:
                counts["failed"] += 1
                complaints[f"{type(error).__name__}: {error}"] += 1
                connection.close()
        connection.close()

    over = threading.Event()
    health: list[float] = []
    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    threads += [threading.Thread(target=watcher), *([threading.Thread(target=attacker)] if attacked else [])]
    for thread in threads:
        thread.start()
    began, switches = time.perf_counter(), 0
    places = list(material.models.values())
    while (left := end - time.perf_counter()) > 0:
        time.sleep(min(1.0, left))
        elapsed = time.perf_counter() - began
        if elapsed // SWITCH_SECONDS > switches and left > 1:
            switches += 1
            server.activate(places[switches % len(places)])
        if elapsed * 10 // seconds > len(memory):
            memory.append(server.resident_mb())
            print(f"{elapsed:.0f} s: {counts['good']} good, {memory[-1]:.0f} MB", file=sys.stderr, flush=True)
    over.set()
    for thread in threads:
        thread.join()
    return Soaked(
        seconds=seconds,
        good=counts["good"],
        failed=counts["failed"],
        busy=counts["busy"],
        wrong=counts["wrong"],
        bad=counts["bad"],
        not_refused=counts["not_refused"],
        attacks=counts["attacks"],
        health_ms=max(health) * 1000,
        switches=switches,
        versions=len(versions),
        p50_ms=median(took) * 1000,
        p99_ms=sorted(took)[int(0.99 * (len(took) - 1))] * 1000,
        memory_mb=tuple(memory or [server.resident_mb()]),
        complaints=dict(complaints.most_common(20)),
    )
