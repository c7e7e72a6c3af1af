"""Requests that arrive together share a batch, each gets its own image, and what goes wrong stops no other."""

from __future__ import annotations

import asyncio
import math
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from fbp_ray.model import LearnableFBP, ModelConfig
from service import batching as service_batching
from service.batching import RECORDED, Batcher, Engine, bytes_per_image, classic, classic_alone, learned, room
from service.memory import Memory
from service.observability import Metrics
from service.problems import Problem
from service.settings import BatchingConfig, LimitsConfig
from tests.support.scans import COARSE

ANGLES, CELLS = COARSE.sinogram_shape


class Counting:
    """Stands for a model: an image is the sum of its sinogram, and the sizes of the batches are kept."""

    def __init__(self, name: str = "best", version: str = "v1") -> None:
        self.sizes: list[int] = []
        self.runs = threading.Event()
        self.may_run = threading.Event()
        self.may_run.set()
        self.fail: Callable[[Tensor], Exception | None] = lambda batch: None
        self.engine = Engine(name, version, "learned", COARSE, torch.device("cpu"), self.run)

    def run(self, batch: Tensor) -> Tensor:
        self.runs.set()
        assert self.may_run.wait(10)
        self.sizes.append(len(batch))
        if (error := self.fail(batch)) is not None:
            raise error
        return batch.sum((1, 2), keepdim=True).expand(-1, *COARSE.image_shape)

    async def under_way(self) -> None:
        """Returns when a batch is being computed."""
        assert await asyncio.to_thread(self.runs.wait, 10)


def stack(*values: float) -> Tensor:
    return torch.tensor(values)[:, None, None].expand(-1, ANGLES, CELLS) / (ANGLES * CELLS)


def batcher_of(**config: Any) -> Batcher:
    metrics = Metrics()
    return Batcher(BatchingConfig(**config), metrics, Memory(LimitsConfig(), metrics))


@contextmanager
def batching(**config: Any) -> Iterator[Batcher]:
    batcher = batcher_of(**config)
    batcher.start()
    try:
        yield batcher
    finally:
        batcher.close()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


def test_what_waits_shares_a_batch_and_each_gets_its_own_image() -> None:
    model = Counting()

    async def work(batcher: Batcher) -> None:
        model.may_run.clear()
        first = batcher.submit(model.engine, stack(1))
        await model.under_way()
        others = [batcher.submit(model.engine, stack(value)) for value in range(2, 9)]
        model.may_run.set()
        images = await asyncio.gather(*first, *(image for images in others for image in images))
        assert [round(float(image[0, 0]), 4) for image in images] == [1, 2, 3, 4, 5, 6, 7, 8]
        assert all(image.shape == COARSE.image_shape for image in images)

    with batching(images=4) as batcher:
        run(work(batcher))
    assert model.sizes == [1, 4, 3]


def test_a_batch_waits_a_moment_for_requests_on_their_way_and_no_longer_than_that() -> None:
    model = Counting()

    async def work(batcher: Batcher) -> None:
        with batcher.on_its_way(), batcher.on_its_way():
            first = batcher.submit(model.engine, stack(1))
            await asyncio.sleep(0.05)
            second = batcher.submit(model.engine, stack(2))
        await asyncio.gather(*first, *second)
        with batcher.on_its_way():
            await asyncio.gather(*batcher.submit(model.engine, stack(3)))

    with batching(wait_ms=500) as batcher:
        run(work(batcher))
    assert model.sizes == [2, 1]


def test_models_do_not_share_a_batch_and_keep_their_turns() -> None:
    one, two = Counting(), Counting(version="v2")

    async def work(batcher: Batcher) -> None:
        one.may_run.clear()
        images = batcher.submit(one.engine, stack(1))
        await one.under_way()
        for model, value in ((one, 2), (two, 3), (one, 4), (two, 5)):
            images += batcher.submit(model.engine, stack(value))
        one.may_run.set()
        assert [round(float(image[0, 0])) for image in await asyncio.gather(*images)] == [1, 2, 3, 4, 5]

    with batching() as batcher:
        run(work(batcher))
    assert (one.sizes, two.sizes) == ([1, 2], [2])


def test_one_image_does_not_wait_for_all_of_a_stack() -> None:
    model, order = Counting(), []

    async def work(batcher: Batcher) -> None:
        model.may_run.clear()
        first = batcher.submit(model.engine, stack(1))
        await model.under_way()
        images = [*batcher.submit(model.engine, stack(*range(2, 8))), *batcher.submit(model.engine, stack(8, 9))]
        for number, image in enumerate(images, 2):
            image.add_done_callback(lambda _, number=number: order.append(number))  # type: ignore[misc]
        model.may_run.set()
        found = await asyncio.gather(*first, *images)
        assert [round(float(image[0, 0])) for image in found] == [1, 2, 3, 4, 5, 6, 7, 8, 9]

    with batching(images=2) as batcher:
        run(work(batcher))
    assert order == [2, 8, 9, 3, 4, 5, 6, 7]
    assert model.sizes == [1, 2, 2, 2, 2]


def test_cut_offs_that_differ_in_the_last_digit_do_not_share_a_batch() -> None:
    one, other = (classic(COARSE, "hann", cutoff, torch.device("cpu")) for cutoff in (0.5, 0.4999999))
    assert one.key != other.key
    assert (one.version, other.version) == ("hann-0.5", "hann-0.4999999")


def test_work_that_nobody_waits_for_is_not_done() -> None:
    model = Counting()

    async def work(batcher: Batcher) -> None:
        model.may_run.clear()
        first = batcher.submit(model.engine, stack(1))
        await model.under_way()
        given_up, wanted = batcher.submit(model.engine, stack(2, 3)), batcher.submit(model.engine, stack(4))
        for image in given_up:
            image.cancel()
        model.may_run.set()
        await asyncio.gather(*first, *wanted)

    with batching() as batcher:
        run(work(batcher))
    assert model.sizes == [1, 1]


def test_a_full_queue_says_when_to_come_again() -> None:
    model = Counting()

    async def work(batcher: Batcher) -> None:
        model.may_run.clear()
        images = batcher.submit(model.engine, stack(1))
        await model.under_way()
        images += batcher.submit(model.engine, stack(2, 3, 4))
        with pytest.raises(Problem, match="3 images wait already, and at most 4 may") as refused:
            batcher.submit(model.engine, stack(5, 6))
        assert refused.value.status == 503
        assert int(refused.value.headers["Retry-After"]) >= 1
        images += batcher.submit(model.engine, stack(7))
        model.may_run.set()
        await asyncio.gather(*images)
        large = batcher.submit(model.engine, stack(*range(6)))  # alone, a stack beyond the queue is taken
        assert len(await asyncio.gather(*large)) == 6

    with batching(queue=4, images=8) as batcher:
        run(work(batcher))


def test_a_model_that_fails_fails_its_own_batch_and_no_other() -> None:
    broken, good = Counting(version="broken"), Counting()
    broken.fail = lambda batch: RuntimeError("secret of the house")

    async def work(batcher: Batcher) -> None:
        failing = batcher.submit(broken.engine, stack(1))
        fine = batcher.submit(good.engine, stack(2))
        with pytest.raises(Problem, match="the model failed") as problem:
            await failing[0]
        assert problem.value.status == 500
        assert "secret" not in problem.value.detail
        assert float((await fine[0])[0, 0]) == pytest.approx(2)

    with batching() as batcher:
        run(work(batcher))


def test_a_batch_that_does_not_fit_into_memory_is_halved() -> None:
    model = Counting()
    made: list[weakref.ref[Tensor]] = []

    def fail(batch: Tensor) -> Exception | None:
        assert all(one() is None for one in made)  # what a larger one had made is gone
        if len(batch) <= 2:
            return None
        made.append(weakref.ref(batch))
        return torch.OutOfMemoryError("too large")

    model.fail = fail

    async def work(batcher: Batcher) -> None:
        images = await asyncio.gather(*batcher.submit(model.engine, stack(1, 2, 3, 4, 5)))
        assert [round(float(image[0, 0])) for image in images] == [1, 2, 3, 4, 5]

    with batching() as batcher:
        run(work(batcher))
    assert model.sizes == [5, 2, 3, 1, 2]


def test_the_end_finishes_what_was_taken() -> None:
    model = Counting()

    async def work() -> None:
        batcher = batcher_of(images=1)
        batcher.start()
        images = batcher.submit(model.engine, stack(1, 2, 3))
        await asyncio.to_thread(batcher.close)
        assert len(await asyncio.gather(*images)) == 3

    run(work())


def test_a_batch_has_room_in_memory() -> None:
    engine, memory = Counting().engine, Memory(LimitsConfig(waiting_mb=10), Metrics())
    assert room(engine, memory) == 5_000_000 // bytes_per_image(engine)
    with memory.hold(20_000_000):
        assert room(engine, memory) == 1


def test_images_of_a_batch_have_memory_of_their_own() -> None:
    model = Counting()

    async def work(batcher: Batcher) -> None:
        images = await asyncio.gather(*batcher.submit(model.engine, stack(1, 2, 3)))
        assert {image.untyped_storage().nbytes() for image in images} == {4 * math.prod(COARSE.image_shape)}
        assert len({image.untyped_storage().data_ptr() for image in images}) == 3

    with batching() as batcher:
        run(work(batcher))
    assert model.sizes == [3]


def test_small_batches_of_a_learned_model_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    replayed: list[int] = []

    class Replaying:
        def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
            self.function = function

        def __call__(self, batch: Tensor) -> Tensor:
            replayed.append(len(batch))
            return self.function(batch)

    monkeypatch.setattr(service_batching, "Recorded", Replaying)
    cpu, model = torch.device("cpu"), LearnableFBP(ModelConfig(geometry=COARSE)).eval()
    engines = {
        "learned": learned("best", "v1", model, cpu, ""),
        "kept": classic_alone(COARSE, "hann", 1.0, cpu, kept=True),
        "of one request": classic_alone(COARSE, "hann", 1.0, cpu),
    }
    found = {}
    with torch.inference_mode():
        for name, engine in engines.items():
            replayed.clear()
            for count in range(RECORDED + 2):
                assert engine.run(torch.rand(count, ANGLES, CELLS)).shape == (count, *COARSE.image_shape)
            found[name] = list(replayed)
    assert found == {"learned": [1, 2, 3, 4], "kept": [1], "of one request": []}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the same on a GPU, where there is one")
def test_images_of_a_gpus_batches_are_those_of_the_model() -> None:
    device, model = torch.device("cuda"), LearnableFBP(ModelConfig(geometry=COARSE)).eval()
    sinograms = torch.rand(6, ANGLES, CELLS)
    with torch.inference_mode():
        expected = model(sinograms)
    engine = learned("best", "v1", model.to(device), device, "")

    async def work(batcher: Batcher) -> None:
        for count in (1, 2, 3, 4, 6, 3, 1):
            images = torch.stack(await asyncio.gather(*batcher.submit(engine, sinograms[:count])))
            assert images.device.type == "cpu"
            torch.testing.assert_close(images, expected[:count], rtol=1e-4, atol=1e-4 * expected.abs().max().item())

    with batching() as batcher:
        run(work(batcher))
