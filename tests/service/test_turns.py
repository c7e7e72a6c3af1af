"""Work of one kind has threads of its own, and a queue that ends."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from fbp_ray.geometry import ParallelBeam
from fbp_ray.projector import project
from service.app import create_app
from service.problems import Problem
from service.turns import Turns
from tests.service.test_process import wait_for
from tests.support.serving import as_npy, running, settings_for

LODOPAB = ParallelBeam.lodopab()


async def until(holds: threading.Event) -> None:
    while not holds.is_set():
        await asyncio.sleep(0.001)


def test_what_waits_is_bounded_in_number_and_in_time() -> None:
    began, go, done = threading.Event(), threading.Event(), []

    def hang() -> str:
        began.set()
        go.wait(10)
        return "done"

    async def ask() -> None:
        turns = Turns(threads=1, waiting=1, seconds=0.2, what="reading")
        first = asyncio.create_task(turns.run(hang))
        await until(began)
        second = asyncio.create_task(turns.run(done.append, 2))
        await asyncio.sleep(0)
        with pytest.raises(Problem, match="2 requests for reading are in hand"):
            await turns.run(done.append, 3)
        for late in (first, second):
            with pytest.raises(Problem, match=r"reading took more than 0\.2 s") as refused:
                await late
            assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "2"})
        fourth = asyncio.create_task(turns.run(done.append, 4))  # the second left its place in the queue
        await asyncio.sleep(0)
        go.set()
        await fourth
        assert await turns.run(lambda: "done") == "done"
        turns.close()

    asyncio.run(ask())
    assert done == [4]


def test_clients_share_the_threads() -> None:
    order: list[str] = []
    began, go = threading.Event(), threading.Event()

    def hold() -> None:
        began.set()
        go.wait(10)

    async def ask() -> None:
        turns = Turns(threads=1, waiting=6, seconds=10)
        first = asyncio.create_task(turns.run_for("greedy", hold))
        await until(began)
        greedy = [asyncio.create_task(turns.run_for("greedy", lambda: order.append("greedy"))) for _ in range(4)]
        await asyncio.sleep(0)
        modest = asyncio.create_task(turns.run_for("modest", lambda: order.append("modest")))
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, modest, *greedy, return_exceptions=True)
        assert sum(isinstance(each.exception(), Problem) for each in greedy) == 1  # half of the queue is for others
        turns.close()

    asyncio.run(ask())
    assert order == ["greedy", "modest", "greedy", "greedy"]


def test_what_the_work_raises_comes_back() -> None:
    def broken() -> None:
        raise TimeoutError("of its own")

    async def ask() -> None:
        turns = Turns(threads=1, waiting=1, seconds=5)
        with pytest.raises(TimeoutError, match="of its own"):
            await turns.run(broken)
        turns.close()

    asyncio.run(ask())


def test_a_storage_that_never_answers_holds_up_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def never(*_: object) -> None:
        go.wait(60)
        raise Problem(503, "the storage is away")

    settings = settings_for(tmp_path, limits={"request_seconds": 2})
    app = create_app(settings)
    with running(settings, app) as client, ThreadPoolExecutor(90) as pool:
        monkeypatch.setattr(app.state.registry, "activate", never)
        asked = [
            pool.submit(client.post, "/models/best/activate", json={"source": str(tmp_path / "far")}) for _ in range(80)
        ]
        wait_for(lambda: any(each.done() for each in asked))  # the queue is full
        for path in ("/models", "/jobs", "/health/live"):
            assert client.get(path, timeout=2).status_code == 200
        assert client.post("/reconstruct", content=as_npy(project(torch.zeros(362, 362), LODOPAB))).status_code == 200
        answers = [each.result() for each in asked]
        go.set()
    assert {answer.status_code for answer in answers} == {503}
    assert all(answer.headers["Retry-After"] for answer in answers)
