"""A service in this process, with small models that need no training."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from fastapi import FastAPI
from torch import Tensor

from fbp_ray.filters import WindowConfig
from fbp_ray.geometry import ParallelBeam
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.projector import project
from service.app import create_app
from service.connections import Server
from service.settings import Settings
from tests.support.checkpoints import save_checkpoint
from tests.support.scans import COARSE, smooth_images


def settings_for(folder: Path, **changes: Any) -> Settings:
    """Settings with everything below `folder`."""
    models = {"storage": str(folder / "runs"), "look_seconds": 0.2, "shipped": False}
    tree = {"state": folder / "state", "places": [str(folder)], "models": models, **changes}
    return Settings.model_validate(tree)


def save_model(folder: Path, cutoff: float = 0.8, scale: float = 1.0, geometry: ParallelBeam = COARSE) -> LearnableFBP:
    """A model with a Hann window, as a checkpoint in `folder`; `scale` multiplies its images."""
    window = WindowConfig(kind="frequency", init="hann", cutoff=cutoff)
    model = LearnableFBP(ModelConfig(geometry=geometry, window=window))
    with torch.no_grad():
        model.filter.weight.mul_(scale)
    save_checkpoint(folder, model, epoch=3, metrics={"psnr": 30.5}, data={"dir": "d"})
    return model.eval()


@contextmanager
def running(settings: Settings, app: FastAPI | None = None) -> Iterator[httpx.Client]:
    """The service on a free port, ready, and a client of it."""
    app = app or create_app(settings)
    server = Server(app, settings.model_copy(update={"port": 0}))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            until = time.monotonic() + 60
            while (answer := client.get("/health/ready")).status_code != 200 and time.monotonic() < until:
                time.sleep(0.05)
            assert answer.status_code == 200, answer.text
            yield client
    finally:
        server.should_exit = True
        thread.join()


def sinograms(count: int = 1, seed: int = 0) -> Tensor:
    """Sinograms of smooth images in `COARSE`, (n, A, D)."""
    return project(torch.from_numpy(smooth_images(count, COARSE, seed)), COARSE)


def as_npy(array: Any) -> bytes:
    """The content of a .npy file."""
    file = io.BytesIO()
    np.save(file, np.asarray(array), allow_pickle=True)
    return file.getvalue()
