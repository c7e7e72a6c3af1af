"""Whether a model reconstructs: it is tried on a phantom before it serves, which also compiles what it needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fbp_ray.data.values import BRIGHTEST, WATER
from fbp_ray.errors import CheckpointError
from fbp_ray.geometry import Geometry
from fbp_ray.metrics import relative_error
from fbp_ray.projector import project
from service.batching import RECORDED, Engine, classic

MAX_PHANTOM_ERROR = 0.5
"""The largest relative error on the phantom; where the classic FBP of a scan is that bad too, twice its error."""

ON_CPU = (1, 2, 4)
"""Batches that a processor has kernels of their own for: with eight mirror images of each they fill 8, 16, 32 lanes."""


def soft_disc(geometry: Geometry, high: float = BRIGHTEST) -> Tensor:
    """A disc with a soft edge and a denser spot in it: (H, W).

    It is of water in LoDoPaB-CT's scale, and in another as bright as water would be if bone had the value `high`.
    """
    parallel = geometry.parallel
    reach = min(abs(geometry.x[0]), abs(geometry.y[0]), parallel.cells * parallel.cell_size / 2)
    x, y = geometry.x[:, None] / reach, geometry.y[None, :] / reach

    def disc(centre: float, radius: float) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp((np.hypot(x - centre, y) - radius) / 0.05)))

    image = high * WATER / BRIGHTEST * (disc(0.0, 0.6) + 0.5 * disc(0.25, 0.15))
    return torch.from_numpy(image.astype(np.float32))


def batch_sizes(device: torch.device, most: int) -> Sequence[int]:
    """Batches of at most `most` images that are compiled or recorded apart: on a GPU one for each power of two."""
    if device.type == "cpu":
        return ON_CPU
    powers = (1 << power for power in range((most - 1).bit_length() + 1))
    return sorted({min(count, most) for count in (*powers, *range(1, RECORDED + 1))})


def verify(engine: Engine, source: str, high: float = BRIGHTEST, batches: Sequence[int] = ON_CPU) -> float:
    """The relative error of the built-in phantom's images, one alone and in batches; compiles what they need.

    Args:
        engine: the model.
        source: of it, in words.
        high: what the densest things have in the images that it was trained on: networks and windows by noise are made
            for such values.
        batches: how many sinograms each has; `batch_sizes` says which are compiled apart.

    Raises:
        CheckpointError: the images are not the phantom, or not finite.
    """
    phantom = soft_disc(engine.geometry, high)
    with torch.inference_mode():
        sinogram = project(phantom[None], engine.geometry)
        images = [image for count in batches for image in engine.run(sinogram.expand(count, -1, -1).contiguous())]
        reference = classic(engine.geometry, "none", 1.0, torch.device("cpu")).run(sinogram)[0]
    errors = [relative_error(image, phantom) for image in images]
    error, usual = max(errors, key=lambda value: (value != value, value)), relative_error(reference, phantom)
    if not error <= max(MAX_PHANTOM_ERROR, 2 * usual):
        raise CheckpointError(
            f"the model of {source} does not reconstruct the built-in phantom: its relative error is {error:.3g}, "
            f"that of the classic FBP {usual:.3g}; train it longer, or choose another "
            "checkpoint. The one that served goes on"
        )
    return error
