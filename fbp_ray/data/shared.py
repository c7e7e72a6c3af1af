"""Memory that all processes of a node share, and that is freed when the last of them ends, however it ends."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist

from fbp_ray.errors import DataError

SHARED = Path("/dev/shm")
RESERVE = 0.2
"""Of what is free, so much is left to others."""

GIB = 2**30
T = TypeVar("T")


def shared_memory(wanted: int, least: int) -> mmap.mmap:
    """Memory of zeros shared by the processes of the default process group that run on this node.

    With a group, all of its processes call this, with the same arguments. Those that see the same files are on one
    node; with NCCL each must have chosen its device. Without a group it is this process's own.

    Args:
        wanted: bytes; there are fewer where fewer are free.
        least: fewer bytes than these are of no use.

    Raises:
        DataError: on a node, fewer than `least` bytes are free, or memory cannot be shared. Every process raises it.
    """
    path, problem = _new_file()
    names = _all_gather(str(path or ""))
    problem = next(filter(None, _all_gather(problem)), None)
    try:
        if problem is None:
            # The first process whose file this one sees sizes its file, and all that see it use it.
            leader = next(name for name in names if Path(name).exists())
            descriptor = os.open(leader, os.O_RDWR | os.O_CLOEXEC)
        _all_gather(None)  # all have opened it: nothing needs its name any more, and without one it cannot stay behind
    finally:
        if path is not None:
            path.unlink()
    if problem is None:
        try:
            problem = _allocate(descriptor, Path(leader).parent, wanted, least) if leader == str(path) else None
            problem = next(filter(None, _all_gather(problem)), None)
            if problem is None:
                return mmap.mmap(descriptor, 0)
        finally:
            os.close(descriptor)
    raise DataError(problem)


def free_bytes(folder: Path) -> int:
    """What is free both in a folder of shared memory and in this machine's memory, or its container's."""
    free = [shutil.disk_usage(folder).free]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        free.append(int(fields["MemAvailable"].split()[0]) * 1024)
    free += _free_in_groups(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))
    return max(0, min(free))


def _free_in_groups(root: Path, groups: Path) -> list[int]:
    """What the limits of this process's control groups (version 2) leave; files that are only cached do not count."""
    if not groups.exists():
        return []
    own = next((line[3:] for line in groups.read_text().splitlines() if line.startswith("0::")), None)
    free: list[int] = []
    inner = root / own.lstrip("/") if own is not None else root
    for group in (inner, *inner.parents):
        if not group.is_relative_to(root):
            break
        limit = group / "memory.max"
        if limit.exists() and (most := limit.read_text().strip()) != "max":
            fields = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            used = int((group / "memory.current").read_text()) - int(fields["inactive_file"])
            free.append(int(most) - used)
    return free


def _new_file() -> tuple[Path | None, str | None]:
    """An empty file in shared memory, or what keeps it from being made."""
    folder = SHARED if SHARED.is_dir() else Path(tempfile.gettempdir())
    try:
        descriptor, name = tempfile.mkstemp(prefix="fbp-ray-", dir=folder)
    except OSError as error:
        return None, f"no file can be made in {folder} for --data.cache ({error}); make it writable, or use none"
    os.close(descriptor)
    return Path(name), None


def _allocate(descriptor: int, folder: Path, wanted: int, least: int) -> str | None:
    """Gives the file its size, and its memory at once: where it lacks later, the process dies of SIGBUS."""
    try:
        free = free_bytes(folder)
        size = min(wanted, int(free * (1 - RESERVE)))
        if size < least:
            return (
                f"--data.cache needs {wanted / GIB:.2f} GiB of shared memory, or {least / GIB:.3f} at least, but "
                f"{free / GIB:.3f} GiB are free in {folder} and in memory, of which {RESERVE:.0%} are left to others; "
                "free some, give the container more (docker run --shm-size), or use --data.cache none"
            )
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:
            os.ftruncate(descriptor, size)
    except OSError as error:
        return f"{wanted / GIB:.2f} GiB cannot be had in {folder} for --data.cache ({error}); use --data.cache none"
    return None


def _all_gather(value: T) -> list[T]:
    """Everyone's value, in the order of their ranks."""
    if not dist.is_initialized():
        return [value]
    values: list[T] = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
