"""What can go wrong, as one tree.

    FbpRayError
    ├── GeometryError      a geometry that cannot be, or an array that does not fit one   (a ValueError)
    ├── DataError          a file or a sample that is missing, damaged or of another kind
    ├── CheckpointError    a checkpoint that is missing, damaged or of another model
    ├── ConfigError        an option or a recipe that does not hold                       (a ValueError)
    ├── RunError           a run that cannot start, or that stopped
    └── ServiceError       a service that does not answer its client, or that says no

Every message says what was expected, what came and the way out. The command-line programs print it without a
traceback and exit with 2 (the request cannot be met as put) or 1 (it failed on the way).
"""

from __future__ import annotations


class FbpRayError(Exception):
    """The root of the errors that this package raises on purpose."""

    exit_code = 2


class GeometryError(FbpRayError, ValueError):
    """A geometry that cannot be, or an array whose shape does not fit one."""


class DataError(FbpRayError):
    """A data folder, a file or a sample that is missing, damaged or of another kind."""


class CheckpointError(FbpRayError):
    """A checkpoint that is missing, damaged or made for something else."""


class ConfigError(FbpRayError, ValueError):
    """An option, a recipe or a configuration file that is not valid."""


class RunError(FbpRayError):
    """A training run that cannot start, or that had to stop."""

    exit_code = 1


class ServiceError(FbpRayError):
    """A service that does not answer its client, or that refuses a request.

    Args:
        message: what was asked, what came and the way out.
        status: the HTTP status of the answer, None where there was none.
        detail: the service's own words.
        request_id: what its log has the request under.
    """

    exit_code = 1

    def __init__(self, message: str, *, status: int | None = None, detail: str = "", request_id: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail or message
        self.request_id = request_id
