"""The U-Net of the published FBP + U-Net for LoDoPaB-CT, after Jin et al., IEEE TIP 26 (2017) 4509.

Its layers and their names are those of the published weights (Leuschner et al., J. Imaging 7 (2021) 44; the library
DIVal, where `UNet` has `use_sigmoid=False`), so that a state dict of that form fits.

Dimensions: B batch, C channels, H and W the image's axes.
"""

from __future__ import annotations

from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fbp_ray.errors import GeometryError
from fbp_ray.geometry import ParallelBeam
from fbp_ray.stage_settings import PostprocessingConfig

CHANNELS = (32, 32, 64, 64, 128)
"""Of each scale, the finest first; each has half the pixels of the one before, rounded up."""

SKIP = 4
"""Channels that go from the way down to the way up."""

SMALLEST = 2 ** (len(CHANNELS) - 1) + 1
"""The longer side of an image that is still two pixels long at the coarsest scale: one has no variance."""

FLOAT: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}  # whatever torch's defaults are


class UNet(nn.Module):
    """Images (B, H, W) -> images (B, H, W): down four scales and up again. Its state has 613 322 numbers.

    Raises:
        GeometryError: the geometry's images are too small for the scales.
    """

    bytes_per_pixel = 1200
    """Measured without gradients, from one image to eight."""

    def __init__(self, config: PostprocessingConfig, geometry: ParallelBeam) -> None:
        super().__init__()
        if max(geometry.image_shape) < SMALLEST:
            raise GeometryError(
                f"a unet halves images {len(CHANNELS) - 1} times, and of {geometry.image_shape} no more than one pixel "
                f"would be left, which cannot be normalised; use images of at least {SMALLEST} pixels along one axis"
            )
        self.residual = config.residual
        self.inc = _Convolutions(_convolution(1, CHANNELS[0], 3))
        self.down = nn.ModuleList(
            _Convolutions(_convolution(fine, coarse, 3, stride=2), _convolution(coarse, coarse, 3))
            for fine, coarse in pairwise(CHANNELS)
        )
        self.up = nn.ModuleList(_Up(coarse, fine) for coarse, fine in pairwise(CHANNELS[::-1]))
        last = nn.Conv2d(CHANNELS[0], 1, 1, **FLOAT)
        if self.residual:
            for weights in last.parameters():
                nn.init.zeros_(weights)
        self.outc = nn.ModuleDict({"conv": last})

    def forward(self, image: Tensor) -> Tensor:
        """(B, H, W) -> (B, H, W)."""
        # By its strides the one channel lies last, and all that follow: so they take 30 % less time on a CPU.
        scales = [self.inc(image[..., None].movedim(-1, 1))]
        for down in self.down:
            scales.append(down(scales[-1]))
        features = scales.pop()
        for up in self.up:
            features = up(features, scales.pop())
        change: Tensor = self.outc["conv"](features)[:, 0]
        return image + change if self.residual else change


class _Convolutions(nn.Module):
    """Layers in a row, under the name that the published weights have them by."""

    def __init__(self, *layers: list[nn.Module]) -> None:
        super().__init__()
        self.conv = nn.Sequential(*chain.from_iterable(layers))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        return self.conv(features)  # type: ignore[no-any-return]


class _Up(_Convolutions):
    """Twice as many pixels, joined with a few features from the way down."""

    def __init__(self, coarse: int, fine: int) -> None:
        joined: list[nn.Module] = [nn.BatchNorm2d(coarse + SKIP, **FLOAT)]
        super().__init__(joined, _convolution(coarse + SKIP, fine, 3), _convolution(fine, fine, 3))
        self.skip_conv = nn.Sequential(*_convolution(fine, SKIP, 1))

    def forward(self, features: Tensor, skipped: Tensor) -> Tensor:  # type: ignore[override]
        """(B, C, H / 2, W / 2), rounded up, and (B, C', H, W) -> (B, C', H, W)."""
        larger = interpolate(features, scale_factor=2, mode="bilinear", align_corners=True)
        # An odd length came back one pixel longer: what is cut off about the middle is its last.
        larger = larger[..., : skipped.shape[-2], : skipped.shape[-1]]
        return self.conv(torch.cat([larger, self.skip_conv(skipped)], dim=1))  # type: ignore[no-any-return]


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, **FLOAT),
        nn.BatchNorm2d(outputs, **FLOAT),
        nn.LeakyReLU(0.2, inplace=True),
    ]
