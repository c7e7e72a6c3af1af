"""Samples kept in memory that the processes of a node share: once a node, not once a process.

Dimensions: A angles, D detector cells, H and W the image's axes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fbp_ray.data.lodopab import LoDoPaB
from fbp_ray.data.shared import shared_memory
from fbp_ray.errors import DataError


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
        kind = np.dtype(np.float32 if mode == "memory" else np.float16)
        shapes = dataset.geometry.sinogram_shape, dataset.geometry.image_shape
        stamp = np.dtype(np.int64)
        each = sum(int(np.prod(shape)) for shape in shapes) * kind.itemsize + stamp.itemsize
        memory = shared_memory(each * len(dataset), each)
        self.bytes = len(memory)
        """Of shared memory, on this node."""
        self.samples = min(len(memory) // each, len(dataset))
        """It keeps the samples 0 to `samples` - 1."""
        # One more than the epoch in which a sample was stored; 0: not yet.
        self._stored = np.frombuffer(memory, stamp, self.samples)
        start = self._stored.nbytes
        self._arrays: list[NDArray[np.floating]] = []
        for shape in shapes:
            array = np.frombuffer(memory, kind, self.samples * int(np.prod(shape)), start)
            self._arrays.append(array.reshape(self.samples, *shape))
            start += array.nbytes

    def holds(self, sample: int, epoch: int) -> bool:
        """Whether the sample was stored in an epoch before this one."""
        return sample < self.samples and 0 < int(self._stored[sample]) <= epoch

    def put(self, sample: int, epoch: int, observation: NDArray[np.float32], ground_truth: NDArray[np.float32]) -> None:
        """Stores a sample, (A, D) and (H, W), if it is one of those that are kept.

        In half precision the arrays are rounded too, kept or not: what a sample is must not depend on whether this
        process, or the one that it goes on for, has read it before.

        Raises:
            DataError: it has a value that half precision cannot hold.
        """
        kept = sample < self.samples
        for array, values in zip(self._arrays, (observation, ground_truth), strict=True):
            if self.mode == "half" and max(values.max(), -values.min()) > np.finfo(np.float16).max:
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

    def get(self, sample: int, observation: NDArray[np.float32], ground_truth: NDArray[np.float32]) -> None:
        """Copies a sample that it holds to `observation` (A, D) and `ground_truth` (H, W)."""
        for array, values in zip(self._arrays, (observation, ground_truth), strict=True):
            _copy(values, array[sample])


def _copy(to: NDArray[np.floating], values: NDArray[np.floating]) -> None:
    if to.dtype == values.dtype:
        np.copyto(to, values)
    else:  # torch converts five times faster
        torch.from_numpy(to).copy_(torch.from_numpy(values))
