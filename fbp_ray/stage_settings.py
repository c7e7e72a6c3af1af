"""The settings of a model's two stages, the window and the network: what a checkpoint's manifest says of them.

What a training starts from, and all else about it, is in `fbp_ray.config`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from fbp_ray.own_names import is_own, own_or
from fbp_ray.settings import Frozen

WindowName = Literal["none", "shepp-logan", "cosine", "hamming", "hann"]
WindowKind = Literal[
    "fixed", "frequency", "angle_frequency", "spline", "fourier_series", "low_rank", "ray_noise", "adaptive", "zeng"
]


NetworkKind = Literal["identity", "tiny", "unet"]
NETWORK_SETTINGS: dict[str, tuple[NetworkKind, ...]] = {
    "residual": ("unet",),
    "channels": ("tiny",),
    "dilations": ("tiny",),
}
"""Settings of a network, and the kinds that take them."""

Options = dict[str, Any]


class WindowConfig(Frozen):
    """The kind of window, and what it is at the start."""

    kind: Annotated[str, own_or("windows", get_args(WindowKind))] = Field(
        default="frequency",
        description="shared by the angles: spline, fourier_series (smooth) or frequency (a weight a frequency); one "
        "for each angle: low_rank (smooth) or angle_frequency (a weight for every angle and frequency); by the noise "
        "of each ray: ray_noise, adaptive (also by what stands out of it); not learned: fixed, zeng (by the noise); of "
        "your own: PACKAGE.MODULE:CLASS",
    )
    options: Options = Field(
        default={}, description="settings of a window of your own, NAME=VALUE; the other settings here are not its"
    )
    init: Literal["ones", "none", "shepp-logan", "cosine", "hamming", "hann"] = Field(
        default="ones", description="the window at the start: ones, or an analytic one"
    )
    cutoff: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=1.0, description="the cut-off of the analytic window, a fraction of the Nyquist frequency"
    )
    knots: Annotated[int, Field(ge=4, le=512)] = Field(
        default=24, description="knots of a smooth window along the frequency, or terms of a fourier_series"
    )
    rank: Annotated[int, Field(ge=1, le=16)] = Field(
        default=3, description="low_rank: how many windows are mixed, in shares that depend on the angle"
    )
    photons: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["data", "estimate"] = Field(
        default="data",
        description="photons of a ray that meets nothing, from which ray_noise and adaptive know the noise: a "
        "number, data (what the data set says, else estimate), or estimate (from each sinogram)",
    )
    unit: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=81.35858, description="attenuation in 1/m that the value 1 stands for; LoDoPaB-CT's by default"
    )

    @model_validator(mode="after")
    def _own_alone_has_options(self) -> WindowConfig:
        if self.options and not is_own(self.kind):
            raise ValueError(f"options are those of a window of your own, but kind is {self.kind}; leave them out")
        return self

    @model_validator(mode="after")
    def _ones_have_no_cutoff(self) -> WindowConfig:
        if self.init == "ones" and self.cutoff != 1:
            raise ValueError(
                f"a window of ones has no cut-off, but cutoff is {self.cutoff}; set it to 1, or choose an init that "
                "has one, for example none (the ideal low-pass)"
            )
        return self


class PostprocessingConfig(Frozen):
    """What happens to the image after the backprojection."""

    kind: Annotated[str, own_or("networks", get_args(NetworkKind))] = Field(
        default="identity",
        description="identity: nothing; tiny: a few thousand parameters, at the cost of an FBP; unet: the published "
        "U-Net for LoDoPaB-CT; or a network of your own, PACKAGE.MODULE:CLASS",
    )
    options: Options = Field(default={}, description="settings of a network of your own, NAME=VALUE")
    residual: bool = Field(
        default=True,
        description="unet: it is added to the image, and nothing at the start; false as published: it gives the image",
    )
    channels: Annotated[int, Field(ge=1, le=256)] = Field(
        default=16, description="tiny: channels of its convolutions; multiples of 16 are fast on a CPU"
    )
    dilations: Annotated[tuple[Annotated[int, Field(ge=1, le=32)], ...], Field(min_length=1, max_length=32)] = Field(
        default=(1, 2, 1), description="tiny: the dilation of each convolution between the first and the last"
    )

    @model_validator(mode="after")
    def _own_alone_has_options(self) -> PostprocessingConfig:
        if self.options and not is_own(self.kind):
            raise ValueError(f"options are those of a network of your own, but kind is {self.kind}; leave them out")
        return self

    @model_validator(mode="after")
    def _takes_what_is_given(self) -> PostprocessingConfig:
        for name, kinds in NETWORK_SETTINGS.items():
            if self.kind not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is a setting of {' and '.join(kinds)}, but kind is {self.kind}; leave it out")
        return self
