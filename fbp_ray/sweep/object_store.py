"""The data of a sweep in Ray's object store: read once, and kept once a node, whatever the number of trials.

Dimensions: N samples, A angles, D detector cells, H and W the image's axes.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import ray
from numpy.typing import NDArray

from fbp_ray.config import DataConfig
from fbp_ray.data import Batches, LoDoPaB, SharedCache
from fbp_ray.errors import DataError

CHUNK = 32  # samples of an object: few, as they are in memory twice while they are stored
MOST = 0.6  # of the object store: Ray keeps its own objects there, and writes to disk when it is full

HALF_MAX = float(np.finfo(np.float16).max)


class StoredData(NamedTuple):
    """A part of the data in the object store, to be sent to the trials."""

    mode: Literal["memory", "half"]
    samples: int
    chunks: list[tuple[Any, Any]]
    """References to observations (CHUNK, A, D) and ground truths (CHUNK, H, W)."""


class ObjectStoreCache(SharedCache):
    """A part of the data in the object store, as the cache that a trial's batches come from. It is full from the start.

    Args:
        stored: what `store` returned, in the same or another process.
    """

    def __init__(self, stored: StoredData) -> None:
        self.mode = stored.mode
        self.samples = stored.samples
        self._chunks: list[tuple[NDArray[np.floating], NDArray[np.floating]]] = [
            (ray.get(observations), ray.get(images)) for observations, images in stored.chunks
        ]
        self.bytes = sum(array.nbytes for chunk in self._chunks for array in chunk)

    def holds(self, sample: int, epoch: int) -> bool:
        """Whether it has the sample: it has all."""
        return sample < self.samples

    def put(self, sample: int, epoch: int, observation: NDArray[np.float32], ground_truth: NDArray[np.float32]) -> None:
        """Does nothing: every sample is there."""

    def get(self, sample: int, observation: NDArray[np.float32], ground_truth: NDArray[np.float32]) -> None:
        """Copies a sample to `observation` (A, D) and `ground_truth` (H, W)."""
        for array, values in zip(self._chunks[sample // CHUNK], (observation, ground_truth), strict=True):
            np.copyto(values, array[sample % CHUNK])


def store(dataset: LoDoPaB, data: DataConfig) -> StoredData:
    """Reads a part of the data into the object store.

    Args:
        dataset: the part.
        data: its cache "half" keeps the part in half precision.

    Raises:
        DataError: a sample cannot be read, or has values that half precision cannot hold.
    """
    mode: Literal["memory", "half"] = "half" if data.cache == "half" else "memory"
    kind = np.dtype(np.float16 if mode == "half" else np.float32)
    chunks = []
    for batch in Batches(dataset, CHUNK, seed=None).epoch(1):
        arrays = batch.observation.numpy(), batch.ground_truth.numpy()
        if mode == "half" and max(float(np.abs(array).max(initial=0)) for array in arrays) > HALF_MAX:
            raise DataError(
                f"a sample of {dataset.part} has values beyond {HALF_MAX:g}, which half precision "
                "cannot hold; use --data.cache memory"
            )
        observations, images = (ray.put(array.astype(kind)) for array in arrays)
        chunks.append((observations, images))
    return StoredData(mode, len(dataset), chunks)


def no_room(training: LoDoPaB, validation: LoDoPaB, data: DataConfig) -> str | None:
    """Why the object store of some node has no room for both parts; None where every one has."""
    width = 2 if data.cache == "half" else 4
    needed = sum(
        len(part) * int(np.prod(part.geometry.sinogram_shape) + np.prod(part.image_shape)) * width
        for part in (training, validation)
    )
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    there = min(node["Resources"].get("object_store_memory", 0) for node in nodes)
    if needed <= MOST * there:
        return None
    return (
        f"the data take {needed / 1e9:.2f} GB, and {MOST:.0%} of a node's object store are {MOST * there / 1e9:.2f} GB"
        "; each trial reads the files"
    )
