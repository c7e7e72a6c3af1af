"""The built-in phantom that a model must reconstruct before it serves."""

from __future__ import annotations

import torch

from fbp_ray.errors import CheckpointError
from fbp_ray.phantom import relative_error, soft_disc
from fbp_ray.projector import project
from service.engine import Engine, classic

WORST = 0.5
"""Relative error, or twice that of the classic FBP where a scan is worse than that."""


def verify(engine: Engine, source: str, batch: int = 4) -> float:
    """The relative error of the phantom's images, one alone and a batch of them; compiles what they need.

    Raises:
        CheckpointError: the images are not the phantom, or not finite.
    """
    phantom = soft_disc(engine.geometry)
    with torch.inference_mode():
        sinogram = project(phantom[None], engine.geometry)
        images = [engine.run(sinogram), engine.run(sinogram.expand(batch, -1, -1).contiguous())]
        reference = classic(engine.geometry, "none", 1.0, torch.device("cpu")).run(sinogram)
    errors = [relative_error(image, phantom) for image in (*images[0], *images[1])]
    error, usual = max(errors, key=lambda value: (value != value, value)), relative_error(reference[0], phantom)
    if not error <= max(WORST, 2 * usual):
        raise CheckpointError(
            f"the model of {source} does not reconstruct the built-in phantom: its relative error is {error:.3g}, "
            f"that of the classic FBP {usual:.3g}; train it longer, or choose another "
            "checkpoint. The one that served goes on"
        )
    return error
