"""Events reach the driver in order, each once, and cost the training no process of their own."""

from __future__ import annotations

import psutil
import pytest
import ray
from ray.train.v2.torch.torch_trainer import TorchTrainer

from fbp_ray.train import events
from fbp_ray.train.events import Events
from fbp_ray.train.trainer import OF_OTHERS_CLUSTERS, OF_RAY_DATA, LeanTrainer

pytestmark = pytest.mark.usefixtures("cluster")


def names(trainer: TorchTrainer) -> set[str]:
    return {type(callback).__name__ for callback in trainer._create_default_callbacks()}


def test_events_of_another_process_come_in_order_and_once() -> None:
    queue = Events()

    @ray.remote
    def work(queue: Events, name: str) -> None:
        for number in range(30):
            queue.put({"event": "step", "by": name, "step": number, "loss": float("inf")})
        queue.flush()

    ray.get([work.remote(queue, "one"), work.remote(queue, "other")])
    taken = queue.take()
    for name in ("one", "other"):
        assert [event["step"] for event in taken if event["by"] == name] == list(range(30))
    ray.get(work.remote(queue, "one"))
    assert queue.take() == [
        {"event": "step", "by": "one", "step": number, "loss": float("inf")} for number in range(30)
    ]
    assert queue.take() == []


def test_queues_do_not_see_each_others_events() -> None:
    one, other = Events(), Events()
    one.put({"event": "epoch"})
    one.flush()
    assert other.take() == []
    assert one.take() == [{"event": "epoch"}]


def test_what_arrived_before_the_block_ended_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LOOK_SECONDS", 0.01)
    queue = Events()
    shown: list[events.Event] = []
    looks: list[None] = []
    with queue.shown(shown.append, lambda: looks.append(None)):
        while not looks:
            queue.flush()
        for number in range(5):
            queue.put({"event": "step", "step": number})
        queue.flush()
    assert [event["step"] for event in shown] == [0, 1, 2, 3, 4]


def test_an_event_that_cannot_be_sent_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise events.RpcError("the head is away")

    queue = Events()
    for name in ("_internal_kv_put", "_internal_kv_list"):
        monkeypatch.setattr(events, name, away)
    queue.put({"event": "epoch"})
    queue.flush()
    assert queue.take() == []


def test_a_training_starts_no_helpers_that_it_has_no_use_for() -> None:
    usual = names(TorchTrainer(print))
    assert usual >= OF_RAY_DATA | OF_OTHERS_CLUSTERS  # else Ray calls them otherwise by now
    assert names(LeanTrainer(print, alone=False)) == usual - OF_RAY_DATA
    assert names(LeanTrainer(print, alone=True)) == usual - OF_RAY_DATA - OF_OTHERS_CLUSTERS


def test_a_cluster_of_this_process_reads_no_logs() -> None:
    children = psutil.Process().children(recursive=True)
    commands = [" ".join(child.cmdline()) for child in children if child.status() != psutil.STATUS_ZOMBIE]
    assert any("raylet" in command for command in commands)
    assert not any("log_monitor" in command for command in commands)
