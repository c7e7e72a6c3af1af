"""What callers of the client get."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

ENDED = ("succeeded", "failed", "stopped", "lost")


class Reconstruction(NamedTuple):
    """Images, and what made them."""

    image: NDArray[np.float32]
    """(H, W) of one sinogram, (n, H, W) of a stack; axis 0 = x."""

    model: str
    version: str
    """Of the model; of the classic FBP its window and cut-off."""

    method: str
    """learned or fbp."""

    geometry: str
    """The digest of the geometry."""

    unit: str
    """Of the values."""

    seconds: float
    """That the service took, from the whole request to the first image."""

    request_id: str
    """What the service's log has the request under."""


class _Document(BaseModel):
    """A newer service may say more: what is not declared here is kept, too."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


class Model(_Document):
    """A model that serves."""

    name: str
    version: str
    source: str
    automatic: bool
    activated: datetime
    created: datetime
    epoch: int
    metrics: dict[str, float]
    geometry: dict[str, Any]
    unit: str


class Progress(_Document):
    """How far a job is."""

    unit: str = "epoch"
    done: int = 0
    total: int | None = None
    rows: list[dict[str, Any]] = []
    """One an epoch: losses, PSNR and SSIM; of a sweep one a trial."""

    best: dict[str, Any] = {}


class Job(_Document):
    """A job."""

    id: str
    kind: str
    status: str
    """pending, running, succeeded, failed, stopped (on request) or lost (its cluster is gone)."""

    reason: str = ""
    """Why it is pending, failed, stopped or lost."""

    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    place: str = ""
    """The folder of its results, as the service's machine names it."""

    request: dict[str, Any] = {}
    progress: Progress = Progress()

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in ENDED
