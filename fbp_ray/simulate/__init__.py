"""LoDoPaB-CT-like data from CT slices or phantoms: the same files, geometry, units and noise as the genuine set.

    simulate(SimulateConfig(sample=True, out="data", train=96, validation=16, test=32))

does what `python -m fbp_ray.simulate --sample --out data --train 96 --validation 16 --test 32` does.
"""

from __future__ import annotations

from fbp_ray.simulate.program import SimulateConfig, sample_data, simulate

__all__ = ["SimulateConfig", "sample_data", "simulate"]
