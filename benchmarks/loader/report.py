"""The tables: samples a second beside h5py alone and a GPU's need, and what it would take to meet that."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.loader.files import TRAIN
from benchmarks.loader.readers import CASES, Case, rate
from benchmarks.loader.training import Epoch
from benchmarks.projector.report import figure, markdown

NEED = 4000.0
"""Samples a second that one GPU computes."""

MIN_OF_BARE = 0.75
"""Of what h5py alone reads, the loader should at least."""

MAX_READING = 0.05
"""Of the time of an epoch on the processor, reading should take less."""


def of_bare(found: dict[Case, list[float]], case: Case) -> float:
    """How fast a case is beside h5py alone, from the same files with as many processes."""
    return rate(found, case) / rate(found, case._replace(how="h5py alone"))


def speed_table(found: dict[Case, list[float]]) -> str:
    """A line a case: samples/s, beside h5py alone, beside a GPU's need."""
    head = ["files", "read by", "processes", "samples/s", "slowest", "fastest", "of h5py alone", f"of {NEED:.0f}/s"]
    rows = [
        [
            case.layout,
            case.how,
            str(case.processes),
            figure(rate(found, case)),
            figure(min(found[case])),
            figure(max(found[case])),
            f"{of_bare(found, case):.0%}",
            f"{rate(found, case) / NEED:.0%}",
        ]
        for case in CASES
    ]
    return markdown(head, rows)


def needed(found: dict[Case, list[float]], case: Case) -> int:
    """Processes, each with a core for reading, that read NEED samples/s if more of them are as fast as two are each.

    An extrapolation: memory, the disk and the network do not get faster with more cores.
    """
    if rate(found, case._replace(processes=1)) >= NEED:
        return 1
    return max(2, math.ceil(NEED / (rate(found, case._replace(processes=2)) / 2)))


def need_table(found: dict[Case, list[float]]) -> str:
    """What it takes to reach what a GPU needs."""
    head = ["files", "read by", "1 process", "2 processes", "x", f"processes for {NEED:.0f}/s"]
    rows = []
    for case in CASES:
        if case.processes == 1 and not case.how.startswith("h5py"):
            one, two = rate(found, case), rate(found, case._replace(processes=2))
            count = needed(found, case)
            words = f"{count}" if count <= 2 else f"{count}, extrapolated"
            rows.append([case.layout, case.how, figure(one), figure(two), f"{two / one:.2f}", words])
    return markdown(head, rows)


def epoch_table(epochs: Sequence[Epoch]) -> str:
    """What reading takes of the time of an epoch on the processor."""
    head = ["files", "seconds", "waited", "waited / all", "reading alone, on the processor", "reading / all"]
    rows = [
        [
            epoch.layout,
            figure(epoch.seconds),
            figure(epoch.waited),
            f"{epoch.waited / epoch.seconds:.1%}",
            figure(epoch.reading),
            f"{epoch.reading / epoch.seconds:.1%}",
        ]
        for epoch in epochs
    ]
    return markdown(head, rows)


def target_table(found: dict[Case, list[float]], epochs: Sequence[Epoch]) -> str:
    """What was aimed at, and whether the medians meet it."""
    rows = []
    for case in CASES:
        if case.how == "loader" and case.processes == 1:
            part = of_bare(found, case)
            name, wanted = f"{case.layout}: of h5py alone", f"at least {MIN_OF_BARE:.0%}"
            rows.append([name, wanted, f"{part:.0%}", _met(part >= MIN_OF_BARE)])
    for epoch in epochs:
        waited, reading = epoch.waited / epoch.seconds, epoch.reading / epoch.seconds
        name, wanted = f"{epoch.layout}: waiting, and reading, of an epoch", f"under {MAX_READING:.0%}"
        rows.append([name, wanted, f"{waited:.1%} and {reading:.1%}", _met(max(waited, reading) < MAX_READING)])
    return markdown(["target", "wanted", "median", ""], rows)


def _met(holds: bool) -> str:
    return "met" if holds else "missed"


def memory_table(found: dict[str, dict[int, tuple[int, int]]]) -> str:
    """Resident memory at its highest, by layout and number of samples."""
    head = ["files", "samples", "MB before", "MB at most", f"{TRAIN} / fewest"]
    rows = []
    for layout, sizes in found.items():
        fewest = sizes[min(sizes)][1]
        for samples, (before, most) in sizes.items():
            rows.append([layout, str(samples), f"{before / 1e6:.0f}", f"{most / 1e6:.0f}", f"{most / fewest:.3f}"])
    return markdown(head, rows)
