"""The memory of a process that reads an epoch: at its highest, and before it begins. Run by itself, it measures one.

python -m benchmarks.loader.memory FOLDER SAMPLES
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak(folder: Path, samples: int) -> tuple[int, int] | None:
    """Bytes before and at the highest while so many samples are read; None where they cannot be measured."""
    if not _STATUS.exists():
        return None
    command = [sys.executable, "-m", "benchmarks.loader.memory", str(folder), str(samples)]
    before, most = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return int(before), int(most)


def _bytes(line: str) -> int:
    found = re.search(rf"{line}:\s+(\d+) kB", _STATUS.read_text())
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    from fbp_ray.data import Batches, LoDoPaB
    from fbp_ray.geometry import ParallelBeam

    start = _bytes("VmHWM")
    data = LoDoPaB(sys.argv[1], "train", ParallelBeam.lodopab(), int(sys.argv[2]))
    for _ in Batches(data, 4, seed=0).epoch(1):
        pass
    print(start, _bytes("VmHWM"))
