"""Networks after the backprojection: modules that map images (B, H, W) to images (B, H, W).

tiny   a few thousand parameters, at the cost of an FBP
unet   the published U-Net for LoDoPaB-CT
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from fbp_ray.geometry import ParallelBeam
from fbp_ray.networks.tiny import Tiny
from fbp_ray.networks.unet import UNet
from fbp_ray.own import own_stage
from fbp_ray.own_names import is_own
from fbp_ray.stage_settings import PostprocessingConfig

_NETWORKS: dict[str, Callable[[PostprocessingConfig, ParallelBeam], nn.Module]] = {
    "identity": nn.Identity,  # whatever the arguments
    "tiny": Tiny,
    "unet": UNet,
}


def build_network(config: PostprocessingConfig, geometry: ParallelBeam) -> nn.Module:
    """The network that `config` describes, (B, H, W) -> (B, H, W), on the CPU, at its start.

    Raises:
        GeometryError: it cannot take images of this size.
        ConfigError: as `own_stage` does.
    """
    if is_own(config.kind):
        return own_stage(config.kind, config.options, geometry).to("cpu", torch.float32)
    return _NETWORKS[config.kind](config, geometry)


def bytes_per_image(network: nn.Module, geometry: ParallelBeam) -> int:
    """The memory that a network takes for each image of a batch, without gradients; 0 where that is not known."""
    return int(getattr(network, "bytes_per_pixel", 0)) * geometry.image_shape[0] * geometry.image_shape[1]
