"""The tables: an epoch under Ray beside one under torchrun, one worker beside two."""

from __future__ import annotations

from statistics import median

from benchmarks.projector.report import figure, markdown
from benchmarks.training.runs import BOTH, By, Pair

LEAST_OF_TORCHRUN = 0.92
"""Of the samples/s under torchrun, Ray should reach at least."""

WORKERS = (1, 2)


def rate(pairs: list[Pair], workers: int, by: By) -> float:
    """Samples a second through whole epochs, the median of the rounds."""
    return median(pair.rate(by) for pair in pairs if pair.workers == workers)


def ratios(pairs: list[Pair], workers: int) -> list[float]:
    """How fast the turns under Ray were beside those under torchrun that came with them, slowest first."""
    return sorted(ratio for pair in pairs if pair.workers == workers for ratio in pair.of_torchrun)


def of_torchrun(pairs: list[Pair], workers: int) -> float:
    """The median of those."""
    return median(ratios(pairs, workers))


def table(pairs: list[Pair]) -> str:
    """A line a case."""
    head = ["workers", "by", "samples/s", "steps alone", "of torchrun", "half of the turns", "of 1 worker"]
    head += ["start-up s", "end s"]
    rows = []
    for workers in WORKERS:
        found = ratios(pairs, workers)
        quarter = len(found) // 4
        for by in BOTH:
            figures = [pair.by[by] for pair in pairs if pair.workers == workers]
            rows.append(
                [
                    str(workers),
                    by,
                    figure(rate(pairs, workers, by)),
                    figure(median(one.steps_per_second for one in figures)),
                    f"{of_torchrun(pairs, workers):.1%}" if by == "Ray" else "",
                    f"{found[quarter]:.1%} to {found[-1 - quarter]:.1%}" if by == "Ray" else "",
                    f"{rate(pairs, workers, by) / rate(pairs, 1, by):.2f}" if workers > 1 else "",
                    figure(median(one.start_up for one in figures)),
                    figure(median(one.after for one in figures)),
                ]
            )
    return markdown(head, rows)


def target_table(pairs: list[Pair]) -> str:
    """Whether the targets hold."""
    rows = []
    for workers in WORKERS:
        share = of_torchrun(pairs, workers)
        holds = "holds" if share >= LEAST_OF_TORCHRUN else "MISSED"
        name = "worker" if workers == 1 else "workers"
        rows.append([f"an epoch under Ray, {workers} {name}", f"{LEAST_OF_TORCHRUN:.0%}", f"{share:.1%}", holds])
    same = all(pair.by["Ray"].weights == pair.by["torchrun"].weights for pair in pairs)
    rows.append(
        ["the same weights by both, bit for bit", "yes", "yes" if same else "no", "holds" if same else "MISSED"]
    )
    return markdown(["what", "target", "seen", ""], rows)
