"""A service of its own to measure, with models that need no training."""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import torch
from torch import Tensor

from benchmarks.service.load import Seen, ask
from fbp_ray.checkpoint import load_model, pack, write_checkpoint
from fbp_ray.errors import RunError
from fbp_ray.filters import WindowConfig
from fbp_ray.geometry import ParallelBeam
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.projector import project
from fbp_ray.storage import open_folder
from service.batching import Engine, learned

START_SECONDS = 120.0
CUTOFFS = (0.6, 0.8)


class Material(NamedTuple):
    """What is sent, and what should come back."""

    body: Path
    sinogram: Tensor
    models: dict[str, Path]
    """Checkpoints by version."""

    images: dict[str, Tensor]
    """The sinogram's image by each version."""


def make_material(folder: Path) -> Material:
    """A sinogram of LoDoPaB-CT's size, and two models with a window that can be learned."""
    geometry = ParallelBeam.lodopab()
    random = torch.Generator().manual_seed(0)
    blocks = torch.rand(1, 1, 12, 12, generator=random)
    image = torch.nn.functional.interpolate(blocks, geometry.image_shape, mode="bicubic")[0, 0].clamp(0, 1)
    sinogram = project(image, geometry)
    body = folder / "sinogram.npy"
    np.save(body, sinogram.numpy(), allow_pickle=False)
    models, images = {}, {}
    for cutoff in CUTOFFS:
        model = LearnableFBP(
            ModelConfig(geometry=geometry, window=WindowConfig(kind="frequency", init="hann", cutoff=cutoff))
        )
        place = folder / f"hann-{cutoff}"
        checkpoint = pack(model, epoch=1, metrics={}, data={})
        write_checkpoint(open_folder(place), checkpoint)
        version = checkpoint.manifest.sha256["weights"][:12]
        models[version] = place
        with torch.inference_mode():
            images[version] = load_model(place)(sinogram)
    return Material(body, sinogram, models, images)


def bare_call_ms(material: Material, times: int = 60) -> float:
    """The median milliseconds of the model alone, called in this process as the service calls it."""
    engine = _engine(material)
    return _median_ms(lambda: engine.run(material.sinogram[None]), times)


def on_device_ms(material: Material, batch: int, times: int = 60) -> float:
    """The same an image of a batch that is on the device already, and stays there."""
    engine = _engine(material)
    sinograms = material.sinogram.expand(batch, -1, -1).contiguous().to(engine.device)

    def call() -> None:
        engine.run(sinograms)
        if engine.device.type == "cuda":
            torch.cuda.synchronize()

    return _median_ms(call, times) / batch


def _engine(material: Material) -> Engine:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # as the service chooses
    version, place = next(iter(material.models.items()))
    return learned("bare", version, load_model(place).to(device), device, str(place))


def _median_ms(call: Callable[[], object], times: int) -> float:
    took = []
    with torch.inference_mode():
        for _ in range(times + 10):
            began = time.perf_counter()
            call()
            took.append(time.perf_counter() - began)
    return float(np.median(took[10:])) * 1000


class Spent(NamedTuple):
    """What a service has spent since it was started."""

    processor: float
    """Seconds."""

    computing: float
    """Seconds."""

    images: float
    batches: float


class Server(NamedTuple):
    """A running service."""

    port: int
    process: psutil.Process

    def activate(self, place: Path) -> str:
        """Has it serve another model; returns the version."""
        status, content, _ = self.request("POST", "/models/best/activate", json.dumps({"source": str(place)}).encode())
        if status != 200:
            raise RunError(f"the model of {place} could not be activated: {content.decode()[:500]}")
        version: str = json.loads(content)["version"]
        return version

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes, dict[str, str]]:
        """One request on a connection of its own: status, content, headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def spent(self) -> Spent:
        """What it has spent until now."""
        times = self.process.cpu_times()
        _, content, _ = self.request("GET", "/metrics")
        lines = (line.rpartition(" ") for line in content.decode().splitlines() if not line.startswith("#"))
        metrics = {name: float(value) for name, _, value in lines}
        images, batches = metrics["fbp_batch_images_sum"], metrics["fbp_batch_images_count"]
        return Spent(times.user + times.system, metrics["fbp_batch_seconds_sum"], images, batches)

    def measured(self, body: Path, clients: int, seconds: float) -> Seen:
        """What so many clients see that send `body` for so many seconds, and what it spends on them."""
        before = self.spent()
        seen = ask(self.port, body, clients, seconds)
        processor, computing, images, batches = (now - then for now, then in zip(self.spent(), before, strict=True))
        return seen._replace(
            images_of_a_batch=images / batches,
            computing_ms=computing / images * 1000,
            processor_ms=processor / images * 1000,
        )

    def resident_mb(self) -> float:
        """Memory of the service and of the processes that it started."""
        processes = [self.process, *self.process.children(recursive=True)]
        return sum(one.memory_info().rss for one in processes) / 1e6


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Server]:
    """Runs `python -m service` on a free port with a state of its own, as a person would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "service", "--port", str(port), "--state", str(folder / "state")]
    command += ["--models.storage", str(folder / "no-runs"), "--places", str(folder.parent), *options]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"})
        server = Server(port, psutil.Process(process.pid))
        try:
            _wait(server, process, folder / "log.txt")
            yield server
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            if server.request("GET", "/health/ready")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise RunError(f"the service did not get ready:\n{log.read_text()[-2000:]}")


def image_of(content: bytes) -> Tensor:
    """The image in an answer."""
    return torch.from_numpy(np.load(io.BytesIO(content), allow_pickle=False))
