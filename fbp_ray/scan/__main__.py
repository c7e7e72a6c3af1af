"""python -m fbp_ray.scan: a data folder of a raw scan.

python -m fbp_ray.scan tomo.nxs --out data/mine
python -m fbp_ray.scan projections/ --read.flats flats --read.darks darks --read.angles angles.txt --out data/mine
python -m fbp_ray.scan tomo.h5 --out data/mine --rows 400 700 --bin 2 --axis.column 1023.5
"""

from __future__ import annotations

from fbp_ray.cli import run_program
from fbp_ray.scan import main

if __name__ == "__main__":
    run_program(main)
