"""Which samples each process takes in each step of an epoch, and which blocks of the files it reads for them.

Nothing here reads a file. A *block* is the rows of a file that are read at once: HDF5 stores rows in chunks, and a
chunk of several rows costs as much to read for one of them as for all. The blocks are shuffled and laid end to end;
each process takes a segment of that sequence and shuffles its samples inside windows of a few blocks, which it can keep
in memory. So an epoch's order is nearly a shuffle of all samples, and yet each chunk is read once, by one process.

Dimensions: N samples, S steps an epoch, W processes ("ranks").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WINDOW = 32
"""Where blocks have several rows, samples are shuffled within windows of this many (a few more: blocks stay whole)."""

IntArray = NDArray[np.int64]


class Plan(NamedTuple):
    """What one process takes in an epoch, in order."""

    samples: IntArray
    """(n,): the samples' numbers."""

    blocks: IntArray
    """(m, 2): the first sample of each block to read, and the one after its last. They hold `samples`, each once."""

    needed: IntArray
    """(n,): how many of the blocks, counted from the first, must have been read before each sample is taken."""


def num_steps(samples: int, batch_size: int) -> int:
    """S: steps of an epoch, the last with what remains."""
    return -(-samples // batch_size)


def step_size(samples: int, batch_size: int, step: int) -> int:
    """The samples of a step, over all processes; steps count from 1."""
    return min(batch_size, samples - (step - 1) * batch_size)


def samples_for_rank(step_samples: int, rank: int, world_size: int) -> int:
    """The samples that a process takes of a step: equally many each, the first ranks one more if need be."""
    return step_samples // world_size + (rank < step_samples % world_size)


def step_sizes_for_rank(samples: int, batch_size: int, rank: int, world_size: int) -> list[int]:
    """The samples that a process takes in each of the S steps; only the last can be 0."""
    steps = range(1, num_steps(samples, batch_size) + 1)
    return [samples_for_rank(step_size(samples, batch_size, step), rank, world_size) for step in steps]


def blocks_of(counts: Sequence[int], rows_per_block: Sequence[int]) -> IntArray:
    """Cuts files into blocks.

    Args:
        counts: the samples of each file.
        rows_per_block: the rows of each file that are read at once, from its first on.

    Returns:
        (blocks, 2): the first sample of each, and the one after its last.
    """
    blocks: list[IntArray] = []
    first = 0
    for count, rows in zip(counts, rows_per_block, strict=True):
        starts = np.arange(0, count, rows)
        blocks.append(first + np.stack([starts, np.minimum(starts + rows, count)], axis=1))
        first += count
    return np.concatenate(blocks)


def plan(blocks: IntArray, batch_size: int, rank: int, world_size: int, *, seed: int | None, epoch: int) -> Plan:
    """What one process takes in an epoch; over all processes, each sample once.

    Args:
        blocks: of the whole data set, from `blocks_of`.
        batch_size: samples a step over all processes.
        rank, world_size: which of the processes this is.
        seed: of the shuffle, which differs from epoch to epoch; None leaves the samples in the order of the files.
        epoch: the number of the epoch.
    """
    if seed is not None:
        blocks = np.random.default_rng([seed, epoch]).permutation(blocks)
    mine = _segment(blocks, batch_size, rank, world_size)
    lengths = mine[:, 1] - mine[:, 0]
    starts = np.cumsum(lengths) - lengths
    samples = np.arange(lengths.sum()) + np.repeat(mine[:, 0] - starts, lengths)

    # Blocks of one row are shuffled already; without a shuffle a block is a window of its own.
    shuffling = seed is not None and bool((blocks[:, 1] - blocks[:, 0] > 1).any())
    windows = starts // WINDOW if shuffling else np.arange(len(mine))
    window = np.repeat(windows, lengths)
    if shuffling:
        chance = np.random.default_rng([seed or 0, epoch, rank]).random(len(samples))
        samples = samples[np.lexsort((chance, window))]
    return Plan(samples, mine, np.searchsorted(windows, window, side="right"))


def _segment(blocks: IntArray, batch_size: int, rank: int, world_size: int) -> IntArray:
    """The process's part of the blocks laid end to end; its first and last may be cut."""
    ends = np.cumsum(blocks[:, 1] - blocks[:, 0])
    full, rest = divmod(int(ends[-1]), batch_size)
    totals = [
        full * samples_for_rank(batch_size, other, world_size) + samples_for_rank(rest, other, world_size)
        for other in range(rank + 1)
    ]
    start, stop = sum(totals[:-1]), sum(totals)
    if start == stop:
        return blocks[:0]
    first, last = np.searchsorted(ends, [start, stop - 1], side="right")
    mine: IntArray = blocks[first : last + 1].copy()
    mine[-1, 1] -= ends[last] - stop
    mine[0, 0] = blocks[first, 1] - (ends[first] - start)
    return mine
