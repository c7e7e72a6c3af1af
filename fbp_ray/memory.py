"""What memory there is: of the machine, and of the container that this process may run in; and leaving it to others."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

CONTROL_GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_FILES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""By the version of the control groups: the files of the limit and of what is in use, and the field of cached files."""


def available_bytes() -> int:
    """What is free in this machine's memory, or in its container's."""
    return max(0, min([psutil.virtual_memory().available, *container_free_bytes(CONTROL_GROUPS, OWN_GROUPS)]))


def keep_no_copy(file: int) -> None:
    """Has the system keep no copy in memory of what is on the disk of an open file.

    For files that are read or written once and fill the memory: they would push everything else out, and to find
    memory anew takes the system much longer than to use the same again.
    """
    if hasattr(os, "posix_fadvise"):  # macOS has none
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def container_free_bytes(root: Path, own: Path) -> list[int]:
    """What each memory limit of this process's control groups leaves; files that are only cached do not count.

    Args:
        root: where the control groups are mounted.
        own: the file that names this process's groups.
    """
    if not own.exists():
        return []
    free: list[int] = []
    for line in own.read_text().splitlines():
        number, controllers, name = line.split(":", 2)
        if number == "0":
            version, top = 2, root
        elif "memory" in controllers.split(","):
            version, top = 1, root / "memory"
        else:
            continue
        limit, usage, cached = _FILES[version]
        group = top / name.lstrip("/")  # a container of version 1 may see its own group as `top`, and not this one
        while group.is_relative_to(top):
            if (group / limit).exists() and (most := (group / limit).read_text().strip()) != "max":
                fields = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                free.append(int(most) - int((group / usage).read_text()) + int(fields[cached]))
            group = group.parent
    return free
