"""How much memory each case needs beyond what it is given, measured in a process of its own.

It is the process's resident memory at its highest during a call (VmHWM, set back before the call) less its resident
memory before it, after one call to warm up. The process is started with all larger blocks taken from and given back to
the system one by one, so that what an earlier call freed cannot be mistaken for memory that was there already. This
needs Linux.

A call's result counts, its inputs do not, nor what was made once and for all. Cases that go through a part of the
angles only are left out.
"""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.projector.cases import Case, own_cases
from benchmarks.projector.peers import peer_cases
from fbp_ray.geometry import ParallelBeam

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def extra_memory(threads: int) -> dict[str, int]:
    """Bytes beyond the inputs for each case, by the case's name; empty where they cannot be measured."""
    if not _RESET.exists():
        return {}
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "benchmarks.projector.memory", str(threads)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def _extra(case: Case) -> int:
    case.run()
    gc.collect()
    before = _resident("VmRSS")
    _RESET.write_text("5")
    case.run()
    return max(_resident("VmHWM") - before, 0)


def _resident(line: str) -> int:
    found = re.search(rf"{line}:\s+(\d+) kB", _STATUS.read_text())
    assert found is not None
    return int(found[1]) * 1024


def main(threads: str) -> None:
    """Prints what `extra_memory` returns."""
    torch.set_num_threads(int(threads))
    geometry = ParallelBeam.lodopab()
    cases = [*own_cases(geometry), *peer_cases(geometry, "cpu", [])]
    print(json.dumps({case.name: _extra(case) for case in cases if case.part == 1}))


if __name__ == "__main__":
    main(*sys.argv[1:])
