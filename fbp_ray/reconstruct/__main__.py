"""`python -m fbp_ray.reconstruct`."""

from __future__ import annotations

from fbp_ray.cli import run_program
from fbp_ray.reconstruct import main

if __name__ == "__main__":
    run_program(main)
