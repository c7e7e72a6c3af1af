"""`python -m fbp_ray.doctor`: what is wrong with this machine, or with a cluster, and the way out."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fbp_ray.cli import parse, run_program
from fbp_ray.doctor.checks import DoctorConfig, examine
from fbp_ray.doctor.report import show


def main(argv: Sequence[str]) -> None:
    """Looks, prints what it finds, and exits with 1 if there is a fault."""
    config = parse(DoctorConfig, argv, "python -m fbp_ray.doctor")
    found = show(examine(config), config.as_json)
    if any(finding.state == "fault" for finding in found):
        sys.exit(1)


if __name__ == "__main__":
    run_program(main)
