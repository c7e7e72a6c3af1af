"""A few thousand parameters after the backprojection, at the cost of an FBP or less on a CPU.

The image is taken apart into 2 x 2 pixels, four channels of half the size: a convolution there sees twice as far at a
quarter of the cost. A first 3 x 3 convolution makes `channels` of them, each of the others is added to what it is made
from, with a dilation of its own, and the last makes four channels again, which are put together and added to the image:

    h <- ReLU(first(unshuffle(image)));   h <- ReLU(h + block(h)), for each block;   image + shuffle(last(h))

The last one starts at zero: before any training the model is the FBP before it. Convolutions on parts of 2 x 2 pixels:
Shi et al., CVPR 2016; for denoising Zhang, Zuo and Zhang, IEEE TIP 27 (2018) 4608 (FFDNet).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fbp_ray.geometry import ParallelBeam
from fbp_ray.stage_settings import PostprocessingConfig

PART = 2  # pixels along either axis that become channels
BYTES = 6  # of memory, for a pixel and a channel, without gradients
FLOAT: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}  # whatever torch's defaults are


class Tiny(nn.Module):
    """Images (B, H, W) -> images (B, H, W), of any size.

    Args:
        config: its `channels` are those between the first convolution and the last, its `dilations` those of the
            convolutions between them, one each.
        geometry: not needed.
    """

    def __init__(self, config: PostprocessingConfig, geometry: ParallelBeam) -> None:
        super().__init__()
        channels = config.channels
        self.bytes_per_pixel = BYTES * channels
        self.first = nn.Conv2d(PART**2, channels, 3, padding=1, **FLOAT)
        self.blocks = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=d, dilation=d, **FLOAT) for d in config.dilations
        )
        self.last = nn.Conv2d(channels, PART**2, 3, padding=1, **FLOAT)
        for weights in self.last.parameters():
            nn.init.zeros_(weights)

    def forward(self, image: Tensor) -> Tensor:
        """(B, H, W) -> (B, H, W)."""
        height, width = image.shape[-2:]
        whole = functional.pad(image[:, None], (0, width % PART, 0, height % PART), mode="replicate")
        parts = functional.relu(self.first(functional.pixel_unshuffle(whole, PART)))
        for block in self.blocks:
            parts = functional.relu(parts + block(parts))
        return image + functional.pixel_shuffle(self.last(parts), PART)[:, 0, :height, :width]
