"""`python -m fbp_ray.report`."""

from __future__ import annotations

from fbp_ray.cli import run_program
from fbp_ray.report import main

if __name__ == "__main__":
    run_program(main)
