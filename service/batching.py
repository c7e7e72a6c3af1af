"""Requests that arrive together share a batch: an image takes a fraction of the time there.

One thread computes. While it does, sinograms gather; the next batch takes those that want the same of the same model.
It waits for others only when some are on their way, so a lone request never waits.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil
import torch
from torch import Tensor

from service.engine import Engine
from service.observe import Metrics
from service.problems import Problem
from service.settings import BatchingConfig

IMAGE_COPIES = 6
"""Sinograms' worth of memory that an image of a batch takes while it is computed; measured 3.3, and some to spare."""

_log = logging.getLogger("service")


class _Piece:
    """One sinogram that waits."""

    __slots__ = ("engine", "future", "loop", "sinogram")

    def __init__(self, engine: Engine, sinogram: Tensor, future: asyncio.Future[Tensor]) -> None:
        self.engine = engine
        self.sinogram = sinogram
        self.future = future
        self.loop = future.get_loop()


class Batcher:
    """Computes what is submitted, in batches.

    Args:
        config: how large a batch may be, how long it waits and how many images may.
        metrics: show all that.
    """

    def __init__(self, config: BatchingConfig, metrics: Metrics) -> None:
        self.config = config
        self._metrics = metrics
        self._waiting: deque[_Piece] = deque()
        self._changed = threading.Condition()
        self._coming = 0
        self._seconds_an_image = 0.0
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)

    def start(self) -> None:
        """From now on batches are computed."""
        self._thread.start()

    def close(self) -> None:
        """Computes what waits, and ends."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether batches are computed."""
        return self._thread.is_alive()

    def refuse_if_full(self, images: int = 1) -> None:
        """Raises Problem (503) when so many more images would be too many; a lone stack of any size is taken."""
        waiting = len(self._waiting)
        if waiting and waiting + images > self.config.queue:
            seconds = max(1, round(waiting * self._seconds_an_image))
            raise Problem(
                503,
                f"{waiting} images wait already, and at most {self.config.queue} may; try again in {seconds} s",
                {"Retry-After": str(seconds)},
            )

    def submit(self, engine: Engine, sinograms: Tensor) -> list[asyncio.Future[Tensor]]:
        """The images of (n, A, D) as they will be, each (H, W). Cancelling one gives up its work.

        Raises:
            Problem: 503, too many images wait.
        """
        loop = asyncio.get_running_loop()
        pieces = [_Piece(engine, sinogram, loop.create_future()) for sinogram in sinograms]
        with self._changed:
            self.refuse_if_full(len(pieces))
            self._waiting.extend(pieces)
            self._metrics.queue.set(len(self._waiting))
            self._changed.notify_all()
        return [piece.future for piece in pieces]

    @contextmanager
    def on_its_way(self) -> Iterator[None]:
        """While the block runs, or until its sinograms are submitted, a batch may wait for them a moment."""
        self._coming += 1  # from the event loop's thread alone
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
                    self._compute(batch)

    def _next(self) -> list[_Piece] | None:
        """The pieces of the next batch, None at the end."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            engine = self._waiting[0].engine
            most = min(self.config.images, room(engine))
            until = time.monotonic() + self.config.wait_ms / 1000
            while self._coming and len(self._waiting) < most and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            batch: list[_Piece] = []
            others: list[_Piece] = []
            while self._waiting and len(batch) < most:
                piece = self._waiting.popleft()
                if not piece.future.cancelled():
                    (batch if piece.engine.key == engine.key else others).append(piece)
            self._waiting.extendleft(reversed(others))
            self._metrics.queue.set(len(self._waiting))
            return batch

    def _compute(self, batch: Sequence[_Piece]) -> None:
        began = time.perf_counter()
        sinograms = [piece.sinogram for piece in batch]
        try:
            images: Tensor | Exception = batch[0].engine.run(
                sinograms[0][None] if len(batch) == 1 else torch.stack(sinograms)
            )
        except torch.OutOfMemoryError as error:
            if len(batch) > 1:
                self._compute(batch[: len(batch) // 2])
                self._compute(batch[len(batch) // 2 :])
                return
            images = error
        except Exception as error:  # of a model: it must not end the thread that serves all others
            images = error
        seconds = time.perf_counter() - began
        self._seconds_an_image = seconds / len(batch)
        if isinstance(images, Exception):
            _log.error("a batch of %d failed", len(batch), exc_info=images, extra={"model": batch[0].engine.name})
        else:
            self._metrics.batch.observe(len(batch))
            self._metrics.batch_seconds.observe(seconds)
            self._metrics.images.labels(batch[0].engine.name).inc(len(batch))
        for loop in {piece.loop for piece in batch}:
            done = [(number, piece.future) for number, piece in enumerate(batch) if piece.loop is loop]
            if not loop.is_closed():
                loop.call_soon_threadsafe(_hand_over, done, images)


def _hand_over(done: Sequence[tuple[int, asyncio.Future[Tensor]]], images: Tensor | Exception) -> None:
    for number, future in done:
        if future.done():
            continue
        if isinstance(images, Exception):
            future.set_exception(Problem(500, "the model failed on this batch; the service's log says how"))
        else:
            future.set_result(images[number])


def room(engine: Engine) -> int:
    """The images that a batch may have for the memory that there is, at least one."""
    angles, cells = engine.geometry.sinogram_shape
    each = IMAGE_COPIES * 4 * angles * cells
    if engine.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(engine.device)
    else:
        free = psutil.virtual_memory().available
    return max(1, int(free // 2 // each))
