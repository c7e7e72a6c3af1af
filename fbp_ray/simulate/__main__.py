"""python -m fbp_ray.simulate: write a data folder in the layout of LoDoPaB-CT, or CT slices with less dose.

python -m fbp_ray.simulate --sample --out data
python -m fbp_ray.simulate --images DIR --out data --photons 1024
python -m fbp_ray.simulate --phantoms 100 --out data --seed 1
python -m fbp_ray.simulate --images DIR --like-dose 0.25 --out DIR-25
"""

from __future__ import annotations

from fbp_ray.cli import run_program
from fbp_ray.simulate import main

if __name__ == "__main__":
    run_program(main)
