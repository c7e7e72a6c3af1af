"""Batches of samples, read ahead by a thread: the next is ready while the current one computes.

Dimensions: B samples of this process's share of a step, A angles, D detector cells, H and W the image's axes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from queue import SimpleQueue
from threading import Event, Thread

import numpy as np
import torch

from fbp_ray.data.cache import SharedCache
from fbp_ray.data.lodopab import LoDoPaB, Sample, Samples
from fbp_ray.data.plain import Array
from fbp_ray.data.sampler import WINDOW, Plan, num_steps, plan, shares, size
from fbp_ray.threads import use_one_thread

AHEAD = 2
"""Batches that are ready or being read while others compute."""

KEPT = 2
"""Batches that stay as they are for whoever took them: the latest, and the one before it."""

Arrays = tuple[Array, Array]
"""Observations (B, A, D) and ground truths (B, H, W)."""


class Batches:
    """A data set in batches, each process its share of every step, in another order every epoch.

    Its memory is a few batches, and about 64 samples where the files' chunks have several rows (see
    `fbp_ray.data.sampler`), however large the data set is.

    Args:
        dataset: what is read.
        batch_size: samples a step over all processes; at least as many as there are processes.
        rank, world_size: which of the processes this is.
        seed: of the order; None takes the samples in the order of the files, as for validation.
        cache: keeps what it has room for, so that it is read from the files only once.
        pin: has the batches in memory that a GPU copies from by itself (`.to(device, non_blocking=True)`). Without
            CUDA it does nothing.
    """

    def __init__(
        self,
        dataset: LoDoPaB,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        *,
        seed: int | None,
        cache: SharedCache | None = None,
        pin: bool = False,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.cache = cache
        self.waited = 0.0
        """Seconds for which batches were waited for in the latest epoch."""
        self._blocks = dataset.blocks
        self._shares = shares(len(dataset), batch_size, rank, world_size)
        pin = pin and torch.cuda.is_available()
        shapes = dataset.geometry.sinogram_shape, dataset.geometry.image_shape
        self._buffers = [
            tuple(torch.empty(max(self._shares), *shape, pin_memory=pin) for shape in shapes)
            for _ in range(AHEAD + KEPT)
        ]
        self._used: list[Samples] = []  # blocks of the files whose memory is to be used again
        self._reading: _Reading | None = None

    def __len__(self) -> int:
        """Steps an epoch."""
        return num_steps(len(self.dataset), self.batch_size)

    def size(self, step: int) -> int:
        """The samples of a step, which counts from 1, over all processes."""
        return size(len(self.dataset), self.batch_size, step)

    def epoch(self, number: int) -> Iterator[Sample]:
        """This process's batches of an epoch, one a step.

        A batch is overwritten when the second one after it is asked for: clone what is to be kept for longer. Its
        `index` is an int64 tensor (B,). In the last step B may be 0. An epoch ends one that is still under way.

        Args:
            number: of the epoch, 1 or more; a cache gives back what was stored in epochs of smaller numbers.

        Raises:
            DataError: a sample cannot be read, or holds values that are not finite; it is named.
        """
        self._end_epoch()
        self.waited = 0.0
        order = self._plan(number)
        arrays = [(observation.numpy(), ground_truth.numpy()) for observation, ground_truth in self._buffers]
        self._reading = reading = _Reading(self, order, number, arrays)
        try:
            first = 0
            for size in self._shares:
                began = time.perf_counter()
                buffer = reading.take()
                self.waited += time.perf_counter() - began
                observation, ground_truth = self._buffers[buffer]
                index = torch.from_numpy(order.samples[first : first + size].copy())
                yield Sample(observation[:size], ground_truth[:size], index)  # type: ignore[arg-type]
                first += size
        finally:
            if self._reading is reading:
                self._end_epoch()

    def names(self, epoch: int, step: int) -> list[str]:
        """The places of the samples that this process takes in a step, which counts from 1."""
        first = sum(self._shares[: step - 1])
        samples = self._plan(epoch).samples[first : first + self._shares[step - 1]]
        return [self.dataset.name(sample) for sample in samples.tolist()]

    def _end_epoch(self) -> None:
        if self._reading is not None:
            self._reading.stop()
        self._reading = None

    def _plan(self, epoch: int) -> Plan:
        return plan(self._blocks, self.batch_size, self.rank, self.world_size, seed=self.seed, epoch=epoch)


class _Reading:
    """The thread that fills buffers with one epoch's batches, as long as there are empty ones.

    `stop` may be called at any time and more than once; when it returns, the thread has ended.
    """

    def __init__(self, batches: Batches, order: Plan, epoch: int, buffers: list[Arrays]) -> None:
        self._shares = batches._shares
        self._converts = batches.cache is not None and batches.cache.mode == "half"
        self._source = _Source(batches.dataset, batches.cache, order, epoch, batches._used)
        self._buffers = buffers
        self._empty: SimpleQueue[int | None] = SimpleQueue()
        self._full: SimpleQueue[int | BaseException] = SimpleQueue()
        self._taken: list[int] = []
        self._stopped = Event()
        for number in range(len(buffers)):
            self._empty.put(number)
        # A daemon, as an epoch that nobody ends should not keep the process from ending.
        self._thread = Thread(target=self._fill, name="fbp-ray batches", daemon=True)
        self._thread.start()

    def take(self) -> int:
        """The number of the next buffer that is full; raises what went wrong in the thread."""
        if self._stopped.is_set():
            raise RuntimeError("this epoch was ended when another one of the same batches was begun; use two `Batches`")
        if len(self._taken) == KEPT:
            self._empty.put(self._taken.pop(0))
        found = self._full.get()
        if isinstance(found, BaseException):
            raise found
        self._taken.append(found)
        return found

    def stop(self) -> None:
        self._stopped.set()
        self._empty.put(None)  # in case it waits
        self._thread.join()

    def _fill(self) -> None:
        try:
            if self._converts:
                use_one_thread()  # torch converts, and would have all of its threads help
            end = 0
            for size in self._shares:
                number = self._empty.get()
                first, end = end, end + size
                if number is None or not self._source.fill(self._buffers[number], first, end, self._stopped):
                    return
                self._full.put(number)
        except BaseException as error:
            self._full.put(error)


class _Source:
    """Copies an epoch's samples from the cache or the files, each block of the files read once.

    A block of several rows is read as a whole and kept until its last sample has been copied. It is read a window
    before its turn, or else a whole window of blocks would have to be read between one sample and the next.
    """

    def __init__(
        self, dataset: LoDoPaB, cache: SharedCache | None, order: Plan, epoch: int, used: list[Samples]
    ) -> None:
        self._dataset = dataset
        self._cache = cache
        self._order = order
        self._epoch = epoch
        lengths = order.blocks[:, 1] - order.blocks[:, 0]
        self._starts = np.cumsum(lengths) - lengths
        self._single = bool((lengths == 1).all())
        self._read = 0  # blocks that have been read, or passed over
        self._where: dict[int, _Block] = {}  # of the samples that have been read and not yet copied
        self._used = used

    def fill(self, buffers: Arrays, first: int, end: int, stopped: Event) -> bool:
        """Copies samples `first` to `end - 1` of the order to the front of `buffers`; False if it was stopped."""
        for row, position in enumerate(range(first, end)):
            self._read_ahead(position)
            if stopped.is_set():
                return False
            self._copy(int(self._order.samples[position]), buffers[0][row], buffers[1][row])
        return True

    def _read_ahead(self, position: int) -> None:
        soon = 0 if self._single else np.searchsorted(self._starts, position + WINDOW)
        wanted = max(int(soon), int(self._order.needed[position]))
        for first, end in self._order.blocks[self._read : wanted].tolist():
            if end - first > 1 and not all(self._cached(sample) for sample in range(first, end)):
                used = self._used.pop() if self._used else None
                block = _Block(self._dataset.read_block(first, end, used), end - first)
                self._where.update(dict.fromkeys(range(first, end), block))
        self._read = max(self._read, wanted)

    def _copy(self, sample: int, observation: Array, ground_truth: Array) -> None:
        block = self._where.pop(sample, None)
        if block is not None:
            block.samples.copy(sample, observation, ground_truth)
            block.left -= 1
            if block.left == 0:
                self._used.append(block.samples)
        elif self._cache is not None and self._cached(sample):
            self._cache.get(sample, observation, ground_truth)
            return
        else:
            self._dataset.read_into(sample, observation, ground_truth)
        if self._cache is not None:
            self._cache.put(sample, self._epoch, observation, ground_truth)

    def _cached(self, sample: int) -> bool:
        return self._cache is not None and self._cache.holds(sample, self._epoch)


class _Block:
    """A block that has been read, and how many of its samples are still to be copied."""

    def __init__(self, samples: Samples, left: int) -> None:
        self.samples = samples
        self.left = left
