"""The tables: throughput against concurrency, the soak, the targets."""

from __future__ import annotations

from statistics import median

from benchmarks.projector.report import figure, markdown
from benchmarks.service.load import Seen
from benchmarks.service.soak import Soaked

Found = dict[tuple[bool, int], list[Seen]]
"""By whether there was batching, and the number of clients; an entry a round."""

_SPENT = "images_of_a_batch", "computing_ms", "processor_ms"
SINGLE_MS, OF_BARE, OF_SINGLE, CONCURRENCY, GROWTH, HEALTH_MS = 80.0, 1.5, 4.0, 16, 1.05, 200.0


def middle(found: Found, batching: bool, clients: int, what: str) -> float:
    """The median of the rounds."""
    return median(float(getattr(seen, what)) for seen in found[batching, clients])


def throughput_table(found: Found) -> str:
    """A line a number of clients."""
    head = ["clients", "images/s", "p50 ms", "p99 ms", "a batch", "computing", "processors"]
    head += ["images/s without batching", "p50 ms", "p99 ms", "batching gives"]
    rows = []
    for clients in sorted({clients for _, clients in found}):
        cells = [
            figure(middle(found, batching, clients, what))
            for batching, names in (
                (True, ("images_per_second", "p50_ms", "p99_ms", *_SPENT)),
                (False, ("images_per_second", "p50_ms", "p99_ms")),
            )
            for what in names
        ]
        gain = middle(found, True, clients, "images_per_second") / middle(found, False, clients, "images_per_second")
        rows.append([str(clients), *cells, f"{gain:.2f} x"])
    return markdown(head, rows)


def computing_share(found: Found) -> float:
    """The part of a lone client's request that is the model's, copies to and from the device included."""
    return middle(found, True, 1, "computing_ms") / middle(found, True, 1, "p50_ms")


def soak_table(soaked: Soaked) -> str:
    """What happened in the minutes of the soak."""
    rows = [
        ["seconds", figure(soaked.seconds)],
        ["good requests", str(soaked.good)],
        ["of them failed", str(soaked.failed)],
        ["of them told to try again later (503)", str(soaked.busy)],
        ["wrong images", str(soaked.wrong)],
        ["bad requests", str(soaked.bad)],
        ["of them not refused as they should be", str(soaked.not_refused)],
        ["attacks", str(soaked.attacks)],
        ["slowest answer of /health/live, ms", figure(soaked.health_ms)],
        ["switches of the model", str(soaked.switches)],
        ["p50 / p99 of good requests, ms", f"{figure(soaked.p50_ms)} / {figure(soaked.p99_ms)}"],
        ["memory after each tenth, MB", ", ".join(f"{value:.0f}" for value in soaked.memory_mb)],
    ]
    return markdown(["soak", ""], rows)


def target_table(found: Found, bare_ms: float, soaked: Soaked | None, gpu: bool) -> str:
    """Whether the targets hold; those of speed are for processors. Empty where there are none."""
    p50 = middle(found, True, 1, "p50_ms")
    many = middle(found, True, CONCURRENCY, "images_per_second") / middle(found, False, 1, "images_per_second")
    rows = [
        ["p50 of a single request", f"{SINGLE_MS:g} ms", f"{p50:.1f} ms", p50 <= SINGLE_MS],
        ["of the bare call of the model", f"{OF_BARE:g} x", f"{p50 / bare_ms:.2f} x", p50 <= OF_BARE * bare_ms],
        [
            f"images/s of {CONCURRENCY} clients, of one client's without batching",
            f"{OF_SINGLE:g} x",
            f"{many:.2f} x",
            many >= OF_SINGLE,
        ],
    ]
    rows = [] if gpu else rows
    if soaked is not None:
        steady = soaked.growth <= GROWTH
        seen = str(soaked.failed), str(soaked.wrong), f"{soaked.growth:.3f}"
        rows += [
            ["soak: good requests that failed", "0", seen[0], soaked.failed == 0],
            ["soak: wrong images", "0", seen[1], soaked.wrong == 0],
            [
                "soak: slowest /health/live",
                f"{HEALTH_MS:g} ms",
                f"{soaked.health_ms:.0f} ms",
                soaked.health_ms <= HEALTH_MS,
            ],
            ["soak: bad requests not refused", "0", str(soaked.not_refused), soaked.not_refused == 0],
            ["soak: memory at the end, of that after the first tenth", f"{GROWTH:g}", seen[2], steady],
        ]
    if not rows:
        return ""
    shown = [[what, target, seen, "holds" if holds else "MISSED"] for what, target, seen, holds in rows]
    return markdown(["what", "target", "seen", ""], [[str(cell) for cell in row] for row in shown])
