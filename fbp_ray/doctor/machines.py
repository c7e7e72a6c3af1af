"""Asking machines: each gets a task and a time limit, and none can hang or end the doctor."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from fbp_ray.errors import FbpRayError

T = TypeVar("T")

Task: TypeAlias = Callable[[], T]
"""What a machine does: a function of this package, or a `partial` of one, because it may have to travel."""

State: TypeAlias = Literal["ok", "warning", "fault"]
STOPPED = (1, 4)
"""Ray's reasons for the end of a node that was stopped, or taken away because it was idle."""


class Finding(NamedTuple):
    """One thing that a check found."""

    check: str
    """The name of the check: versions, storage, .."""

    machine: str
    """The name of the machine, or of several."""

    state: State
    """warning: it works, but badly or not for long; fault: training will fail, or give wrong results."""

    found: str
    """What is so, and what should be."""

    remedy: str = ""
    """What to do about it; empty where all is well."""


class Failure(NamedTuple):
    """What came instead of an answer."""

    text: str


class Machine:
    """The machine of this process, which does tasks in threads.

    Args:
        name: no two machines have the same.
        address: its address in the Ray cluster, None without Ray.
        cpus: the processors that Ray counts on, None without Ray.
        gpus: the GPUs that Ray counts on, None without Ray.
    """

    def __init__(self, name: str, address: str | None = None, cpus: int | None = None, gpus: int | None = None) -> None:
        self.name = name
        self.address = address
        self.cpus = cpus
        self.gpus = gpus

    def start(self, task: Task[T]) -> Future[T | Failure]:
        """Begins a task."""
        future: Future[T | Failure] = Future()
        threading.Thread(target=lambda: future.set_result(attempt(task)), daemon=True).start()
        return future

    def give_up(self) -> None:
        """Leaves a task that takes too long to itself: a file system may hang for ever, and its thread with it."""


class NodeProbe:
    """The doctor's actor on a node of a Ray cluster."""

    def run(self, task: Task[T]) -> T | Failure:
        """Does a task there."""
        return attempt(task)


class RayNode(Machine):
    """A node of the Ray cluster that this process has joined. Its actor takes no processor.

    Args:
        name: no two machines have the same.
        node: what `ray.nodes()` says of it.
    """

    def __init__(self, name: str, node: Mapping[str, Any]) -> None:
        resources = node["Resources"]
        super().__init__(name, node["NodeManagerAddress"], int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))
        self._id = node["NodeID"]
        self._probe: Any = None

    def start(self, task: Task[T]) -> Future[T | Failure]:
        """Begins a task in the actor, which is started for the first task and after one that was given up."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if self._probe is None:
            there = NodeAffinitySchedulingStrategy(self._id, soft=False)
            self._probe = ray.remote(NodeProbe).options(num_cpus=0, scheduling_strategy=there).remote()
        future: Future[T | Failure] = self._probe.run.remote(task).future()
        return future

    def give_up(self) -> None:
        """Kills the actor."""
        import ray

        ray.kill(self._probe)
        self._probe = None


def ray_nodes() -> tuple[list[Machine], list[Finding]]:
    """The nodes of the cluster that this process has joined, the head first, and a warning for each lost one."""
    import ray  # here, not above: it takes seconds to import

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    nodes.sort(key=lambda node: "node:__internal_head__" not in node["Resources"])
    machines: dict[str, Machine] = {}
    lost: dict[str, Finding] = {}
    for node in nodes:
        name = f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})"
        if node["Alive"]:
            if name in machines:  # several nodes on one machine
                name = f"{name[:-1]}, node {node['NodeID'][:6]})"
            machines[name] = RayNode(name, node)
        elif node.get("DeathReason") not in STOPPED:
            text = f"the cluster has lost the machine: {node.get('DeathReasonMessage') or 'Ray does not say why'}"
            remedy = "if it is to train, see why it went away, and start Ray there again"
            lost[name] = Finding("cluster", name, "warning", text, remedy)
    return list(machines.values()), [finding for name, finding in lost.items() if name not in machines]


def ask(
    check: str, tasks: Mapping[Machine, Task[T]], seconds: float, remedy: str
) -> tuple[dict[Machine, T], list[Finding]]:
    """Has machines do tasks, all at the same time.

    Args:
        check: the check that this is for.
        tasks: what each machine does.
        seconds: how long to wait for the last of them.
        remedy: what to do about a machine that does not answer, or whose task fails.

    Returns:
        The answers, and a fault for each machine that gave none.
    """
    futures = {machine: machine.start(task) for machine, task in tasks.items()}
    wait(futures.values(), timeout=seconds)
    answers: dict[Machine, T] = {}
    faults = []
    for machine, future in futures.items():
        if not future.done():
            machine.give_up()
            answer: T | Failure = Failure(f"no answer within {seconds:g} s")
        elif (error := future.exception()) is not None:
            machine.give_up()
            answer = Failure(f"no process could be started there, or it was lost: {_last_line(error)}")
        else:
            answer = future.result()
        if isinstance(answer, Failure):
            faults.append(Finding(check, machine.name, "fault", answer.text, remedy))
        else:
            answers[machine] = answer
    return answers, faults


def report(check: str, tasks: Mapping[Machine, Task[list[Finding]]], seconds: float, remedy: str) -> Iterator[Finding]:
    """What machines find by themselves, and a fault for each that does not answer; arguments as of `ask`."""
    answers, faults = ask(check, tasks, seconds, remedy)
    yield from faults
    for findings in answers.values():
        yield from findings


def attempt(task: Task[T]) -> T | Failure:
    """A task's answer, or what went wrong."""
    try:
        return task()
    except FbpRayError as error:
        return Failure(str(error))
    except Exception as error:
        return Failure(f"{type(error).__name__}: {error}")


def majority(values: Iterable[T]) -> T:
    """The value that most have; of several such the first."""
    return Counter(values).most_common(1)[0][0]


def names(machines: Iterable[Machine], most: int = 3) -> str:
    """The names of the first few machines, and how many there are besides."""
    found: Sequence[str] = [machine.name for machine in machines]
    rest = len(found) - most
    return ", ".join(found[:most]) + (f" and {rest} more" if rest > 0 else "")


def _last_line(error: BaseException) -> str:
    """The essence of an error of Ray, which stands below its account and the traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
