"""An evaluation's figures on the terminal, beside what others have published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from fbp_ray.baseline import Quality
from fbp_ray.evaluate.scores import DRAWS, SEED, Interval, Scores
from fbp_ray.report.published import PUBLISHED, headings

FOOT = "PSNR-FR and SSIM-FR take the fixed range 1 instead of each image's own; never compare one kind with the other"
DECIMALS = dict(zip(Quality._fields, (3, 4, 3, 4), strict=True))


def results_table(
    part: str,
    titles: Mapping[str, str],
    scores: Mapping[str, Scores],
    own: Mapping[str, Sequence[float]],
    own_titles: Sequence[str],
    intervals: bool,
) -> Table:
    """The means of every method, and the gains of the one called "learned" over both Hanns.

    Args:
        part: of the data.
        titles: of the methods, by name.
        scores: of each.
        own: of each the means of metrics of somebody's own.
        own_titles: theirs.
        intervals: whether confidence intervals are shown.
    """
    patients = scores["learned"].patients if intervals else None

    def cell(figure: float, places: int, sign: str = "", between: Interval | None = None) -> str:
        text = f"{figure:{sign}.{places}f}"
        if between is None:
            return text
        places -= 1
        return f"{text} ({between[0]:{sign}.{places}f} to {between[1]:{sign}.{places}f})"

    def interval(name: str, figure: str, beside: Scores | None = None) -> Interval | None:
        return scores[name].interval(figure, beside) if intervals else None

    title, caption = f"{part} part, {len(scores['learned'].images)} images", FOOT
    if patients is not None:
        number = len(set(patients))
        title += f" of {number} patient{'s'[: number != 1]}"
        caption += (
            f"\nin brackets: 95 % confidence intervals, bootstrap over patients ({DRAWS} draws, seed {SEED})"
            if number > 1
            else "\none patient: there are no intervals over patients"
        )
    table = Table(title=title, caption=caption)
    table.add_column("method")
    for column in ("PSNR dB", "SSIM", "PSNR-FR dB", "SSIM-FR", *own_titles):
        table.add_column(column, justify="right")
    means = {name: of.mean._asdict() for name, of in scores.items()}
    for name, title in titles.items():
        cells = (cell(means[name][figure], places, "", interval(name, figure)) for figure, places in DECIMALS.items())
        table.add_row(title, *cells, *(cell(figure, 4) for figure in own[name]))
    table.add_section()
    for name in ("hann_psnr", "hann_ssim"):
        cells = (
            cell(means["learned"][figure] - means[name][figure], places, "+", interval("learned", figure, scores[name]))
            for figure, places in DECIMALS.items()
        )
        gains = (cell(one - other, 4, "+") for one, other in zip(own["learned"], own[name], strict=True))
        table.add_row("gain over " + titles[name].removeprefix("FBP, "), *cells, *gains)
    return table


def published_tables(same: bool) -> Iterator[Table]:
    """What has been published; `same` says whether ours are the same images."""
    for on, heading in headings(same).items():
        rows = [row for row in PUBLISHED if row.on == on]
        table = Table(title=heading, caption="source: " + "; ".join(dict.fromkeys(row.source for row in rows)))
        table.add_column("method")
        for column in ("PSNR dB", "SSIM"):
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(f"{row.method} (published)", f"{row.psnr:.2f}", f"{row.ssim:.3f}")
        yield table
