"""Weights & Biases. The project is WANDB_PROJECT, or fbp-ray; WANDB_MODE=offline keeps everything in the run folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

from fbp_ray.track.base import Pixels
from fbp_ray.track.notes import Notes


class WandbTracker:
    """Logs to one Weights & Biases run.

    Args:
        folder: keeps the run's identity, and what is not sent yet.
        name: the run's.
        settings: its configuration, nested.
    """

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self.notes = Notes(folder / "wandb.json")
        identity = self.notes.id or uuid4().hex[:12]
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "fbp-ray"),
            name=name,
            id=identity,
            resume="allow",
            dir=folder,
            config=settings,
            settings=wandb.Settings(silent=True, console="off"),  # the terminal belongs to the table
        )
        self.picture = wandb.Image
        if self.notes.id is None:
            self.notes.begin(identity)

    def log(self, epoch: int, scalars: dict[str, float], images: dict[str, Pixels]) -> None:
        """Keeps an epoch that the run does not have yet."""
        if epoch <= self.notes.epoch:
            return
        pictures = {name: self.picture(pixels) for name, pixels in images.items()}
        self.run.log({**scalars, **pictures}, step=epoch, commit=True)  # now, not with the next: a crash may come
        self.notes.logged(epoch)

    def close(self) -> None:
        """Sends what is left."""
        self.run.finish()
