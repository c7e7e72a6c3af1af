"""TensorBoard: event files in the run folder; `tensorboard --logdir runs` shows all runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from torch.utils.tensorboard import SummaryWriter

from fbp_ray.track.base import Pixels


class TensorBoardTracker:
    """Writes event files.

    Args:
        folder: they go here.
        settings: shown as text, once.
        first_epoch: what an earlier session logged from here on is not shown any more.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], first_epoch: int) -> None:
        new = not any(folder.glob("events.*"))
        self.writer = SummaryWriter(folder, purge_step=first_epoch)
        if new:
            lines = yaml.safe_dump(settings, sort_keys=False).splitlines()
            self.writer.add_text("settings", "\n".join(f"    {line}" for line in lines), 0)
        self.writer.flush()

    def log(self, epoch: int, scalars: dict[str, float], images: dict[str, Pixels]) -> None:
        """Keeps an epoch, on disk when this returns."""
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, epoch)
        for name, pixels in images.items():
            self.writer.add_image(name, pixels, epoch, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self.writer.close()
