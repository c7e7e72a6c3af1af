"""python -m fbp_ray.simulate: write a data folder in the layout of LoDoPaB-CT.

python -m fbp_ray.simulate --sample --out data
python -m fbp_ray.simulate --images DIR --out data --photons 1024
python -m fbp_ray.simulate --phantoms 100 --out data --seed 1
"""

from __future__ import annotations

from collections.abc import Sequence

from fbp_ray.cli import parse, run_program
from fbp_ray.simulate.config import SimulateConfig
from fbp_ray.simulate.run import simulate


def main(argv: Sequence[str]) -> None:
    """Simulates what the options ask for."""
    simulate(parse(SimulateConfig, argv, "python -m fbp_ray.simulate"))


if __name__ == "__main__":
    run_program(main)
