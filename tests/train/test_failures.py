"""What ends a training under Ray: the worker's own error, in a line."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
import torch.distributed as dist
from ray.exceptions import RayActorError, RayTaskError
from ray.train import ControllerError, WorkerGroupError

from fbp_ray.config import ScalingConfig, TrainConfig
from fbp_ray.errors import ConfigError, DataError, RunError
from fbp_ray.run import RunFolder
from fbp_ray.train import cluster, ray_worker
from fbp_ray.train.cluster import Resources
from fbp_ray.train.cluster import allocate as share_out_nodes
from fbp_ray.train.events import EpochEnd, Event, Warned, WorkersLost
from fbp_ray.train.ray_worker import Failures, explain_failure, is_connection_lost

GLOO = RuntimeError(
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [10.77.0.2]:39129. This is "
    "typically caused by a remote worker crashing."
)


class Queue:
    """Stands in for Ray's."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def put(self, event: Any) -> None:
        self.seen.append(event)


def wrapped(error: Exception) -> RayTaskError:
    made: RayTaskError = RayTaskError("work", "sixty lines", error).as_instanceof_cause()
    return made


@pytest.mark.parametrize("wrap", [lambda e: e, wrapped, lambda e: wrapped(wrapped(e))])
def test_a_workers_own_error_comes_out_as_it_is(wrap: Any) -> None:
    own = DataError("the file is damaged")
    error = WorkerGroupError("sixty lines", {0: GLOO, 1: wrap(own)})
    assert explain_failure(error, 3) is own
    assert explain_failure(ControllerError(wrap(own)), 3) is own
    with pytest.raises(DataError, match="the file is damaged"):
        Failures(Queue(), 3).after_exception(None, {0: GLOO, 1: wrap(own)})  # type: ignore[arg-type]


def test_a_lost_worker_is_told_and_does_not_end_the_run() -> None:
    queue = Queue()
    failures = Failures(queue, 3)  # type: ignore[arg-type]
    failures.after_exception(None, {0: GLOO})
    failures.after_exception(None, {0: GLOO, 1: RayActorError()})
    failures.sender.flush()
    noticed = (
        "training worker 0 lost another one (Connection closed by peer 10.77.0.2): killed, or its machine went away"
    )
    lost = "training worker 1 was lost: killed, out of memory, or its machine went away"
    assert queue.seen == [WorkersLost(noticed, 1, 3), WorkersLost(lost, 2, 3)]


def test_too_many_lost_workers_say_what_is_kept_and_how_to_go_on() -> None:
    error = explain_failure(WorkerGroupError("sixty lines", {1: RayActorError()}), 2)
    assert isinstance(error, RunError)
    assert "worker 1 was lost" in str(error)
    assert "--run.max_failures 2" in str(error)
    assert "give the same command to go on" in str(error)
    assert "sixty lines" not in str(error)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (GLOO, True),
        (dist.DistNetworkError("reset"), True),
        (RuntimeError("NCCL error: remote process exited"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("gloo"), False),
    ],
)
def test_a_lost_connection_is_told_from_a_fault(error: Exception, lost: bool) -> None:
    assert is_connection_lost(error) == lost


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    made.begin(TrainConfig())
    return made


@pytest.fixture
def payload(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A worker's task, with the training yet to be put in."""

    class Context:
        get_world_rank = staticmethod(lambda: 1)
        get_world_size = staticmethod(lambda: 2)

    monkeypatch.setattr(ray.train, "get_context", Context)
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(ray_worker, "machine", lambda: "10.0.0.2 (node-2)")
    tree = TrainConfig.model_validate({"data": {"dir": "/data"}, "run": {"name": "run"}}).model_dump(mode="json")
    threads = torch.get_num_threads()
    return {"config": tree, "run": str(run), "session": run.session, "events": Queue(), "threads": threads}


def fails_with(error: Exception) -> Any:
    def train(*_: object) -> None:
        raise error

    return train


def test_an_unforeseen_error_is_one_line_and_its_traceback_is_kept(
    payload: dict[str, Any], run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_worker, "train", fails_with(ValueError("shapes do not match")))
    with pytest.raises(RunError, match=r"worker 1 on 10.0.0.2 \(node-2\) failed: ValueError: shapes do not match.*py"):
        ray_worker.work(payload)
    assert "ValueError: shapes do not match" in run.folder.read("traceback.txt").decode()


def test_a_data_error_names_the_machine(payload: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_worker, "train", fails_with(DataError("there is no data folder /data")))
    with pytest.raises(DataError, match=r"on the machine 10.0.0.2 \(node-2\): there is no data folder"):
        ray_worker.work(payload)


def test_a_lost_connection_is_left_to_ray(payload: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_worker, "train", fails_with(GLOO))
    with pytest.raises(RuntimeError, match="Connection closed"):
        ray_worker.work(payload)


def test_a_machine_without_the_run_folder_is_named(
    payload: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_worker, "train", lambda *_: pytest.fail("it trained"))
    with pytest.raises(RunError, match=r"10.0.0.2 \(node-2\) does not have the run folder.*--run.storage"):
        ray_worker.work({**payload, "run": str(tmp_path / "elsewhere")})
    assert not (tmp_path / "elsewhere").exists()


def test_a_machine_that_cannot_write_the_run_folder_is_named(
    payload: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fbp_ray.storage import LocalFolder

    def refuse(self: LocalFolder, name: str, content: bytes) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(LocalFolder, "write", refuse)
    with pytest.raises(RunError, match=r"10.0.0.2 \(node-2\) cannot use the run folder.*read-only.*object store"):
        ray_worker.work(payload)


def test_every_worker_reports_its_epochs_to_ray_and_the_first_alone_to_the_driver(
    payload: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [Warned("slow"), EpochEnd({"epoch": 1, "validation_psnr": 28.5}), EpochEnd({"epoch": 2})]
    reported: list[dict[str, float]] = []

    def train(config: object, run: object, process: object, report: Callable[[Event], None]) -> None:
        for event in events:
            report(event)

    monkeypatch.setattr(ray_worker, "train", train)
    monkeypatch.setattr(ray.train, "report", reported.append)
    ray_worker.work(payload)
    assert payload["events"].seen == []
    monkeypatch.setattr(type(ray.train.get_context()), "get_world_rank", staticmethod(lambda: 0))
    ray_worker.work(payload)
    assert payload["events"].seen == events
    assert reported == 2 * [{"epoch": 1, "validation_psnr": 28.5}, {"epoch": 2}]


def test_an_interface_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(RunError, match=r"no network interface 'nope7' \(--scaling.interface\), only .*lo"):
        ray_worker.choose_interface("nope7")


@pytest.mark.parametrize(("given", "found"), [("lo", "lo"), (None, "lo")])
def test_the_interface_is_the_one_given_or_that_of_rays_address(
    monkeypatch: pytest.MonkeyPatch, given: str | None, found: str
) -> None:
    import os

    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    ray_worker.choose_interface(given)
    assert os.environ["GLOO_SOCKET_IFNAME"] == os.environ["NCCL_SOCKET_IFNAME"] == found


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_an_address_where_nobody_listens_is_known_at_once(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    expected = rf"no Ray cluster answers at 127.0.0.1:{free_port}.*--ray.address"
    with pytest.raises(RunError, match=expected), cluster.cluster(f"127.0.0.1:{free_port}"):
        pass


def test_a_cluster_that_does_not_start_in_time_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup")  # as Ray does

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(RunError, match="timed out during startup; where the machine is busy"), cluster.cluster(None):
        pass


@pytest.mark.parametrize("address", ["ray://host:10001", "host", "host:99999x", "http://host:8265"])
def test_an_address_of_another_form_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    with pytest.raises(ConfigError, match="HOST:PORT"), cluster.cluster(address):
        pass


def allocate(scaling: ScalingConfig) -> Resources:
    return share_out_nodes(scaling, cluster.nodes())


def nodes(monkeypatch: pytest.MonkeyPatch, *resources: dict[str, float]) -> None:
    found = [
        {"Alive": True, "NodeManagerAddress": f"10.0.0.{number}", "Resources": each}
        for number, each in enumerate(resources, start=1)
    ]
    gone = {"Alive": False, "NodeManagerAddress": "10.0.0.9", "Resources": {"CPU": 64.0}}
    monkeypatch.setattr(ray, "nodes", lambda: [*found, gone])


def test_more_workers_than_there_can_be_are_refused_with_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes(monkeypatch, {"CPU": 4.0}, {"CPU": 2.0})
    assert allocate(ScalingConfig(num_workers=6)) == (6, 1, False)
    with pytest.raises(RunError, match=r"7 workers.*10.0.0.1 with 4 processors, 10.0.0.2 with 2 processors"):
        allocate(ScalingConfig(num_workers=7))
    with pytest.raises(RunError, match=r"4 workers.*3 processors each \(--scaling.cpus_per_worker\)"):
        allocate(ScalingConfig(num_workers=4, cpus_per_worker=3))
    nodes(monkeypatch, {"CPU": 16.0, "GPU": 2.0})
    assert allocate(ScalingConfig()) == (2, 8, True)
    with pytest.raises(RunError, match=r"3 workers.*16 processors and 2 GPUs.*one GPU"):
        allocate(ScalingConfig(num_workers=3))


def test_a_run_that_may_shrink_begins_with_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes(monkeypatch, {"CPU": 2.0})
    assert allocate(ScalingConfig(num_workers=4, min_workers=1)) == (4, 2, False)
    with pytest.raises(RunError, match=r"3 workers.*--scaling.min_workers"):
        allocate(ScalingConfig(num_workers=4, min_workers=3))
