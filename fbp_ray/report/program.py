"""What a report does: reads the runs, makes the page, writes it."""

from __future__ import annotations

from pathlib import Path

from fbp_ray.errors import RunError
from fbp_ray.report import ReportConfig
from fbp_ray.report.compare import comparison_page
from fbp_ray.report.page import MARK
from fbp_ray.report.sections import run_page
from fbp_ray.report.subject import read_subject
from fbp_ray.storage import Folder, LocalFolder

REPORT = "report.html"


def report(config: ReportConfig) -> None:
    """Writes the page, and says where it is.

    Raises:
        FbpRayError: a place is no run, or the page cannot be written.
    """
    subjects = [read_subject(place) for place in dict.fromkeys(config.runs)]
    alone = len(subjects) == 1
    text = run_page(subjects[0]) if alone else comparison_page(subjects)
    if config.out is not None:
        folder: Folder = LocalFolder(config.out.parent)
        name = config.out.name
    else:
        folder, name = (subjects[0].place, REPORT) if alone else (LocalFolder(Path()), "comparison.html")
    print(f"report {_write(folder, name, text)}")


def write_report(evaluation: Folder) -> str:
    """Writes the report of an evaluation into its folder; returns where it is."""
    return _write(evaluation, REPORT, run_page(read_subject(str(evaluation))))


def _write(folder: Folder, name: str, text: str) -> str:
    """Raises RunError where the page cannot be written, or would replace what is no such page."""
    place = f"{folder}/{name}"
    try:
        if folder.has(name) and MARK.encode() not in folder.read(name)[:1000]:
            raise RunError(f"{place} is there already and is no report; choose another --out, nothing was changed")
        folder.write(name, text)
    except OSError as error:
        raise RunError(f"{place} cannot be written: {error}; choose another --out") from None
    return place
