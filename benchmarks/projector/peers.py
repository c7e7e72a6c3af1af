"""Other projects' code behind one form, and the operator of the experiment that this project carries on.

An adapter makes a function once and for all, outside of what is timed: from a sinogram (B, A, D) to images (B, H, W),
or the other way, in this project's orientation. What differs from this project is said at each adapter.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from benchmarks.projector.cases import Case, Operation
from fbp_ray.geometry import ParallelBeam

ASTRA = "ASTRA"
SKIMAGE = "scikit-image"
TORCHTOMO = "torchtomo"
DIFFCT = "diffct"
REFERENCE = "reference experiment"

MODULES = {ASTRA: "astra", SKIMAGE: "skimage", TORCHTOMO: "torchtomo", DIFFCT: "diffct"}
DISTRIBUTIONS = {ASTRA: "astra-toolbox", SKIMAGE: "scikit-image", TORCHTOMO: "torchtomo", DIFFCT: "diffct"}
REFERENCE_ANGLES = 25  # of 1000: the time is scaled, the whole grid would take 2.1 GB
REFERENCE_BATCH, REFERENCE_SIDE = 4, 512  # as it trains

Function = Callable[[Tensor], Tensor]


def missing(name: str) -> str | None:
    """Why a peer cannot be measured, and what to do about it; None when it can be."""
    try:
        importlib.import_module(MODULES[name])
    except ImportError as error:
        way = "pip install diffct[cu13], or [cu12]," if name == DIFFCT else "pip install -e '.[bench]'"
        return f"{name} is left out: {error}; {way} brings it"
    return None


def peer_cases(geometry: ParallelBeam, device: str, skipped: list[str]) -> Iterator[Case]:
    """The cases of the peers that are installed; why others are not goes to `skipped`."""
    names = (ASTRA, SKIMAGE, TORCHTOMO) if device == "cpu" else (TORCHTOMO, DIFFCT)
    for name in names:
        reason = missing(name)
        if reason is None and device == "cuda":
            reason = _broken(name, geometry)
        if reason:
            skipped.append(reason)
        else:
            yield from _CASES[name](geometry, device)
    if device == "cpu":
        yield from _reference_cases(geometry)


def _broken(name: str, geometry: ParallelBeam) -> str | None:
    """Why a peer that is installed cannot run here; None when it can."""
    try:
        next(_CASES[name](geometry, "cuda")).run()
    except Exception as error:  # whatever somebody else's code raises where it was not made for
        return f"{name} is left out: {type(error).__name__}: {error}"
    return None


class Astra(NamedTuple):
    """One of ASTRA's algorithms: the whole call, and the part of it that is timed."""

    call: Function
    run: Callable[[], None]


def astra(geometry: ParallelBeam) -> dict[Operation, Astra]:
    """ASTRA's FBP, backprojection and projection on the CPU, with its linear (Joseph) projector.

    One image a call; only the algorithm is timed, not the copies to and from ASTRA. It follows rays rather than
    pixels: images differ from this project's in their finest detail.
    """
    import astra as toolbox

    height, width = geometry.image_shape
    volume = toolbox.create_vol_geom(width, height)  # its rows run against y, its columns along x, in pixels
    scan = toolbox.create_proj_geom(
        "parallel", geometry.cell_size / geometry.pixel_size, geometry.cells, geometry.theta
    )
    projector = toolbox.create_projector("linear", scan, volume)
    images, sinograms = toolbox.data2d.create("-vol", volume), toolbox.data2d.create("-sino", scan)

    def algorithm(kind: str) -> Callable[[], None]:
        config = toolbox.astra_dict(kind)
        config["ProjectorId"] = projector
        config["ProjectionDataId"] = sinograms
        config["VolumeDataId" if kind == "FP" else "ReconstructionDataId"] = images
        number = toolbox.algorithm.create(config)
        return lambda: toolbox.algorithm.run(number)

    def backward(kind: str, scale: float) -> Astra:
        run = algorithm(kind)

        def call(sinogram: Tensor) -> Tensor:
            toolbox.data2d.store(sinograms, sinogram[0].numpy())
            run()
            return torch.from_numpy(toolbox.data2d.get(images)).flip(-2).mT[None] * scale

        return Astra(call, run)

    run_forward = algorithm("FP")

    def forward(image: Tensor) -> Tensor:
        toolbox.data2d.store(images, image[0].mT.flip(-2).numpy())
        run_forward()
        return torch.from_numpy(toolbox.data2d.get(sinograms))[None] * geometry.pixel_size

    return {
        "FBP": backward("FBP", 1 / geometry.pixel_size),
        "backproject": backward("BP", geometry.pixel_size),
        "project": Astra(forward, run_forward),
    }


def skimage(geometry: ParallelBeam) -> Function:
    """scikit-image's `iradon` with its ramp, one image a call; it takes pixels to be as large as cells."""
    from skimage.transform import iradon

    degrees = np.degrees(geometry.theta)

    def fbp(sinogram: Tensor) -> Tensor:
        image = iradon(  # type: ignore[no-untyped-call]
            sinogram[0].numpy().T, degrees, output_size=geometry.image_shape[0], circle=False
        )
        return torch.from_numpy(np.flip(image.T, axis=1) / geometry.cell_size)[None]

    return fbp


def torchtomo(geometry: ParallelBeam, device: str = "cpu") -> Function:
    """torchtomo's FBP with its ramp; its own CUDA kernels on a GPU.

    It takes the detector to be as wide as the image, centre to centre, and leaves out what lies beyond the circle in
    it. Where the geometry is another, as that of LoDoPaB-CT, the work is the same and the image is not.
    """
    from torchtomo import ParallelBeam as Projector

    beam = Projector(
        img_size=geometry.image_shape[0],
        n_angles=geometry.num_angles,
        n_det=geometry.cells,
        angles=torch.from_numpy(geometry.theta),
        backend="torch" if device == "cpu" else "cuda",
    ).to(device)
    scale = 2 / geometry.image_shape[0] / geometry.cell_size

    def fbp(sinogram: Tensor) -> Tensor:
        image: Tensor = beam.fbp(sinogram[:, None])
        return image[:, 0].flip(-2).mT * scale

    return fbp


def diffct(geometry: ParallelBeam, device: str = "cuda") -> Function:
    """diffct's FBP with its ramp, one image after the other, as its 2D FBP takes no batch."""
    import diffct as library

    theta = torch.tensor(geometry.theta, dtype=torch.float32, device=device)
    trajectory = library.circular_trajectory_2d_parallel(theta, device=device)

    def fbp(sinogram: Tensor) -> Tensor:
        images = [
            library.fbp(
                one,
                trajectory,
                geometry.image_shape,
                theta,
                detector_spacing=geometry.cell_size,
                voxel_spacing=geometry.pixel_size,
            )
            for one in sinogram
        ]
        return torch.stack(images).flip(-1)

    return fbp


def reference_operator(geometry: ParallelBeam, angles: int, side: int = REFERENCE_SIDE) -> Function:
    """The backprojection of the reference experiment, over the first `angles` angles of a sinogram of all of them.

    In that experiment's steps: for each angle a row of the sinogram is cut out and sampled with `grid_sample` on a grid
    of side x side positions, computed beforehand and repeated for each sinogram of the batch; all angles' images are
    kept, stacked and summed; the middle is the image. Sums, without this project's scale. With all of 1000 angles and a
    batch of 4 it holds 19 GB.
    """
    centre = (np.arange(side) - (side - 1) / 2) * geometry.pixel_size
    half_width = (geometry.cells - 1) / 2 * geometry.cell_size
    grids = []
    for theta in geometry.theta[:angles]:
        s = centre[:, None] * math.cos(theta) + centre[None, :] * math.sin(theta)
        across = torch.tensor(s / half_width, dtype=torch.float32)
        grids.append(torch.stack([across, torch.zeros_like(across)], dim=-1))
    top, left = ((side - length) // 2 for length in geometry.image_shape)
    kept = slice(top, top + geometry.image_shape[0]), slice(left, left + geometry.image_shape[1])

    def backproject(sinogram: Tensor) -> Tensor:
        smeared = [
            grid_sample(sinogram[:, None, angle, None], grid.repeat(len(sinogram), 1, 1, 1), align_corners=True)
            for angle, grid in enumerate(grids)
        ]
        return torch.stack(smeared).sum(dim=0)[:, 0, *kept]

    return backproject


def _astra_cases(geometry: ParallelBeam, device: str) -> Iterator[Case]:
    algorithms = astra(geometry)
    algorithms["FBP"].call(torch.rand(1, *geometry.sinogram_shape))  # so that there is something to reconstruct
    for operation, algorithm in algorithms.items():
        yield Case(ASTRA, operation, 1, algorithm.run)


def _skimage_cases(geometry: ParallelBeam, device: str) -> Iterator[Case]:
    fbp, sinogram = skimage(geometry), torch.rand(1, *geometry.sinogram_shape)
    yield Case(SKIMAGE, "FBP", 1, partial(fbp, sinogram))


def _torchtomo_cases(geometry: ParallelBeam, device: str) -> Iterator[Case]:
    fbp = torchtomo(geometry, device)
    for batch in (4,) if device == "cpu" else (1, 4, 32, 128):
        sinogram = torch.rand(batch, *geometry.sinogram_shape, device=device)
        yield Case(TORCHTOMO, "FBP", batch, partial(fbp, sinogram), device=device)


def _diffct_cases(geometry: ParallelBeam, device: str) -> Iterator[Case]:
    fbp, sinogram = diffct(geometry, device), torch.rand(4, *geometry.sinogram_shape, device=device)
    yield Case(DIFFCT, "FBP", 4, partial(fbp, sinogram), device=device)


def _reference_cases(geometry: ParallelBeam) -> Iterator[Case]:
    operator = reference_operator(geometry, REFERENCE_ANGLES)
    part = REFERENCE_ANGLES / geometry.num_angles
    sinogram = torch.rand(REFERENCE_BATCH, *geometry.sinogram_shape)
    filtered = sinogram.clone().requires_grad_()

    def forward_and_backward() -> None:
        filtered.grad = None
        operator(filtered).sum().backward()  # type: ignore[no-untyped-call]

    yield Case(REFERENCE, "backproject", REFERENCE_BATCH, partial(operator, sinogram), part)
    yield Case(REFERENCE, "training step", REFERENCE_BATCH, forward_and_backward, part)


_CASES: dict[str, Callable[[ParallelBeam, str], Iterator[Case]]] = {
    ASTRA: _astra_cases,
    SKIMAGE: _skimage_cases,
    TORCHTOMO: _torchtomo_cases,
    DIFFCT: _diffct_cases,
}
