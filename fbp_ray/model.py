"""The model: filter -> backproject -> post-processing, rebuilt from its configuration alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from fbp_ray.filters import WindowConfig, WindowName, analytic_window, build_filter
from fbp_ray.geometry import ParallelBeam
from fbp_ray.projector import backproject
from fbp_ray.settings import Frozen


class PostprocessingConfig(Frozen):
    """What happens to the image after the backprojection."""

    kind: Literal["identity"] = Field(default="identity", description="identity: nothing")


class ModelConfig(Frozen):
    """All that is needed to build a `LearnableFBP`; its weights come beside it."""

    geometry: ParallelBeam
    window: WindowConfig = WindowConfig()
    postprocessing: PostprocessingConfig = PostprocessingConfig()


_POSTPROCESSING: dict[str, Callable[[], nn.Module]] = {"identity": nn.Identity}


class LearnableFBP(nn.Module):
    """A filtered backprojection with a learnable filter stage.

    Maps a sinogram (..., A, D), in the image's unit times metres, to an image (..., H, W). At its start, before any
    training, it is the classic FBP with the window of its configuration.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.filter = build_filter(config.window, config.geometry)
        self.postprocessing = _POSTPROCESSING[config.postprocessing.kind]()

    @property
    def geometry(self) -> ParallelBeam:
        """The scan that this model reconstructs, and the grid on which it does."""
        return self.config.geometry

    def forward(self, sinogram: Tensor, storage_dtype: torch.dtype | None = None) -> Tensor:
        """(..., A, D) -> (..., H, W).

        For inference on a GPU, `storage_dtype=torch.float16` keeps the filtered sinogram in half precision; see
        `fbp_ray.projector.backproject`.

        Raises:
            GeometryError: the sinogram does not fit the model's geometry.
        """
        self.geometry.check(sinogram, "sinogram")
        batch = sinogram.reshape(-1, *self.geometry.sinogram_shape)
        image = backproject(self.filter(batch), self.geometry, storage_dtype)
        return self.postprocessing(image).reshape(*sinogram.shape[:-2], *self.geometry.image_shape)  # type: ignore[no-any-return]


def fbp(
    sinogram: Tensor,
    geometry: ParallelBeam,
    window: WindowName = "hann",
    cutoff: float = 1.0,
    storage_dtype: torch.dtype | None = None,
) -> Tensor:
    """The classic filtered backprojection, in absolute units: `fbp(project(x, g), g)` gives back a smooth x.

    Args:
        sinogram: (..., A, D), line integrals in the image's unit times metres, floating point, any device.
        geometry: the scan and the image grid.
        window: none (the bare ramp), shepp-logan, cosine, hamming or hann.
        cutoff: the window's cut-off as a fraction of the Nyquist frequency, above 0.
        storage_dtype: torch.float16 keeps the filtered sinogram in half precision on a GPU; see
            `fbp_ray.projector.backproject`.

    Returns:
        (..., H, W) of the same dtype and device.

    Raises:
        GeometryError: the sinogram does not fit the geometry.
        ConfigError: an unknown window or a cut-off that is not positive.
    """
    geometry.check(sinogram, "sinogram")
    stage = _classic_filter(geometry, window, float(cutoff), sinogram.device, sinogram.dtype)
    image = backproject(stage(sinogram.reshape(-1, *geometry.sinogram_shape)), geometry, storage_dtype)
    return image.reshape(*sinogram.shape[:-2], *geometry.image_shape)


@lru_cache(maxsize=32)
def _classic_filter(
    geometry: ParallelBeam, window: WindowName, cutoff: float, device: torch.device, dtype: torch.dtype
) -> nn.Module:
    analytic_window(window, np.zeros(1), cutoff)  # an unknown name or a bad cut-off ends here, with the way out
    config = WindowConfig(kind="fixed", init=window, cutoff=cutoff)
    return build_filter(config, geometry, torch.float64 if dtype == torch.float64 else torch.float32).to(device)
