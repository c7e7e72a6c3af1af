"""Events reach the driver in order, each once, and hold nothing up where they cannot."""

from __future__ import annotations

import threading

import pytest
import ray
from ray.util.queue import Queue

from fbp_ray.train import launch
from fbp_ray.train.cluster import Resources
from fbp_ray.train.events import Doing, Event, Step, Warned
from fbp_ray.train.launch import showing
from fbp_ray.train.ray_worker import Sender

pytestmark = pytest.mark.usefixtures("cluster")

TWO = Resources(workers=2, cpus=1, use_gpu=False)


def steps(epoch: int) -> list[Step]:
    return [Step(epoch, number, steps=30, loss=float("inf")) for number in range(30)]


@ray.remote
def work(queue: Queue, epoch: int) -> None:
    sender = Sender(queue)
    for step in steps(epoch):
        sender.send(step)
    sender.flush()


def test_events_of_other_processes_come_in_order_and_once() -> None:
    shown: list[Event] = []
    with showing(TWO, shown.append) as queue:
        ray.get([work.remote(queue, 1), work.remote(queue, 2)])
    seen = [event for event in shown if isinstance(event, Step)]  # a slow machine may be waited for, and told of it
    assert len(seen) == 60
    for epoch in (1, 2):
        assert [event for event in seen if event.epoch == epoch] == steps(epoch)


def test_a_lost_queue_costs_the_display_alone() -> None:
    shown: list[Event] = []
    with showing(TWO, shown.append) as queue:
        ray.kill(queue.actor)
        ray.get(work.remote(queue, 1))
    assert not any(isinstance(event, Step) for event in shown)


def test_there_is_no_alarm_on_a_machine_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "PATIENCE", 0.05)
    said = threading.Event()
    shown: list[Event] = []

    def show(event: Event) -> None:
        shown.append(event)
        said.set()

    with showing(TWO, show, alone=True) as queue:
        assert said.wait(timeout=60)
        queue.put(Doing("measuring"))
    assert {type(event) for event in shown} == {Doing}


def test_it_is_said_what_is_waited_for_until_there_is_a_sign_of_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "PATIENCE", 0.05)
    said = threading.Semaphore(0)
    shown: list[Event] = []

    def show(event: Event) -> None:
        shown.append(event)
        said.release()

    with showing(TWO, show) as queue:
        for _ in range(2):
            assert said.acquire(timeout=60)
        queue.put(steps(1)[0])
    *before, last = shown
    assert last == steps(1)[0]
    for event in before:
        assert isinstance(event, Warned)
        assert event.text.startswith("no sign yet of 2 workers of 1 CPU each; not taken, by them or by others: ")
