"""Batches of samples, read ahead by a thread: the next is ready while the current one computes.

Dimensions: B samples that this process takes in a step, A angles, D detector cells, H and W the image's axes.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch

from fbp_ray.data.cache import SharedCache
from fbp_ray.data.hdf5_reader import Array
from fbp_ray.data.lodopab import LoDoPaB, Sample
from fbp_ray.data.sampler import WINDOW, Plan, num_steps, plan, step_size, step_sizes_for_rank
from fbp_ray.threads import use_one_thread

AHEAD = 2
"""Batches that are ready or being read while another one computes."""

KEPT = 2
"""Batches that stay as they are for whoever took them: the latest, and the one before it."""

THREAD = "fbp-ray batches"
Draw = Callable[[int, int, Array, Array], None]
Arrays = tuple[Array, Array]
"""Observations (n, A, D) and ground truths (n, H, W)."""


class Batches:
    """A data set in batches: each process takes its samples of every step, in another order every epoch.

    Its memory is a few batches, and about 64 samples where the files' chunks have several rows (see
    `fbp_ray.data.sampler`), however large the data set is.

    Args:
        dataset: what is read.
        batch_size: samples a step over all processes; at least as many as there are processes.
        rank, world_size: which of the processes this is.
        seed: of the order; None takes the samples in the order of the files, as for validation.
        cache: keeps what it has room for, so that it is read from the files only once.
        draw: is given each sample's number, the epoch, observation (A, D) and ground truth (H, W), and may change them
            in place; it is called in the reading thread, after the cache.
        pin: has the batches in memory that a GPU copies from by itself (see `on_device`). Without CUDA it does nothing.
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
        draw: Draw | None = None,
        pin: bool = False,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.cache = cache
        self.draw = draw
        self.waited = 0.0
        """Seconds that the latest epoch has spent waiting for batches."""
        self._sizes = step_sizes_for_rank(len(dataset), batch_size, rank, world_size)
        self._pinned = pin = pin and torch.cuda.is_available()
        shapes = dataset.geometry.sinogram_shape, dataset.image_shape
        self._buffers = [
            tuple(torch.empty(max(self._sizes), *shape, pin_memory=pin) for shape in shapes)
            for _ in range(AHEAD + KEPT)
        ]
        self._spare: list[Arrays] = []  # memory of blocks that have been used up
        self._reader: _EpochReader | None = None

    def __len__(self) -> int:
        """Steps an epoch."""
        return num_steps(len(self.dataset), self.batch_size)

    def size(self, step: int) -> int:
        """The samples of a step, which counts from 1, over all processes."""
        return step_size(len(self.dataset), self.batch_size, step)

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
        self._reader = reader = _EpochReader(
            self.dataset, self.cache, order, number, self._spare, self.draw, self._pinned
        )
        buffers = [(observations.numpy(), ground_truths.numpy()) for observations, ground_truths in self._buffers]
        ends = np.cumsum(self._sizes).tolist()
        coming = iter(range(len(self._sizes)))
        filling: deque[Future[None]] = deque()
        try:
            for step, (size, end) in enumerate(zip(self._sizes, ends, strict=True)):
                for ahead in islice(coming, AHEAD + 1 - len(filling)):
                    filling.append(
                        reader.submit(buffers[ahead % len(buffers)], ends[ahead] - self._sizes[ahead], ends[ahead])
                    )
                began = time.perf_counter()
                filling.popleft().result()
                self.waited += time.perf_counter() - began
                observations, ground_truths = self._buffers[step % len(buffers)]
                index = torch.from_numpy(order.samples[end - size : end].copy())
                yield Sample(observations[:size], ground_truths[:size], index)  # type: ignore[arg-type]
                if self._reader is not reader:
                    raise RuntimeError(
                        "this epoch was ended when another one of the same batches was begun; use two `Batches`"
                    )
        finally:
            if self._reader is reader:
                self._end_epoch()

    def names(self, epoch: int, step: int) -> list[str]:
        """The places of the samples that this process takes in a step, which counts from 1."""
        first = sum(self._sizes[: step - 1])
        samples = self._plan(epoch).samples[first : first + self._sizes[step - 1]]
        return [self.dataset.name(sample) for sample in samples.tolist()]

    def _end_epoch(self) -> None:
        if self._reader is not None:
            self._reader.stop()
        self._reader = None

    def _plan(self, epoch: int) -> Plan:
        return plan(self.dataset.blocks, self.batch_size, self.rank, self.world_size, seed=self.seed, epoch=epoch)


def on_device(batches: Iterable[Sample], device: torch.device) -> Iterator[Sample]:
    """An epoch of pinned `Batches` on a device, a GPU copying each while it computes with the one before.

    The GPU works behind the caller: a batch in memory must not be overwritten before it has been copied, nor one on the
    GPU before what was computed with it. So the caller comes to be two batches ahead of the GPU at most.
    """
    if device.type != "cuda":
        for batch in batches:
            yield _moved(batch, device)
        return
    computing, copying = torch.cuda.current_stream(device), _copying_stream(device)

    def hand_over(moved: Sample, copied: torch.cuda.Event) -> Iterator[Sample]:
        computing.wait_event(copied)
        yield moved
        copied.synchronize()

    before: tuple[Sample, torch.cuda.Event] | None = None
    for batch in batches:
        copying.wait_stream(computing)  # its memory is that of one before, which may still be computed with
        with torch.cuda.stream(copying):
            coming = _moved(batch, device), copying.record_event()
        if before is not None:
            yield from hand_over(*before)
        before = coming
    if before is not None:
        yield from hand_over(*before)


@functools.cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all epochs: torch keeps the memory of each stream apart."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _moved(batch: Sample, device: torch.device) -> Sample:
    observation, ground_truth, index = batch
    return Sample(observation.to(device, non_blocking=True), ground_truth.to(device, non_blocking=True), index)


class _EpochReader:
    """A thread that copies an epoch's samples from the cache or the files, each block of the files read once.

    A block of several rows is read as a whole and kept until its last sample has been copied. It is read a window
    before its turn, or else a whole window of blocks would have to be read between one sample and the next.
    """

    def __init__(
        self,
        dataset: LoDoPaB,
        cache: SharedCache | None,
        order: Plan,
        epoch: int,
        spare: list[Arrays],
        draw: Draw | None,
        for_gpu: bool,
    ) -> None:
        self._dataset = dataset
        self._cache = cache
        self._order = order
        self._epoch = epoch
        self._draw = draw
        lengths = order.blocks[:, 1] - order.blocks[:, 0]
        self._starts = np.cumsum(lengths) - lengths
        self._single_rows = bool((lengths == 1).all())
        self._blocks_read = 0  # or passed over, as the cache has them
        self._blocks: dict[int, _Block] = {}  # by the samples that have been read and not yet copied
        self._spare = spare
        self._stopped = False
        converting = cache is not None and cache.mode == "half"  # by torch, which would have all of its threads help
        # A sample at a time would take the interpreter's lock from the thread that launches a GPU's work, again and
        # again, and this one's copies are too slow for a GPU. A CPU that trains has no threads to spare.
        self._at_once = for_gpu and draw is None and all(self._is_cached(sample) for sample in order.samples.tolist())
        alone = converting and not self._at_once
        self._thread = ThreadPoolExecutor(1, THREAD, initializer=use_one_thread if alone else None)

    def submit(self, buffers: Arrays, first: int, end: int) -> Future[None]:
        """Has samples `first` to `end - 1` of the order copied to the front of `buffers`."""
        return self._thread.submit(self._fill, buffers, first, end)

    def stop(self) -> None:
        """Ends the thread after the sample that it reads now."""
        self._stopped = True
        self._thread.shutdown(cancel_futures=True)

    def _fill(self, buffers: Arrays, first: int, end: int) -> None:
        if self._stopped:
            return
        if self._at_once and self._cache is not None:
            observations, ground_truths = buffers
            self._cache.get_many(
                self._order.samples[first:end], observations[: end - first], ground_truths[: end - first]
            )
            return
        for row, position in enumerate(range(first, end)):
            self._read_blocks(position)
            if self._stopped:
                return
            sample = int(self._order.samples[position])
            self._copy(sample, buffers[0][row : row + 1], buffers[1][row : row + 1])
            if self._draw is not None:
                self._draw(sample, self._epoch, buffers[0][row], buffers[1][row])

    def _read_blocks(self, position: int) -> None:
        """Reads the blocks that a sample of the order needs, and those that the samples of a window after it need."""
        soon = 0 if self._single_rows else np.searchsorted(self._starts, position + WINDOW)
        wanted = max(int(soon), int(self._order.needed[position]))
        for first, end in self._order.blocks[self._blocks_read : wanted].tolist():
            if end - first > 1 and not all(self._is_cached(sample) for sample in range(first, end)):
                block = _Block(first, end - first, self._spare.pop() if self._spare else self._new_arrays())
                self._dataset.read(first, *(array[: end - first] for array in block.arrays))
                self._blocks.update(dict.fromkeys(range(first, end), block))
        self._blocks_read = max(self._blocks_read, wanted)

    def _new_arrays(self) -> Arrays:
        """Memory for a block of any length."""
        rows = int((self._dataset.blocks[:, 1] - self._dataset.blocks[:, 0]).max())
        shapes = self._dataset.geometry.sinogram_shape, self._dataset.image_shape
        return np.empty((rows, *shapes[0]), np.float32), np.empty((rows, *shapes[1]), np.float32)

    def _copy(self, sample: int, observation: Array, ground_truth: Array) -> None:
        """Copies a sample to arrays (1, A, D) and (1, H, W)."""
        block = self._blocks.pop(sample, None)
        if block is not None:
            np.copyto(observation[0], block.arrays[0][sample - block.first])
            np.copyto(ground_truth[0], block.arrays[1][sample - block.first])
            block.left -= 1
            if block.left == 0:
                self._spare.append(block.arrays)
        elif self._cache is not None and self._is_cached(sample):
            self._cache.get(sample, observation[0], ground_truth[0])
            return
        else:
            self._dataset.read(sample, observation, ground_truth)
        if self._cache is not None:
            self._cache.put(sample, self._epoch, observation[0], ground_truth[0])

    def _is_cached(self, sample: int) -> bool:
        return self._cache is not None and self._cache.holds(sample, self._epoch)


class _Block:
    """Consecutive samples of a file that were read at once, and how many of them are still to be copied."""

    def __init__(self, first: int, count: int, arrays: Arrays) -> None:
        self.first = first
        self.left = count
        self.arrays = arrays
