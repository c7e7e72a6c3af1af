"""`python -m fbp_ray.report RUN ..`: one HTML page of a run and its evaluation, or one that compares several runs.

The options are here, so that a wrong one is known before torch is imported; `program` is what it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import CliPositionalArg

from fbp_ray.cli import parse
from fbp_ray.settings import Frozen, LocalPath, PlaceName


def _html(file: Path) -> Path:
    if file.suffix.lower() not in (".html", ".htm"):
        raise ValueError("must end in .html")
    return file


class ReportConfig(Frozen):
    """Writes one HTML page that needs no network: of a run and its evaluation, or of several runs side by side."""

    runs: CliPositionalArg[Annotated[list[PlaceName], Field(min_length=1)]] = Field(
        description="run folders, their checkpoints or evaluations, URIs of them, or chest-low-dose"
    )
    out: Annotated[LocalPath, AfterValidator(_html)] | None = Field(
        default=None,
        description="the page; without it report.html in the run folder, of several runs comparison.html here",
    )


def main(argv: Sequence[str]) -> None:
    """Writes the page of the runs that the options name."""
    config = parse(ReportConfig, argv, "python -m fbp_ray.report")
    from fbp_ray.report.program import report  # only now: torch takes seconds to import

    report(config)
