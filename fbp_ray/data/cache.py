"""Samples kept in memory that the processes of a machine share: once a machine, not once a process.

Dimensions: A angles, D detector cells, H and W the image's axes.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal, TypeVar
from uuid import uuid4

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from fbp_ray.data.hdf5_reader import Array
from fbp_ray.data.lodopab import LoDoPaB
from fbp_ray.errors import DataError
from fbp_ray.memory import available_bytes

SHARED = Path("/dev/shm")
RESERVE = 0.2
"""The part of the free memory that is left to others."""

GIB = 2**30
T = TypeVar("T")


class SharedCache:
    """Keeps samples as they are read, and gives them back in later epochs.

    With a default process group, all of its processes make it together. Between two epochs they must wait for each
    other (any all-reduce does): what one stored in an epoch, all see in the next.

    Args:
        dataset: whose samples are kept: all, or the first so many where memory is short (see `samples`).
        mode: "memory" keeps them as they are, "half" in half precision: within 2^-11 (0.05 %) of each value, or 3e-8
            of those below 6e-5. Their memory is 2.58 MB a sample of LoDoPaB-CT, or 1.29.

    Raises:
        DataError: not a single sample fits, or memory cannot be shared.
    """

    def __init__(self, dataset: LoDoPaB, mode: Literal["memory", "half"]) -> None:
        self.mode = mode
        dtype = np.dtype(np.float32 if mode == "memory" else np.float16)
        shapes = dataset.geometry.sinogram_shape, dataset.image_shape
        epoch = np.dtype(np.int64)
        sample_bytes = sum(int(np.prod(shape)) for shape in shapes) * dtype.itemsize + epoch.itemsize
        memory = shared_memory(sample_bytes * len(dataset), sample_bytes)
        self.bytes = len(memory)
        """Bytes of shared memory on this machine."""
        self.samples = min(len(memory) // sample_bytes, len(dataset))
        """It keeps the samples 0 to `samples` - 1."""
        # One more than the epoch in which a sample was stored; 0: not yet.
        self._stored = np.frombuffer(memory, epoch, self.samples)
        start = self._stored.nbytes
        self._arrays: list[NDArray[np.floating]] = []
        for shape in shapes:
            array = np.frombuffer(memory, dtype, self.samples * int(np.prod(shape)), start)
            self._arrays.append(array.reshape(self.samples, *shape))
            start += array.nbytes

    def holds(self, sample: int, epoch: int) -> bool:
        """Whether the sample was stored in an epoch before this one."""
        return sample < self.samples and 0 < int(self._stored[sample]) <= epoch

    def put(self, sample: int, epoch: int, observation: Array, ground_truth: Array) -> None:
        """Stores a sample, (A, D) and (H, W), if it is one of those that are kept.

        In half precision the arrays are rounded too, kept or not: what a sample is must not depend on whether this
        process, or the one that it goes on for, has read it before.

        Raises:
            DataError: it has a value that half precision cannot hold.
        """
        kept = sample < self.samples
        for array, values in zip(self._arrays, (observation, ground_truth), strict=True):
            if self.mode == "half" and max(values.max(initial=0), -values.min(initial=0)) > np.finfo(np.float16).max:
                raise DataError(
                    f"sample {sample} has values beyond {np.finfo(np.float16).max:g}, which half precision cannot "
                    "hold; use --data.cache memory"
                )
            stored = array[sample] if kept else np.empty(values.shape, array.dtype)
            _copy(stored, values)
            if self.mode == "half":
                _copy(values, stored)
        if kept:
            self._stored[sample] = epoch + 1

    def get(self, sample: int, observation: Array, ground_truth: Array) -> None:
        """Copies a sample that it holds to `observation` (A, D) and `ground_truth` (H, W)."""
        for array, values in zip(self._arrays, (observation, ground_truth), strict=True):
            _copy(values, array[sample])

    def get_many(self, samples: NDArray[np.int64], observations: Array, ground_truths: Array) -> None:
        """Copies several to observations (n, A, D) and ground truths (n, H, W), by all of torch's threads."""
        index = torch.from_numpy(samples)
        for array, values in zip(self._arrays, (observations, ground_truths), strict=True):
            kept, to = torch.from_numpy(array), torch.from_numpy(values)
            if kept.dtype == to.dtype:
                torch.index_select(kept, 0, index, out=to)
            else:
                to.copy_(kept[index])


def _copy(to: NDArray[np.floating], values: NDArray[np.floating]) -> None:
    if to.dtype == values.dtype:
        np.copyto(to, values)
    else:  # torch converts five times faster
        torch.from_numpy(to).copy_(torch.from_numpy(values))


def shared_memory(wanted: int, least: int) -> mmap.mmap:
    """Zeroed memory shared by the processes of the default process group on this machine; freed when the last ends.

    With a group, all of its processes call this, with the same arguments. Those that see the same files are on one
    machine; with NCCL each must have chosen its device. Without a group the memory is this process's own.

    Args:
        wanted: bytes; there are fewer where fewer are free.
        least: fewer bytes than these are of no use.

    Raises:
        DataError: on one of the machines fewer than `least` bytes are free, or memory cannot be shared. Every process
            raises it.
    """
    folder = SHARED if SHARED.is_dir() else Path(tempfile.gettempdir())
    path = folder / f"fbp-ray-{_all_gather(uuid4().hex)[0]}"
    flags = os.O_RDWR | os.O_CLOEXEC
    descriptor, created, problem = None, False, None
    try:
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
            created = True
            problem = _allocate(descriptor, folder, wanted, least)
        except FileExistsError:  # another process of this machine was first
            descriptor = os.open(path, flags)
        except OSError as error:
            problem = f"no file can be made in {folder} for --data.cache ({error}); make it writable, or use none"
        problem = next(filter(None, _all_gather(problem)), None)
        if problem is not None or descriptor is None:
            raise DataError(problem)
        return mmap.mmap(descriptor, 0)
    finally:  # all have opened it: nothing needs its name any more, and without one it cannot stay behind
        if created:
            path.unlink()
        if descriptor is not None:
            os.close(descriptor)


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


def free_bytes(folder: Path) -> int:
    """What is free both in a folder of shared memory and in this machine's memory, or its container's."""
    return min(shutil.disk_usage(folder).free, available_bytes())


def _all_gather(value: T) -> list[T]:
    """Everyone's value, in the order of their ranks."""
    if not dist.is_initialized():
        return [value]
    values: list[T] = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
