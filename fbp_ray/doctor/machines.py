"""Asking machines: each is given a task and a time for it, and none can hang or end the doctor."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from fbp_ray.doctor.finding import Finding
from fbp_ray.errors import FbpRayError

T = TypeVar("T")

Task: TypeAlias = Callable[[], T]
"""What a machine does: a function of this package, or a `partial` of one, as it may have to travel."""


class Machine(NamedTuple):
    """A machine, and what Ray was told of it (None where there is no Ray)."""

    name: str
    address: str | None = None
    processors: int | None = None
    gpus: int | None = None


class Trouble(NamedTuple):
    """What came instead of an answer."""

    text: str


class Machines(ABC):
    """Some machines, the most important one in front.

    Args:
        machines: which.
    """

    def __init__(self, machines: Sequence[Machine]) -> None:
        self.machines = list(machines)

    @property
    def names(self) -> list[str]:
        """What they are called; no two alike."""
        return [machine.name for machine in self.machines]

    @abstractmethod
    def ask(self, tasks: Mapping[str, Task[T]], seconds: float) -> dict[str, T | Trouble]:
        """Has machines do tasks, all at the same time.

        Args:
            tasks: what each does, by its name.
            seconds: how long to wait for the last of them.
        """

    def everywhere(self, task: Task[T], seconds: float) -> dict[str, T | Trouble]:
        """Has each machine do the same."""
        return self.ask(dict.fromkeys(self.names, task), seconds)

    def leave_out(self, names: Sequence[str]) -> None:
        """Asks some no more."""
        self.machines = [machine for machine in self.machines if machine.name not in names]


class Here(Machines):
    """This machine, in this process.

    Args:
        name: what to call it.
    """

    def __init__(self, name: str) -> None:
        super().__init__([Machine(name)])

    def ask(self, tasks: Mapping[str, Task[T]], seconds: float) -> dict[str, T | Trouble]:
        """In a thread that is left behind when it takes too long: a file system may hang for ever."""
        answers = {}
        for name, task in tasks.items():
            done: queue.Queue[T | Trouble] = queue.Queue()
            threading.Thread(target=_put, args=(done, task), daemon=True).start()
            try:
                answers[name] = done.get(timeout=seconds)
            except queue.Empty:
                answers[name] = silent(seconds)
        return answers


class Together(Machines):
    """The machines of several groups.

    Args:
        groups: them; the first one's first machine comes first.
    """

    def __init__(self, *groups: Machines) -> None:
        super().__init__([machine for group in groups for machine in group.machines])
        self.groups = groups

    def ask(self, tasks: Mapping[str, Task[T]], seconds: float) -> dict[str, T | Trouble]:
        """Group by group."""
        answers: dict[str, T | Trouble] = {}
        for group in self.groups:
            answers |= group.ask({name: tasks[name] for name in group.names if name in tasks}, seconds)
        return answers


def attempt(task: Task[T]) -> T | Trouble:
    """A task's answer, or what went wrong."""
    try:
        return task()
    except FbpRayError as error:
        return Trouble(str(error))
    except Exception as error:
        return Trouble(f"{type(error).__name__}: {error}")


def silent(seconds: float) -> Trouble:
    """What there is to say of a machine that did not answer in time."""
    return Trouble(f"no answer within {seconds:g} s")


def answered(answers: Mapping[str, T | Trouble]) -> dict[str, T]:
    """The answers of those machines that gave one."""
    return {name: answer for name, answer in answers.items() if not isinstance(answer, Trouble)}


def troubles(check: str, answers: Mapping[str, Any], way_out: str) -> Iterator[Finding]:
    """A fault for each machine that gave no answer."""
    for name, answer in answers.items():
        if isinstance(answer, Trouble):
            yield Finding(check, name, "fault", answer.text, way_out)


def _put(done: queue.Queue[T | Trouble], task: Task[T]) -> None:
    done.put(attempt(task))
