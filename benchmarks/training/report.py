"""The tables: an epoch under Ray beside one under torchrun, one worker beside two."""

from __future__ import annotations

from statistics import median

from benchmarks.projector.report import figure, markdown
from benchmarks.training.runs import CASES, Case, Figures

LEAST_OF_TORCHRUN = 0.95
"""Of the samples/s under torchrun, Ray should reach at least."""

Found = dict[Case, list[Figures]]


def rate(found: Found, case: Case) -> float:
    """Samples a second through whole epochs, the median of the rounds."""
    return median(one.samples_per_second for one in found[case])


def of_torchrun(found: Found, workers: int) -> float:
    """How fast an epoch under Ray is beside one under torchrun: the median over the rounds, each its own pair."""
    pairs = zip(found[Case("Ray", workers)], found[Case("torchrun", workers)], strict=True)
    return median(ray.samples_per_second / plain.samples_per_second for ray, plain in pairs)


def table(found: Found) -> str:
    """A line a case."""
    head = ["workers", "by", "samples/s", "slowest", "fastest", "steps alone", "of torchrun", "of 1 worker"]
    head += ["start-up s", "end s"]
    rows = []
    for case in CASES:
        rates = [one.samples_per_second for one in found[case]]
        rows.append(
            [
                str(case.workers),
                case.by,
                figure(rate(found, case)),
                figure(min(rates)),
                figure(max(rates)),
                figure(median(one.steps_per_second for one in found[case])),
                f"{of_torchrun(found, case.workers):.1%}" if case.by == "Ray" else "",
                f"{rate(found, case) / rate(found, Case(case.by, 1)):.2f}" if case.workers > 1 else "",
                figure(median(one.start_up for one in found[case])),
                figure(median(one.after for one in found[case])),
            ]
        )
    return markdown(head, rows)


def target_table(found: Found) -> str:
    """Whether the targets hold."""
    rows = []
    for workers in sorted({case.workers for case in CASES}):
        share = of_torchrun(found, workers)
        holds = "holds" if share >= LEAST_OF_TORCHRUN else "MISSED"
        rows.append([f"an epoch under Ray, {workers} workers", f"{LEAST_OF_TORCHRUN:.0%}", f"{share:.1%}", holds])
    digests = {(case.workers, one.weights) for case in CASES for one in found[case]}
    same = len(digests) == len({workers for workers, _ in digests})
    rows.append(
        ["the same weights by both, bit for bit", "yes", "yes" if same else "no", "holds" if same else "MISSED"]
    )
    return markdown(["what", "target", "seen", ""], rows)
