"""`python -m fbp_ray.doctor`."""

from __future__ import annotations

from fbp_ray.cli import run_program
from fbp_ray.doctor import main

if __name__ == "__main__":
    run_program(main)
