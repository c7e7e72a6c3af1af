"""Reconstructs slabs of a volume: while one is computed, the next is read and the one before is written."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fbp_ray.checkpoint import load_model, read_manifest
from fbp_ray.data.hdf5_reader import Array
from fbp_ray.errors import CheckpointError, RunError
from fbp_ray.memory import available_bytes
from fbp_ray.model import LearnableFBP, fbp
from fbp_ray.reconstruct.partial import PLAN, Partial
from fbp_ray.reconstruct.plan import Classic, Plan, Trained
from fbp_ray.reconstruct.rows import Rows
from fbp_ray.reconstruct.volume import open_for_writing, size


class Slabs:
    """Reconstructs slabs, and writes them into the volume; the model is loaded once.

    Args:
        plan: the volume.
        out: where it is to be; its partial folder is there.
        device: where the slabs are computed.

    Raises:
        FbpRayError: the data or the model cannot be used here, or the memory is not enough.
    """

    def __init__(self, plan: Plan, out: Path, device: torch.device) -> None:
        self.plan = plan
        self.partial = Partial(out)
        self.device = device
        _check_memory(plan)
        if not (self.partial.folder / PLAN).exists():
            raise RunError(
                f"{self.partial.folder} is not to be seen here; choose a folder for --out that all machines share"
            )
        self.rows = Rows(Path(plan.data), plan.geometry, plan.runs, plan.every, plan.first_angles)
        self.reconstruct = open_method(plan, device)
        self.write = open_for_writing(self.partial.volume)
        self._computing = threading.Lock()  # threads may do a slab each, to read one while another is computed
        self._free: list[Array] = []  # memory that slabs were read into: the system takes long to give out new

    def do(self, slabs: Iterable[int]) -> Iterator[int]:
        """Does slabs in turn; gives each one's number when it is on the disk."""
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            ahead: Future[Array] | None = None
            written: Future[int] | None = None
            before: int | None = None
            for slab in (*slabs, None):
                sinograms = ahead.result() if ahead else None
                ahead = None if slab is None else reader.submit(self._read, slab)
                if before is not None and sinograms is not None:
                    images = self._images(sinograms[: self._rows_in(before)])
                    self._free.append(sinograms)
                    if written:
                        yield written.result()
                    written = writer.submit(self._put, before, images)
                before = slab
            if written:
                yield written.result()

    def _read(self, slab: int) -> Array:
        """The sinograms of a slab, in front of an array that has room for the largest."""
        try:
            sinograms = self._free.pop()
        except IndexError:
            sinograms = np.empty((self.plan.slab, *self.rows.shape), np.float32)
        self.rows.read(self.plan.rows_of(slab)[0], sinograms[: self._rows_in(slab)])
        return sinograms

    def _rows_in(self, slab: int) -> int:
        first, end = self.plan.rows_of(slab)
        return end - first

    def _images(self, sinograms: Array) -> Array:
        with self._computing, torch.inference_mode():
            images: Array = self.reconstruct(torch.from_numpy(sinograms).to(self.device)).cpu().numpy()
            return images

    def _put(self, slab: int, images: Array) -> int:
        images *= np.float32(self.plan.unit)
        self.write(self.plan.rows_of(slab)[0], images)
        self.partial.mark(slab)
        return slab


def open_method(plan: Plan, device: torch.device) -> Callable[[Tensor], Tensor]:
    """What reconstructs sinograms (B, A, D) to images (B, H, W).

    Raises:
        CheckpointError: the checkpoint cannot be used, or is another one by now.
    """
    method, geometry = plan.method, plan.scan
    if isinstance(method, Classic):
        return lambda sinograms: fbp(sinograms, geometry, method.window, method.cutoff)
    return _Model(_load(method, device))


def _load(method: Trained, device: torch.device) -> LearnableFBP:
    if read_manifest(method.checkpoint).sha256["weights"] != method.weights:
        raise CheckpointError(
            f"{method.checkpoint} is another one than when this volume was begun; remove the volume's .partial to "
            "begin again"
        )
    model = load_model(method.checkpoint, device)
    if method.photons is None:
        return model
    window = model.config.window.model_copy(update={"photons": method.photons})
    anew = LearnableFBP(model.config.model_copy(update={"window": window}))
    anew.load_state_dict(model.state_dict())
    return anew.eval().requires_grad_(False).to(device)


class _Model:
    """A model whose network takes the images one by one: it needs many times the memory of an FBP."""

    def __init__(self, model: LearnableFBP) -> None:
        self.network = model.postprocessing
        self.model = model
        if model.config.postprocessing.kind != "identity":
            model.postprocessing = nn.Identity()

    def __call__(self, sinograms: Tensor) -> Tensor:
        images: Tensor = self.model(sinograms)
        if self.model.postprocessing is not self.network:
            for number in range(len(images)):
                images[number] = self.network(images[number : number + 1])[0]
        return images


def _check_memory(plan: Plan) -> None:
    """Raises RunError where the memory that is free is not enough for a slab."""
    a_row = 12 * (math.prod(plan.scan.sinogram_shape) + math.prod(plan.geometry.image_shape))
    needed, free = plan.slab * a_row, available_bytes()
    if needed > free:
        raise RunError(
            f"{plan.slab} rows at a time take about {size(needed)} of memory, and {size(free)} are free; "
            f"take fewer: --slab {max(1, int(free / a_row / 2))}"
        )
