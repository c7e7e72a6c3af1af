"""What a tracker is, the one that keeps nothing, and several as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""(H, W, 3), red, green and blue."""


class Tracker(Protocol):
    """Takes the figures and the pictures of each epoch."""

    def log(self, epoch: int, scalars: dict[str, float], images: dict[str, Pixels]) -> None:
        """Keeps an epoch.

        Args:
            epoch: from 1.
            scalars: figures by name (`fbp_ray.track.scalars`).
            images: pictures by name (`fbp_ray.track.panels`).
        """

    def close(self) -> None:
        """Finishes what is under way; nothing can be logged afterwards."""


class NullTracker:
    """Keeps nothing."""

    def log(self, epoch: int, scalars: dict[str, float], images: dict[str, Pixels]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class Several:
    """Several trackers as one. One that fails is named in a warning, once, and left out from then on.

    Args:
        trackers: by name.
        warn: is called with the warning.
    """

    def __init__(self, trackers: dict[str, Tracker], warn: Callable[[str], None]) -> None:
        self.trackers = dict(trackers)
        self.warn = warn

    def log(self, epoch: int, scalars: dict[str, float], images: dict[str, Pixels]) -> None:
        """Keeps an epoch in each."""
        self._each(lambda tracker: tracker.log(epoch, scalars, images))

    def close(self) -> None:
        """Closes each."""
        self._each(lambda tracker: tracker.close())
        self.trackers.clear()

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                call(tracker)
            except Exception as error:  # whatever it is, hours of training are worth more than a curve
                del self.trackers[name]
                self.warn(f"{name} failed: {type(error).__name__}: {error}; the training goes on without it")
