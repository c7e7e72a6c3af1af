"""What is found, for a person at a terminal, for a log and for a program."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fbp_ray.doctor.finding import Finding

COLOURS = {"ok": "green", "warning": "yellow", "fault": "red"}


def show(findings: Iterable[Finding], as_json: bool) -> list[Finding]:
    """Prints findings, and what to do about them; returns them all."""
    console = Console()
    if as_json:
        found = list(findings)
        print(json.dumps([finding._asdict() for finding in found], indent=2))
        return found
    if console.is_terminal:
        found = _with_table(findings, console)
    else:
        found = []
        for finding in findings:
            print(line(finding), flush=True)  # a log is to show how far it is
            found.append(finding)
    for text in advice(found):
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    return found


def line(finding: Finding) -> str:
    """A finding in one line."""
    return f"{finding.state:<8}{finding.check:<12}{finding.machine}: {' '.join(finding.found.split())}"


def advice(findings: Sequence[Finding]) -> list[str]:
    """What is wrong, with the way out, faults last; and what it comes to."""
    lines = []
    for state in ("warning", "fault"):
        for finding in findings:
            if finding.state == state:
                found = " ".join(finding.found.split())
                lines += ["", f"{state}: {finding.check}, {finding.machine}: {found}", f"  way out: {finding.way_out}"]
    faults, warnings = (sum(finding.state == state for finding in findings) for state in ("fault", "warning"))
    return [*lines, "", f"{_count(faults, 'fault')}, {_count(warnings, 'warning')}"]


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'s' * (number != 1)}"


def _with_table(findings: Iterable[Finding], console: Console) -> list[Finding]:
    found = []
    with console.status("looking") as status:
        for finding in findings:
            found.append(finding)
            status.update(f"looking: {finding.check}")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("state", "check", "machine", "found"):
        table.add_column(heading, no_wrap=heading in ("state", "check"), overflow="fold")
    for finding in found:
        state = f"[{COLOURS[finding.state]}]{finding.state}[/]"
        table.add_row(state, finding.check, escape(finding.machine), escape(" ".join(finding.found.split())))
    console.print(table)
    return found
