"""Reconstructing in batches: an image takes a fraction of the time when requests that arrive together share one.

One thread computes. Meanwhile sinograms gather, and the next batch takes those that want the same of the same model,
one of each request in turn, so that a single image does not wait for all of a large stack before it. It waits for more
only when some are on their way, so a lone request never waits.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

import psutil
import torch
from torch import Tensor

from fbp_ray import networks
from fbp_ray.caches import apart_from_caches
from fbp_ray.data.layout import MU_MAX
from fbp_ray.data.values import in_hounsfield
from fbp_ray.geometry import Geometry, ParallelBeam
from fbp_ray.graphs import Recorded
from fbp_ray.model import LearnableFBP, fbp
from fbp_ray.stage_settings import WindowName
from service.memory import Memory
from service.observability import Metrics
from service.problems import Problem
from service.settings import BatchingConfig

CLASSIC_FBP = "classic-fbp"
RECORDED = 4
"""Images of a learned model's largest batch that a GPU replays; larger ones keep it busier than Python launches."""
IMAGE_COPIES = 6
"""Sinograms' worth of memory that an image of a batch takes while it is computed; measured 3.3, and some to spare."""

_log = logging.getLogger("service")


@dataclass(frozen=True)
class Engine:
    """Turns sinograms into images: a learned model of some version, or the classic FBP with some window."""

    name: str
    version: str
    method: Literal["learned", "fbp"]
    geometry: Geometry
    device: torch.device
    run: Callable[[Tensor], Tensor]
    """(B, A, D) -> (B, H, W), both float32, and both in the processor's memory or on the device."""

    source: str = ""
    """Where a learned model comes from."""

    unit: float | None = None
    """1/m that the value 1 of its images stands for; None where that is not known."""

    network_bytes: int = 0
    """The memory that the network after the backprojection takes for an image."""

    model: LearnableFBP | None = None
    """The learned model, whose window can be looked at."""

    @property
    def values(self) -> str:
        """What its images' values are."""
        if self.unit is None:
            return "the sinograms' values, divided by metres"
        if in_hounsfield(self.unit):
            return f"attenuation in 1/m, divided by {MU_MAX:.5f}"
        return "attenuation in 1/m" if self.unit == 1 else f"attenuation in 1/m, divided by {self.unit:g}"

    @cached_property
    def digest(self) -> str:
        """Names the geometry."""
        return self.geometry.digest

    @cached_property
    def parallel(self) -> ParallelBeam:
        """What it works in."""
        with apart_from_caches({}):
            return self.geometry.parallel

    @property
    def key(self) -> tuple[str, str, str, Geometry]:
        """Engines with the same key give the same images, and may share a batch. Digests alone could be made alike."""
        return (self.method, self.version, self.digest, self.geometry)


def learned(
    name: str, version: str, model: LearnableFBP, device: torch.device, source: str, unit: float = MU_MAX
) -> Engine:
    """A trained model, which is on `device`; `unit` is that of its data."""
    network_bytes = networks.bytes_per_image(model.postprocessing, model.geometry.parallel)
    run = _on(device, model, RECORDED)
    return Engine(name, version, "learned", model.geometry, device, run, source, unit, network_bytes, model)


def classic_alone(
    geometry: Geometry,
    window: WindowName,
    cutoff: float,
    device: torch.device,
    unit: float | None = None,
    *,
    kept: bool = False,
) -> Engine:
    """The classic FBP, of sinograms whose unit may be known, `kept` for many requests or for one."""
    run = _on(device, lambda batch: fbp(batch, geometry, window, cutoff), int(kept))
    version = f"{window}-{cutoff}".removesuffix(".0")  # every digit: engines with the same version share batches
    return Engine(CLASSIC_FBP, version, "fbp", geometry, device, run, unit=unit)


def _on(device: torch.device, function: Callable[[Tensor], Tensor], recorded: int) -> Callable[[Tensor], Tensor]:
    """The function on a device, from and to where the batch is; a GPU replays it for batches of up to `recorded`."""
    replayed = Recorded(function)

    def run(batch: Tensor) -> Tensor:
        return (replayed if 0 < len(batch) <= recorded else function)(batch.to(device)).to(batch.device)

    return run


@lru_cache(maxsize=32)
def classic(
    geometry: Geometry, window: WindowName, cutoff: float, device: torch.device, unit: float | None = MU_MAX
) -> Engine:
    """The same, kept for the next request: for the geometries of models."""
    return classic_alone(geometry, window, cutoff, device, unit, kept=True)


class _Piece(NamedTuple):
    """One sinogram that waits for its image."""

    engine: Engine
    sinogram: Tensor
    image: asyncio.Future[Tensor]


class Batcher:
    """Computes what is submitted, in batches.

    Args:
        config: how large a batch may be, how long it waits, and how many images may wait.
        metrics: the queue and the batches are shown there.
        memory: of all requests; a batch is as large as it has room for.
    """

    def __init__(self, config: BatchingConfig, metrics: Metrics, memory: Memory) -> None:
        self.config = config
        self._memory = memory
        self._metrics = metrics
        self._requests: deque[deque[_Piece]] = deque()  # whose turn is next comes first
        self._changed = threading.Condition()
        self._coming = 0
        self._seconds_per_image = 0.0
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)

    def start(self) -> None:
        """Starts the thread that computes."""
        self._thread.start()

    def close(self) -> None:
        """Computes what still waits, and ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the thread that computes runs."""
        return self._thread.is_alive()

    def refuse_if_full(self, images: int = 1) -> None:
        """Raises Problem (503) when that many more images are too many. An empty queue takes a stack of any size."""
        waiting = self._waiting()
        if waiting and waiting + images > self.config.queue:
            seconds = max(1, round(waiting * self._seconds_per_image))
            raise Problem(
                503,
                f"{waiting} images wait already, and at most {self.config.queue} may; try again in {seconds} s",
                {"Retry-After": str(seconds)},
            )

    def submit(self, engine: Engine, sinograms: Tensor) -> list[asyncio.Future[Tensor]]:
        """Queues the sinograms (n, A, D); each future will be an image (H, W). Cancelling one gives up its work.

        Raises:
            Problem: 503, too many images wait.
        """
        loop = asyncio.get_running_loop()
        pieces = deque(_Piece(engine, sinogram, loop.create_future()) for sinogram in sinograms)
        images = [piece.image for piece in pieces]
        with self._changed:
            self.refuse_if_full(len(pieces))
            self._requests.extend([pieces] if pieces else [])
            self._metrics.queue.set(self._waiting())
            self._changed.notify_all()
        return images

    @contextmanager
    def on_its_way(self) -> Iterator[None]:
        """While the block runs, a batch may wait a moment for the sinograms that it will submit."""
        self._coming += 1  # only the event loop's thread does this
        try:
            yield
        finally:
            with self._changed:
                self._coming -= 1
                self._changed.notify_all()

    def _work(self) -> None:
        with torch.inference_mode():
            while (batch := self._next()) is not None:
                if batch:
                    with self._memory.hold(len(batch) * bytes_per_image(batch[0].engine)):
                        self._compute(batch)
                del batch  # its sinograms and images are not kept until the next one comes

    def _next(self) -> list[_Piece] | None:
        """Waits for the next batch; None when the queue is empty and closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._requests or self._closed)
            if not self._requests:
                return None
            engine = self._requests[0][0].engine
            size = min(self.config.images, room(engine, self._memory))
            self._changed.wait_for(
                lambda: not self._coming or self._waiting() >= size, timeout=self.config.wait_ms / 1000
            )
            batch: list[_Piece] = []
            first = self._requests[0]
            alike = [request for request in self._requests if request[0].engine.key == engine.key]
            while alike and len(batch) < size:
                for request in alike[: size - len(batch)]:
                    piece = request.popleft()
                    if not piece.image.cancelled():
                        batch.append(piece)
                alike = [request for request in alike if request]
            self._requests = deque(request for request in self._requests if request)
            if first:  # the others come before what is left of it
                self._requests.rotate(-1)
            self._metrics.queue.set(self._waiting())
            return batch

    def _waiting(self) -> int:
        """How many images wait."""
        return sum(map(len, self._requests))

    def _compute(self, batch: Sequence[_Piece]) -> None:
        engine = batch[0].engine
        began = time.perf_counter()
        try:
            found = engine.run(_together([piece.sinogram for piece in batch], engine.device))
            # each has memory of its own: who keeps one does not keep all
            images: list[Tensor] | Exception = [image.to("cpu", copy=len(batch) > 1) for image in found]
        except Exception as error:  # a model's fault must not end the thread that serves all others
            images = error
        if isinstance(images, torch.OutOfMemoryError) and len(batch) > 1:
            images.__traceback__ = None  # whose frames hold what was made until then
            self._compute(batch[: len(batch) // 2])
            self._compute(batch[len(batch) // 2 :])
            return
        seconds = time.perf_counter() - began
        self._seconds_per_image = seconds / len(batch)
        if isinstance(images, Exception):
            _log.error("a batch of %d failed", len(batch), exc_info=images, extra={"model": engine.name})
        else:
            self._metrics.batch.observe(len(batch))
            self._metrics.batch_seconds.observe(seconds)
            self._metrics.images.labels(engine.name).inc(len(batch))
        loop = batch[0].image.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(_hand_over, batch, images)


def _together(sinograms: list[Tensor], device: torch.device) -> Tensor:
    """(B, A, D) on the device. To a GPU each goes by itself: to stack them before takes longer than the images do."""
    if device.type == "cpu":
        return torch.stack(sinograms) if len(sinograms) > 1 else sinograms[0][None]
    stack = torch.empty((len(sinograms), *sinograms[0].shape), device=device)
    for place, sinogram in zip(stack, sinograms, strict=True):
        place.copy_(sinogram)
    return stack


def _hand_over(batch: Sequence[_Piece], images: Sequence[Tensor] | Exception) -> None:
    for number, piece in enumerate(batch):
        if piece.image.done():
            continue
        if isinstance(images, Exception):
            piece.image.set_exception(Problem(500, "the model failed on this batch; the service's log says how"))
        else:
            piece.image.set_result(images[number])


def bytes_per_image(engine: Engine) -> int:
    """What the computing of an image takes."""
    rays = max(math.prod(scan.sinogram_shape) for scan in (engine.geometry, engine.parallel))
    return 4 * (IMAGE_COPIES * rays + 3 * math.prod(engine.geometry.image_shape)) + engine.network_bytes


def room(engine: Engine, memory: Memory) -> int:
    """How many images of a batch fit into the memory that is free, at least one."""
    if engine.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(engine.device)
    else:
        free = min(memory.free, psutil.virtual_memory().available)
    return max(1, int(free // 2 // bytes_per_image(engine)))
