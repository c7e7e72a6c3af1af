"""The machines of the Ray cluster that this process has joined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fbp_ray.doctor.finding import Finding
from fbp_ray.doctor.machines import Machine, Machines, T, Task, Trouble, attempt, silent

ON_PURPOSE = (1, 4)  # why a node is no more, in Ray's numbers: it was stopped, or taken away because it was idle


class Envoy:
    """The doctor's process on a machine."""

    def call(self, task: Task[T]) -> T | Trouble:
        """Does a task there."""
        return attempt(task)


class Nodes(Machines):
    """The machines that the cluster has now, its head in front. On each waits a process that takes no processor."""

    def __init__(self) -> None:
        alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        alive.sort(key=lambda node: "node:__internal_head__" not in node["Resources"])
        super().__init__([])
        self._ids: dict[str, str] = {}
        self._envoys: dict[str, Any] = {}
        for node in alive:
            name = _name(node)
            if name in self._ids:  # several nodes of one machine
                name = f"{name[:-1]}, node {node['NodeID'][:6]})"
            self._ids[name] = node["NodeID"]
            told = node["Resources"]
            machine = Machine(name, node["NodeManagerAddress"], int(told.get("CPU", 0)), int(told.get("GPU", 0)))
            self.machines.append(machine)

    def ask(self, tasks: Mapping[str, Task[T]], seconds: float) -> dict[str, T | Trouble]:
        """A machine that is late or lost gets a new process when it is asked again."""
        if not tasks:
            return {}
        calls = {name: self._envoy(name).call.remote(task) for name, task in tasks.items()}
        done, _ = ray.wait(list(calls.values()), num_returns=len(calls), timeout=seconds)
        answers: dict[str, T | Trouble] = {}
        for name, call in calls.items():
            try:
                if call in done:
                    answers[name] = ray.get(call)
                    continue
                answers[name] = silent(seconds)
            except RayActorError as error:
                answers[name] = Trouble(f"no process could be started there, or it was lost: {last_line(error)}")
            except RayError as error:
                answers[name] = Trouble(last_line(error))
            ray.kill(self._envoys.pop(name))
        return answers

    def close(self) -> None:
        """Ends the processes."""
        for envoy in self._envoys.values():
            ray.kill(envoy)
        self._envoys.clear()

    def _envoy(self, name: str) -> Any:
        if name not in self._envoys:
            there = NodeAffinitySchedulingStrategy(self._ids[name], soft=False)
            self._envoys[name] = ray.remote(Envoy).options(num_cpus=0, scheduling_strategy=there).remote()
        return self._envoys[name]


def lost_machines() -> Iterator[Finding]:
    """A warning for each machine that the cluster had, and lost without its being stopped."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    alive = {_name(node) for node in nodes if node["Alive"]}
    lost = {
        _name(node): node.get("DeathReasonMessage") or "Ray does not say why"
        for node in nodes
        if not node["Alive"] and node.get("DeathReason") not in ON_PURPOSE
    }
    for name, why in lost.items():
        if name not in alive:
            way_out = "if it is to train, see why it went away, and start Ray there again"
            yield Finding("cluster", name, "warning", f"the cluster has lost the machine: {why}", way_out)


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})"


def last_line(error: Exception) -> str:
    """What an error of Ray comes down to: below its account and the traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
