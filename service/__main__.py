"""`python -m service` answers reconstructions over HTTP, and runs jobs.

python -m service                       on 127.0.0.1:8000
python -m service --help                every setting, each also an environment variable
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from types import FrameType

# Read when torch is imported: its threads would spin while the server, or a client, needs a processor.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import uvicorn

from fbp_ray.cli import run_program
from service.app import create_app
from service.observe import log_to_stderr
from service.settings import read_settings

M_ARENA_MAX = -8  # malloc.h


class _Server(uvicorn.Server):
    """Tells the application at once when it is to end, so that answers without an end are ended too."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.closing.set()  # type: ignore[union-attr]
        super().handle_exit(sig, frame)


def share_pools() -> None:
    """Has the C library's malloc keep two pools of memory, where it is glibc's.

    It would make one for every thread that takes in bodies, and each keeps the most that it ever had.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_ARENA_MAX, 2)


def main(argv: Sequence[str]) -> None:
    """Serves until it is told to end; then finishes what it took."""
    share_pools()
    settings = read_settings(argv)
    log_to_stderr(settings.log)
    app = create_app(settings)
    _Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(settings.limits.request_seconds) + 1,
        )
    ).run()


if __name__ == "__main__":
    run_program(main)
