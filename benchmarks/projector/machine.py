"""What the figures were measured on and with."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from fbp_ray.versions import processor

_PACKAGES = (
    "fbp-ray", "torch", "numba", "numpy", "triton", "astra-toolbox", "scikit-image", "torchtomo", "diffct",
)  # fmt: skip


def machine() -> dict[str, str | int]:
    """The processor, the cores that this process may use, torch's threads, the GPU if any, the system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: dict[str, str | int] = {
        "processor": processor(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "torch's vectors": torch.backends.cpu.get_cpu_capability(),
        "OpenMP waits": os.environ.get("OMP_WAIT_POLICY", "as it likes"),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


class OtherPrograms:
    """How much of the machine other programs take while this one measures. Where /proc does not tell: None.

    What this program started counts as its own once it has ended and been waited for.
    """

    def __init__(self) -> None:
        self._start = self._now()

    def cores(self) -> float | None:
        """The cores that were busy with something else, on average since the start."""
        now = self._now()
        if self._start is None or now is None:
            return None
        everything, own, clock = (end - begin for begin, end in zip(self._start, now, strict=True))
        return max(everything - own, 0.0) / clock

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        stat = Path("/proc/stat")
        if not stat.exists():
            return None
        user, nice, system, _idle, _wait, irq, softirq, *_ = map(int, stat.read_text().splitlines()[0].split()[1:])
        everything = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        return everything, own, time.perf_counter()


def versions() -> dict[str, str]:
    """The versions of what was measured and of what it stands on, as far as it is installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
