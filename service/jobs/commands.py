"""What a job may be: a fixed table. Nothing that a caller sends becomes part of a shell line.

A job's configuration reaches it as an environment variable, in base64: Ray replaces `${NAME}` in the values of such
variables by what the environment has there, and a caller must not read it that way.
"""

from __future__ import annotations

import base64
import binascii
import json
import shlex
from typing import Any

from service.jobs.documents import Kind, SpaceName

VARIABLE = "FBP_RAY_JOB"
LONGEST = 90_000  # bytes: the system takes 128 KB for a variable, and base64 makes four of three
SPACES: dict[SpaceName, str] = {"loss_weights": "sweeps.loss_weights", "learning_rate": "sweeps.learning_rate"}
_ARGUMENTS: dict[Kind, str] = {
    "train": "-m service.jobs.entry train",
    "sweep": "-m service.jobs.entry sweep",
    "evaluate": "-m service.jobs.entry evaluate",
}


def command(python: str, kind: Kind) -> str:
    """The shell line of a job.

    Args:
        python: of the service's settings.
        kind: of the job.
    """
    return f"{shlex.quote(python)} {_ARGUMENTS[kind]}"


def pack(request: dict[str, Any]) -> str:
    """A request as the value of the variable; raises ValueError where it is too long."""
    content = json.dumps(request).encode()
    if len(content) > LONGEST:
        raise ValueError(f"the configuration takes {len(content)} bytes, more than {LONGEST}")
    return base64.b64encode(content).decode()


def unpack(value: str) -> dict[str, Any]:
    """The request that `pack` was given; raises ValueError for anything else."""
    try:
        return dict(json.loads(base64.b64decode(value, validate=True)))
    except (binascii.Error, TypeError) as error:
        raise ValueError(str(error)) from None
