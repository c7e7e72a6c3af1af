"""Minutes of good and bad requests together, while the model is switched: no failure, no wrong image, no leak."""

from __future__ import annotations

import http.client
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

from benchmarks.service.server import Material, Server, image_of

CLIENTS = 8
SWITCH_SECONDS = 20.0
TOLERANCE = 1e-5
"""Of the largest value: a batch adds up in another order than a single image does."""

Send = Callable[[http.client.HTTPConnection], None]


class Soaked(NamedTuple):
    """What was seen."""

    seconds: float
    good: int
    failed: int
    """Good requests that were not answered with 200."""

    wrong: int
    """Answers whose image is not that of the version that they name."""

    bad: int
    not_refused: int
    """Bad requests that were not answered with the 4xx that they deserve."""

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


def soak(server: Server, material: Material, seconds: float) -> Soaked:
    """Asks for so many seconds."""
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

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
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
    for thread in threads:
        thread.join()
    return Soaked(
        seconds=seconds,
        good=counts["good"],
        failed=counts["failed"],
        wrong=counts["wrong"],
        bad=counts["bad"],
        not_refused=counts["not_refused"],
        switches=switches,
        versions=len(versions),
        p50_ms=median(took) * 1000,
        p99_ms=sorted(took)[int(0.99 * (len(took) - 1))] * 1000,
        memory_mb=tuple(memory or [server.resident_mb()]),
        complaints=dict(complaints.most_common(20)),
    )
