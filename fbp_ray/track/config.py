"""Which trackers a run is shown in."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fbp_ray.errors import ConfigError

TrackerName = Literal["tensorboard", "mlflow", "wandb"]


def _names(value: Any) -> Any:
    """`none`, `a,b` or a list of names as a tuple, each name once."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        return value
    return () if list(names) == ["none"] else tuple(dict.fromkeys(names))


class TrackConfig(BaseModel):
    """Where a run's curves and pictures go while it trains."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    to: Annotated[tuple[TrackerName, ...], BeforeValidator(_names)] = Field(
        default=("tensorboard",), description="trackers, separated by commas; none for none"
    )
    images: Annotated[int, Field(ge=0)] = Field(default=2, description="validation samples shown as pictures")
    every: Annotated[int, Field(ge=1)] = Field(default=1, description="epochs from one set of pictures to the next")


def check_trackers(config: TrackConfig) -> None:
    """Raises ConfigError when a tracker's package is not installed, with the command that installs it."""
    for name in config.to:
        if name not in sys.modules and find_spec(name) is None:
            package = "tensorboard" if name == "tensorboard" else f"'fbp-ray[{name}]'"
            raise ConfigError(
                f"--track.to {name} needs a package that is not installed; pip install {package}, or leave it out "
                "(--track.to none is no tracker at all)"
            )
