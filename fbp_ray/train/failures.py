"""What ends a training under Ray, and what does not: the worker's own error in front, not the framework's account."""

from __future__ import annotations

import re
from typing import Any

import torch.distributed as dist
from ray.exceptions import RayActorError, RayTaskError
from ray.train import UserCallback
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError

from fbp_ray.errors import FbpRayError, RunError
from fbp_ray.train.events import Events


class Failures(UserCallback):
    """Lives in Ray's controller: tells what was lost, and ends a run whose error would come again.

    Args:
        events: where the driver reads what happens.
        most: failures that the run recovers from.
    """

    def __init__(self, events: Events, most: int) -> None:
        self.events = events
        self.most = most
        self.count = 0

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raises the worker's own error, so that Ray does not try again; reports a loss otherwise."""
        own = _own_error(worker_exceptions)
        if own is not None:
            raise own
        self.count += 1
        text = _what_was_lost(worker_exceptions)
        event = {"event": "failure", "text": text, "failures": self.count, "max_failures": self.most}
        self.events.put(event)


def cause(error: TrainingFailedError, most: int) -> FbpRayError:
    """The error to show for one that ended a training."""
    if isinstance(error, ControllerError):
        own = _unwrap(error.controller_failure)
        return own or RunError(f"the training could not go on: {error.controller_failure}")
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    own = _own_error(failures)
    if own is not None:
        return own
    if not failures:
        return RunError(f"the training could not go on: {error}")
    text = _what_was_lost(failures)
    if most:
        text += f", and that more often than --run.max_failures {most}"
    return RunError(
        f"{text}. The epochs that were finished are kept: put the cause right and give the same command to go on"
    )


def _own_error(failures: dict[int, Exception]) -> FbpRayError | None:
    return next((own for rank in sorted(failures) if (own := _unwrap(failures[rank])) is not None), None)


def _unwrap(error: BaseException | None) -> FbpRayError | None:
    """The error of this package inside those that Ray and Python have put around it."""
    while error is not None:
        if isinstance(error, RayTaskError):
            error = error.cause
        elif isinstance(error, FbpRayError):
            return error
        else:
            error = getattr(error, "_base_exc", None) or getattr(error, "cause", None) or error.__cause__
    return None


def _what_was_lost(failures: dict[int, Exception]) -> str:
    """One line: which worker was lost, rather than which others noticed."""
    lost = [rank for rank in sorted(failures) if _is_lost(failures[rank])]
    if lost:
        ranks = " and ".join(str(rank) for rank in lost)
        return f"training worker {ranks} was lost: killed, out of memory, or its machine went away"
    rank = min(failures)
    base = getattr(failures[rank], "_base_exc", None) or failures[rank]
    return f"training worker {rank} lost another one ({_peer(str(base))}): killed, or its machine went away"


def is_connection_lost(error: BaseException) -> bool:
    """Whether torch's collective operations failed, which is how a worker notices that another is gone."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and re.search(r"gloo|nccl", str(error), re.IGNORECASE) is not None
    )


def _peer(text: str) -> str:
    match = re.search(r"(Connection [a-z ]+)\[?([0-9a-f.:]+)?\]?", text)
    return " ".join(part.strip() for part in match.groups() if part) if match else text.splitlines()[0][:200]


def _is_lost(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, RayActorError):
            return True
        error = getattr(error, "_base_exc", None) or error.__cause__
    return False
