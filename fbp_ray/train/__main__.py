"""`python -m fbp_ray.train`: trains a learnable FBP. On two processors: `python -m fbp_ray.train --train.epochs 2`."""

from __future__ import annotations

from fbp_ray.cli import run_program
from fbp_ray.train import main

if __name__ == "__main__":
    run_program(main)
