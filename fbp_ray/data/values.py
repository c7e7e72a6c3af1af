"""What the values of images stand for: in words, and how high they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fbp_ray.data.layout import MU_MAX, MU_WATER
from fbp_ray.data.lodopab import LoDoPaB
from fbp_ray.model import fbp

BRIGHTEST = 0.45
"""Dense bone in LoDoPaB-CT's scale; scans are scaled so that the densest things have it, too."""

WATER = MU_WATER / MU_MAX
"""In LoDoPaB-CT's scale."""


def in_hounsfield(unit: float | None) -> bool:
    """Whether values are CT's in LoDoPaB-CT's scale: only then are there water and Hounsfield units.

    Args:
        unit: 1/m that the value 1 stands for, as `unit_of` gives it; None where that is not known.
    """
    return unit is not None and math.isclose(unit, MU_MAX, rel_tol=1e-4)


def value_words(unit: float) -> str:
    """What an image's values are."""
    if in_hounsfield(unit):
        return "attenuation / MU_MAX"
    return "attenuation in 1/m" if unit == 1 else f"attenuation / ({unit:g} per m)"


def brightest(unit: float, image: Any) -> float:
    """The highest values of images but for a few pixels, to two digits; in CT those of dense bone, whatever they show.

    Args:
        unit: of the images.
        image: a tensor or an array, of any shape.
    """
    if in_hounsfield(unit):
        return BRIGHTEST
    return max(float(f"{np.percentile(np.asarray(image, dtype=np.float64), 99.8):.2g}"), 1e-12)


def brightest_of(dataset: LoDoPaB, unit: float) -> float:
    """That of a part's first image: its ground truth, or a Hann's where there is none."""
    if in_hounsfield(unit):
        return BRIGHTEST
    sample = dataset[0]
    shown = sample.ground_truth if dataset.truth else fbp(sample.observation, dataset.geometry, "hann", 0.7)
    return brightest(unit, shown)
