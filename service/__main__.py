"""`python -m service` answers reconstructions over HTTP, and runs jobs.

python -m service                       on 127.0.0.1:8000
python -m service --help                every setting, each also an environment variable
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from fbp_ray.cli import run_program
from service.settings import read_settings


def main(argv: Sequence[str]) -> None:
    """Serves until it is told to end, then finishes the requests that it has."""
    settings = read_settings(argv)
    # torch reads this when it is imported: its idle threads would spin while the server needs a processor
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from service.app import serve

    serve(settings)


if __name__ == "__main__":
    run_program(main)
