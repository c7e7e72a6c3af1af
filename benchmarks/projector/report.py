"""The tables: times beside those of other projects, and the targets that this project has set itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.projector.cases import OURS, updates
from benchmarks.projector.peers import ASTRA, DIFFCT, REFERENCE, SKIMAGE, TORCHTOMO
from benchmarks.projector.timing import Timing, best_batch
from fbp_ray.geometry import ParallelBeam

PEERS = (ASTRA, SKIMAGE, TORCHTOMO, DIFFCT, REFERENCE)


def ratios(timing: Timing, timings: Sequence[Timing]) -> dict[str, float]:
    """How many times faster than each peer's quickest this case is, for the same operation on the same device."""
    found = {}
    for peer in PEERS:
        other = best_batch(timings, peer, timing.case.operation, timing.case.device)
        if other is not None:
            found[peer] = other.median / timing.median
    return found


def gups(timing: Timing, geometry: ParallelBeam) -> float:
    """1e9 updates a second: an update is one interpolation and one addition."""
    return updates(geometry, timing.case.operation) / timing.median / 1e9


def speed_table(timings: Sequence[Timing], geometry: ParallelBeam) -> str:
    """ms an image, GUPS, how many times faster than each peer, cores at work, memory beyond the inputs."""
    shown = [peer for peer in PEERS if any(timing.case.implementation == peer for timing in timings)]
    head = ["operation", "by", "batch", "device", "ms an image", "fastest", "GUPS"]
    head += [f"x {peer}" for peer in shown] + ["cores", "extra MB"]
    rows = []
    order = {operation: number for number, operation in enumerate(dict.fromkeys(t.case.operation for t in timings))}
    for timing in sorted(timings, key=lambda timing: (timing.case.device, order[timing.case.operation])):
        case, beside = timing.case, ratios(timing, timings)
        rate = gups(timing, geometry)
        extra = "" if timing.extra_bytes is None else f"{timing.extra_bytes / 1e6:.1f}"
        rows.append(
            [
                case.operation,
                case.implementation + ("" if case.part == 1 else f" ({case.part:.1%} of the angles, scaled)"),
                str(case.batch),
                case.device,
                figure(timing.median * 1e3),
                figure(timing.fastest * 1e3),
                figure(rate) if rate else "",
                *(figure(beside[peer]) if peer in beside else "" for peer in shown),
                f"{sorted(timing.busy)[len(timing.busy) // 2]:.1f}",
                extra,
            ]
        )
    return markdown(head, rows)


@dataclass(frozen=True)
class Target:
    """A figure that this project wants to reach.

    Args:
        name: what it is.
        value: what was measured, from the medians; None where something it needs was not.
        undisturbed: the same from each case's fastest round.
        bound: what is wanted.
        at_least: whether more is better.
    """

    name: str
    value: float | None
    undisturbed: float | None
    bound: float
    at_least: bool = True

    @property
    def holds(self) -> bool | None:
        """None: not measured."""
        if self.value is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def targets(timings: Sequence[Timing], geometry: ParallelBeam) -> list[Target]:
    """The targets on a CPU, all from one run."""
    Measured = tuple[float | None, float | None]

    def ours(operation: str, batch: int) -> Timing | None:
        wanted = (OURS, operation, batch, "cpu")
        cases = ((t, t.case) for t in timings)
        return next((t for t, c in cases if (c.implementation, c.operation, c.batch, c.device) == wanted), None)

    def over(slow: Timing | None, fast: Timing | None) -> Measured:
        return (slow.median / fast.median, slow.fastest / fast.fastest) if slow and fast else (None, None)

    def faster(operation: str, batch: int, peer: str) -> Measured:
        return over(best_batch(timings, peer, operation), ours(operation, batch))

    def beside(first: str, second: str, batch: int) -> Measured:
        return over(ours(first, batch), ours(second, batch))

    def memory(operation: str, batch: int) -> Measured:
        timing, sinograms = ours(operation, batch), 4 * batch * geometry.num_angles * geometry.cells
        value = timing.extra_bytes / sinograms if timing and timing.extra_bytes is not None else None
        return value, value

    return [
        Target("backproject, batch 32: x ASTRA's backprojection", *faster("backproject", 32, ASTRA), 75),
        Target("FBP, batch 32: x ASTRA's FBP", *faster("FBP", 32, ASTRA), 50),
        Target("FBP, batch 32: x torchtomo's FBP, batch 4", *faster("FBP", 32, TORCHTOMO), 22),
        Target("FBP, batch 4: x ASTRA's FBP", *faster("FBP", 4, ASTRA), 45),
        Target("FBP, one image: x ASTRA's FBP", *faster("FBP", 1, ASTRA), 28),
        Target("training step, batch 4: x the reference operator", *faster("training step", 4, REFERENCE), 550),
        Target("project / backproject, time, batch 32", *beside("project", "backproject", 32), 2.0, False),
        Target("FBP, batch 4: extra memory / the sinograms", *memory("FBP", 4), 4.0, False),
        Target("filter / FBP, time, batch 4", *beside("filter", "FBP", 4), 0.45, False),
    ]


def target_table(found: Sequence[Target]) -> str:
    """Each target, what was measured, and whether it holds by the medians."""
    words = {True: "held", False: "missed", None: "not measured"}
    rows = [
        [
            target.name,
            f"{'at least' if target.at_least else 'at most'} {target.bound:g}",
            "" if target.value is None else figure(target.value),
            "" if target.undisturbed is None else figure(target.undisturbed),
            words[target.holds],
        ]
        for target in found
    ]
    return markdown(["target", "wanted", "median", "fastest", ""], rows)


def as_json(timings: Sequence[Timing], geometry: ParallelBeam) -> list[dict[str, Any]]:
    """Everything that was measured, every round of it."""
    return [
        {
            "implementation": timing.case.implementation,
            "operation": timing.case.operation,
            "batch": timing.case.batch,
            "device": timing.case.device,
            "part_of_the_angles": timing.case.part,
            "median_seconds_an_image": timing.median,
            "seconds_an_image": timing.seconds,
            "gups": gups(timing, geometry),
            "times_faster_than": ratios(timing, timings),
            "cores_at_work": timing.busy,
            "extra_bytes": timing.extra_bytes,
        }
        for timing in timings
    ]


def figure(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 0.01 else f"{value:.2g}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns also line up as plain text; all but the leading text columns to the right."""
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    text = [all(not _numeric(row[column]) for row in rows if row[column]) for column in range(len(head))]

    def line(cells: Sequence[str], fit: Callable[[str, int, bool], str]) -> str:
        return "| " + " | ".join(fit(*of) for of in zip(cells, widths, text, strict=True)) + " |"

    def fit(cell: str, width: int, left: bool) -> str:
        return cell.ljust(width) if left else cell.rjust(width)

    rule = line(["" for _ in head], lambda _, width, left: "-" * width if left else "-" * (width - 1) + ":")
    return "\n".join([line(head, fit), rule, *(line(row, fit) for row in rows)])


def _numeric(cell: str) -> bool:
    return cell.replace(".", "", 1).replace("e-", "", 1).isdigit()
