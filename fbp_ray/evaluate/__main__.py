"""`python -m fbp_ray.evaluate --checkpoint runs/NAME --data.dir DIR`: scores a trained model beside the classic FBP."""

from __future__ import annotations

from fbp_ray.cli import run_program
from fbp_ray.evaluate.program import main

if __name__ == "__main__":
    run_program(main)
