"""The doctor: `python -m fbp_ray.doctor` says what is wrong with a machine or a cluster, and what to do about it.

cluster  every machine is asked for a report, and the machines connect to each other
machine  the facts that a machine reports
checks   what they mean, compared

The options are here, so that a wrong one is known before torch is imported, and so is what is printed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field
from rich.console import Console

from fbp_ray.cli import parse
from fbp_ray.config import RayConfig
from fbp_ray.settings import Frozen, LocalPath, PlaceName

if TYPE_CHECKING:
    from fbp_ray.doctor.checks import Finding

COLOURS = {"ok": "green", "warning": "yellow", "fault": "red"}


class DataPlace(Frozen):
    """The data that training is to read."""

    dir: LocalPath | None = Field(
        default=None, description="folder in the LoDoPaB-CT layout; without it none is opened"
    )


class RunPlace(Frozen):
    """Where training is to put its runs."""

    storage: PlaceName = Field(
        default="runs", description="folder that holds the run folders, or the URI of one: s3://bucket/runs"
    )


class Network(Frozen):
    """What the machines talk over."""

    interface: str | None = Field(
        default=None, description="network interface between the machines; without it the one of Ray's address"
    )


class DoctorConfig(Frozen):
    """Says what is wrong with this machine or with a cluster, and the remedy. Options mean what they mean to train."""

    data: DataPlace = DataPlace()
    run: RunPlace = RunPlace()
    scaling: Network = Network()
    ray: RayConfig = Field(
        default=RayConfig(), description="the cluster; without an address, and without RAY_ADDRESS, this machine alone"
    )
    quick: bool = Field(default=False, description="leave out the measurement of speed")
    as_json: bool = Field(default=False, alias="json", description="print all findings as JSON")


def main(argv: Sequence[str]) -> None:
    """Looks, prints what it finds, and exits with 1 if there is a fault."""
    config = parse(DoctorConfig, argv, "python -m fbp_ray.doctor")
    with Console(stderr=True).status("looking"):
        from fbp_ray.doctor.cluster import examine  # only now: torch takes seconds to import

        found = examine(config)
    show(found, config.as_json)
    if any(finding.state == "fault" for finding in found):
        sys.exit(1)


def show(findings: Sequence[Finding], as_json: bool) -> None:
    """Prints findings, faults last with their remedies, and how many there are; or all of them as JSON."""
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
        return
    console = Console()
    count = dict.fromkeys(COLOURS, 0)
    width = max((len(finding.machine) for finding in findings), default=0)
    for finding in sorted(findings, key=lambda finding: list(COLOURS).index(finding.state)):
        count[finding.state] += 1
        text = f"{finding.state:<8}{finding.check:<12}{finding.machine:<{width}}  {' '.join(finding.found.split())}"
        console.print(text, style=COLOURS[finding.state], markup=False, highlight=False, soft_wrap=True)
        if finding.remedy:
            console.print(f"        remedy: {finding.remedy}", markup=False, highlight=False, soft_wrap=True)
    print(", ".join(f"{count[s] or 'no'} {s}{'s' * (count[s] != 1)}" for s in ("fault", "warning")))
