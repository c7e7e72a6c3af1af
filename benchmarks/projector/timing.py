"""Timing cases in turns, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.projector.cases import Case


@dataclass
class Timing:
    """What was measured of one case.

    Args:
        case: the case.
        seconds: the time of one image, once for every round.
        busy: the processor cores that were at work on average, once for every round (of this process).
        extra_bytes: the most memory that a call had beyond what was there before it; None: not measured.
    """

    case: Case
    seconds: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    extra_bytes: int | None = None

    @property
    def median(self) -> float:
        """The median time of one image, in seconds."""
        return median(self.seconds)

    @property
    def fastest(self) -> float:
        """The time of one image in the fastest round, in seconds: what other programs disturbed least."""
        return min(self.seconds)


def interleaved(cases: Iterable[Case], rounds: int, after: Callable[[int], None] = lambda _: None) -> list[Timing]:
    """Runs every case once to warm up, then all of them in turn, `rounds` times; `after` gets each round's number."""
    timings = [Timing(case) for case in cases]
    for timing in timings:
        timing.case.run()
    for number in range(rounds):
        for timing in timings:
            _measure(timing)
        after(number + 1)
    return timings


def _measure(timing: Timing) -> None:
    start, processor = time.perf_counter(), time.process_time()
    timing.case.run()
    seconds = time.perf_counter() - start
    timing.seconds.append(seconds / timing.case.images)
    timing.busy.append((time.process_time() - processor) / seconds)


def best_batch(timings: Sequence[Timing], implementation: str, operation: str, device: str = "cpu") -> Timing | None:
    """Of the batches of an implementation that were measured, the one that takes least time an image."""
    found = [
        timing
        for timing in timings
        if (timing.case.implementation, timing.case.operation, timing.case.device)
        == (implementation, operation, device)
    ]
    return min(found, key=lambda timing: timing.median, default=None)
