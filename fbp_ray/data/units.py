"""The attenuations that LoDoPaB-CT's units rest on, in 1/m; source: its generator and Leuschner et al. (2021)."""

from __future__ import annotations

MU_WATER = 20.0
MU_AIR = 0.02
MU_MAX = 3071 * (MU_WATER - MU_AIR) / 1000 + MU_WATER
"""Attenuation at 3071 HU, 81.35858 /m: every stored value, image or line integral, is divided by it."""
