"""The versions of Python and of the packages: those there are, and those that fbp-ray needs."""

from __future__ import annotations

import platform
from collections.abc import Collection
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

PACKAGES = ("fbp-ray", "torch", "numpy", "numba", "piq", "ray", "h5py", "pydantic", "safetensors")


def versions() -> dict[str, str]:
    """The versions that a result depends on: Python's, the machine's, and those of the packages."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def processor() -> str:
    """The processor's name, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def unmet_requirements(names: Collection[str] | None = None) -> dict[str, str]:
    """The requirements of the installed fbp-ray that do not hold, each as a sentence, by package.

    Args:
        names: look at these packages only; at all by default.
    """
    found = {}
    with suppress(metadata.PackageNotFoundError):
        for needed in map(Requirement, metadata.requires("fbp-ray") or []):
            wanted = names is None or needed.name in names
            if wanted and (needed.marker is None or needed.marker.evaluate({"extra": ""})):
                version = next((d.version for d in metadata.distributions(name=needed.name)), None)
                if version is None or not needed.specifier.contains(version, prereleases=True):
                    found[needed.name] = f"{needed.name} is {version or 'not installed'}, but fbp-ray needs {needed}"
    return found
