"""The order of an epoch: every sample once, in equal shares, block by block, and another order each time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbp_ray.data.sampler import (
    WINDOW,
    IntArray,
    Plan,
    blocks_of,
    num_steps,
    plan,
    samples_for_rank,
    step_sizes_for_rank,
)

FILES = st.lists(st.tuples(st.integers(1, 70), st.sampled_from([1, 2, 3, 8])), min_size=1, max_size=6)


@st.composite
def epochs(draw: st.DrawFn) -> tuple[IntArray, int, int, int | None, int]:
    """Blocks, batch size, processes, seed, epoch."""
    counts, together = zip(*draw(FILES), strict=True)
    world_size = draw(st.integers(1, 5))
    batch_size = draw(st.integers(world_size, 40))
    seed = draw(st.none() | st.integers(0, 2**63 - 1))
    return blocks_of(counts, together), batch_size, world_size, seed, draw(st.integers(1, 1000))


def all_plans(blocks: IntArray, batch_size: int, world_size: int, seed: int | None, epoch: int) -> list[Plan]:
    return [plan(blocks, batch_size, rank, world_size, seed=seed, epoch=epoch) for rank in range(world_size)]


def pieces(of: IntArray) -> list[int]:
    return [sample for first, end in of for sample in range(first, end)]


@given(epochs())
def test_every_sample_is_taken_once_and_in_the_shares_of_its_step(
    case: tuple[IntArray, int, int, int | None, int],
) -> None:
    blocks, batch_size, world_size, *_ = case
    samples = int(blocks[-1, 1])
    plans = all_plans(*case)
    assert sorted(np.concatenate([mine.samples for mine in plans])) == list(range(samples))
    sizes = [step_sizes_for_rank(samples, batch_size, rank, world_size) for rank in range(world_size)]
    assert [sum(of_rank) for of_rank in sizes] == [len(mine.samples) for mine in plans]
    of_steps = [sum(of_step) for of_step in zip(*sizes, strict=True)]
    assert len(of_steps) == num_steps(samples, batch_size)
    assert of_steps[:-1] == [batch_size] * (len(of_steps) - 1)
    assert all(min(of_rank[:-1], default=1) > 0 for of_rank in sizes)


@given(epochs())
def test_what_is_read_is_whole_blocks_but_for_the_ends_of_segments(
    case: tuple[IntArray, int, int, int | None, int],
) -> None:
    blocks, _, world_size, *_ = case
    whole = {tuple(block) for block in blocks.tolist()}
    plans = all_plans(*case)
    cut = [block for mine in plans for block in mine.blocks.tolist() if tuple(block) not in whole]
    touched = {int(np.searchsorted(blocks[:, 1], first, side="right")) for first, _ in cut}
    assert len(touched) <= world_size - 1
    for mine in plans:
        assert sorted(pieces(mine.blocks)) == sorted(mine.samples)


@given(epochs())
def test_a_sample_comes_after_its_block_and_not_long_after(case: tuple[IntArray, int, int, int | None, int]) -> None:
    largest = int((case[0][:, 1] - case[0][:, 0]).max())
    for mine in all_plans(*case):
        position = {sample: number for number, sample in enumerate(pieces(mine.blocks))}
        ends = np.cumsum(mine.blocks[:, 1] - mine.blocks[:, 0])
        for number, (sample, needed) in enumerate(zip(mine.samples, mine.needed, strict=True)):
            assert position[int(sample)] < ends[needed - 1]
            assert abs(position[int(sample)] - number) < WINDOW + largest
            assert ends[needed - 1] - number < WINDOW + 2 * largest


def test_the_order_is_repeatable_and_of_its_epoch_and_seed() -> None:
    blocks = blocks_of([100], [8])
    orders = [plan(blocks, 4, 0, 2, seed=seed, epoch=epoch).samples.tolist() for seed in (0, 1) for epoch in (1, 2)]
    again = plan(blocks, 4, 0, 2, seed=0, epoch=1).samples.tolist()
    assert again == orders[0]
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("together", [1, 8])
def test_without_a_seed_the_files_are_taken_in_order(together: int) -> None:
    plans = all_plans(blocks_of([20, 17], [together] * 2), 6, 3, None, 5)
    assert np.concatenate([mine.samples for mine in plans]).tolist() == list(range(37))
    # Steps of 6, ..., 6, 1: two each, then one for the first process.
    assert [len(mine.samples) for mine in plans] == [13, 12, 12]


def test_samples_of_a_block_do_not_stay_together() -> None:
    samples = plan(blocks_of([128] * 4, [8] * 4), 4, 0, 1, seed=3, epoch=1).samples
    neighbours = np.mean(samples[1:] // 8 == samples[:-1] // 8)
    assert neighbours < 0.35  # of the 31 others in a window of 32, 7 are of the same block


def test_blocks_of_files() -> None:
    assert blocks_of([5, 0, 3], [2, 4, 1]).tolist() == [[0, 2], [2, 4], [4, 5], [5, 6], [6, 7], [7, 8]]


def test_a_step_is_shared_out() -> None:
    assert [samples_for_rank(7, rank, 3) for rank in range(3)] == [3, 2, 2]
    assert [samples_for_rank(1, rank, 3) for rank in range(3)] == [1, 0, 0]
