"""`python -m fbp_ray.export --checkpoint RUN --out DIR`: a trained window for other packages, the model for torch.

A window that is the same for every sinogram goes to ASTRA, CIL, TIGRE and tomopy as an array; ASTRA and tomopy also
take one that differs from angle to angle. Any model goes into a file of `torch.export`. The text file USE.md beside
them has the lines that use them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fbp_ray.cli import parse, run_program
from fbp_ray.errors import CheckpointError, RunError
from fbp_ray.settings import Frozen, PlaceName

if TYPE_CHECKING:
    from fbp_ray.model import LearnableFBP

BY_ANGLE = ("astra", "tomopy")
"""The packages that take a filter for each angle."""

SAME = 1e-4
"""Filters of angles that differ by no more, relative to the largest value, are one."""

INTRODUCTION = """# {kind} window of {checkpoint}

`filter.npy` holds {shape} numbers: the ramp times the window in the Fourier domain, at the frequencies
k / N cycles a cell, k = 0 to N / 2 = {half}. The bare ramp is 1 at the Nyquist frequency, as in the packages below. It
is the transform of the window's kernel, which reaches over 2 x {cells} - 1 cells, zero-padded to N = {length}: no other
padding gives these images.

It was made for {angles} angles and cells of {cell_size:g} m. Sinograms are line integrals, [angle, cell], angle and
cell ascending. With lengths in metres images are in 1/m, or in the unit of the images that the model was trained on:
for LoDoPaB-CT a value of 1 stands for 81.35858 / m, in the sinogram (times m) as in the image. A package that counts
lengths in pixels or cells gives the image per pixel or per cell, so divide by that length.
The ramp and the scale are exact; what is left of a difference is how a package interpolates when it backprojects.
"""

USE = {
    "astra": """
## ASTRA

    import astra, numpy as np
    filters = np.atleast_2d(np.load("filter.npy")).astype(np.float32)
    volume = astra.create_vol_geom({width}, {height})
    scan = astra.create_proj_geom("parallel", {cells_in_pixels!r}, {cells}, angles)  # lengths in pixels
    config = astra.astra_dict("FBP")
    config["ProjectorId"] = astra.create_projector("strip", scan, volume)
    config["ProjectionDataId"] = astra.data2d.create("-sino", scan, sinogram)
    config["ReconstructionDataId"] = astra.data2d.create("-vol", volume)
    config["FilterType"] = "{astra_type}"
    shape = astra.create_proj_geom("parallel", 1.0, filters.shape[1], np.zeros(len(filters)))
    config["FilterSinogramId"] = astra.data2d.create("-sino", shape, filters)
    astra.algorithm.run(astra.algorithm.create(config))
    image = astra.data2d.get(config["ReconstructionDataId"])[::-1].T / {pixel_size!r}  # [x, y], both ascending
""",
    "cil": """
## CIL

    import numpy as np
    from cil.recon import FBP
    half = np.load("filter.npy")
    fbp = FBP(data)  # an AcquisitionData of a parallel beam whose panel has pixel_size={cell_size!r}
    fbp.set_fft_order({order})
    fbp.set_filter(np.concatenate([half, half[-2:0:-1]]).astype(np.float32))
    image = fbp.run()
""",
    "tigre": """
## TIGRE

TIGRE takes filters by name only, so its function that looks one up is replaced:

    import importlib, numpy as np, tigre.algorithms
    half = np.load("filter.npy")
    full = np.concatenate([half, half[-2:0:-1]]).astype(np.float32)
    importlib.import_module("tigre.utilities.filtering").filter = lambda *args, **kwargs: full
    image = tigre.algorithms.fbp(projections, geo, angles)  # geo.mode = "parallel", geo.nDetector = [1, {cells}]
""",
    "tomopy": """
## tomopy

tomopy does not pad, so the projections are padded to N cells first; the image is cut out of the middle:

    import numpy as np, tomopy
    filters = np.load("filter.npy")[..., :-1]
    padded = np.pad(sinogram, [(0, 0), ({before}, {after})])[:, None]  # [angle, slice, cell]
    wide = tomopy.recon(padded, angles, center={centre!r}, algorithm="gridrec", filter_name="{tomopy_type}",
                        filter_par=filters.ravel())[0]
    image = wide / {cell_size!r}  # N x N pixels as large as cells
""",
    "torch": """
## torch

    import torch, fbp_ray, fbp_ray.projector.compiled  # brings the operators
    model = torch.export.load("model.pt2").module()
    images = model(sinograms)  # float32, ({batch}, {angles}, {cells}) -> ({batch}, {height}, {width})
""",
}


class ExportConfig(Frozen):
    """Writes a trained window for ASTRA, CIL, TIGRE and tomopy, and the whole model for torch."""

    checkpoint: PlaceName = Field(description="run folder (its best checkpoint) or checkpoint folder, or its URI")
    out: PlaceName = Field(description="new folder for filter.npy, model.pt2 and USE.md")
    to: Literal["all", "astra", "cil", "tigre", "tomopy", "torch"] = Field(
        default="all", description="where the model is to go; all: wherever it can"
    )


def main(argv: Sequence[str]) -> None:
    """Exports the model that the options name."""
    config = parse(ExportConfig, argv, "python -m fbp_ray.export")
    from fbp_ray.checkpoint import load_model
    from fbp_ray.storage import is_begun, open_folder

    model = load_model(config.checkpoint)
    out = open_folder(config.out)
    if is_begun(out):
        raise RunError(f"{out} is not empty; choose another --out, nothing was changed")
    reasons = {name: why_not(model, name) for name in USE}
    if config.to != "all" and reasons[config.to]:
        raise CheckpointError(f"{config.to} cannot take {config.checkpoint}: {reasons[config.to]}")
    taken = [name for name in USE if not reasons[name] and config.to in ("all", name)]
    text, words = "", _words(model, config.checkpoint, 0)
    if taken != ["torch"]:
        values = filter_values(model)
        words = _words(model, config.checkpoint, values.ndim)
        content = io.BytesIO()
        np.save(content, values)
        out.write("filter.npy", content.getvalue())
        text = INTRODUCTION.format(shape=" x ".join(map(str, values.shape)), **words)
    if "torch" in taken:
        out.write("model.pt2", _exported(model))
    out.write("USE.md", text + "".join(USE[name].format(**words) for name in taken))
    print(f"Wrote {', '.join(f'{out}/{name}' for name in sorted(out.names()))}")
    for name, reason in reasons.items():
        if config.to == "all" and reason:
            print(f"not for {name}: {reason}")


def why_not(model: LearnableFBP, target: str) -> str:
    """Why a package cannot take the model, and what can be done instead; empty where it can."""
    from torch import nn

    from fbp_ray.geometry import FanBeam

    instead = "; use --to torch, or reconstruct with fbp_ray.load_model"
    if target == "torch":
        return ""
    if isinstance(model.geometry, FanBeam):
        return f"a fan beam is rebinned before it is filtered, which these lines do not do{instead}"
    if not _is_plain(model):
        return f"a window of the kind {model.config.window.kind} is another for every sinogram{instead}"
    if not isinstance(model.postprocessing, nn.Identity):
        return f"it has a post-processing, which is no filter{instead}"
    if getattr(model.filter, "cell_weights", None) is not None:
        return f"the scan is a half acquisition, whose cells have weights{instead}"
    if model.geometry.axis_offset:
        return f"the rotation axis lies off the detector's middle, which these lines do not say{instead}"
    if _response(model).ndim == 2 and target not in BY_ANGLE:
        return f"the filter differs from angle to angle, and it takes one for all{instead}, --to astra or --to tomopy"
    return ""


def filter_values(model: LearnableFBP) -> NDArray[Any]:
    """The ramp times the window at N / 2 + 1 frequencies, (N / 2 + 1,) or (A, N / 2 + 1), the bare ramp 1 at Nyquist.

    N is the power of two that ASTRA, CIL and TIGRE pad to. Filtering convolves with a kernel that is the same for every
    length of the FFT that holds it, so the values are exact, not interpolated.
    """
    geometry = model.geometry.parallel
    kernel = np.fft.irfft(_response(model))
    length, cells = _length(geometry.cells), geometry.cells
    padded = np.zeros((*kernel.shape[:-1], length))
    padded[..., :cells] = kernel[..., :cells]
    if cells > 1:
        padded[..., 1 - cells :] = kernel[..., 1 - cells :]
    # The packages weigh each angle with pi / A, and halve their ramp.
    scale = 2 * geometry.num_angles * geometry.pixel_size**2 / math.pi
    values: NDArray[Any] = np.fft.rfft(padded).real * scale
    return values


def _is_plain(model: LearnableFBP) -> bool:
    """Whether the filter is one product with a response, whatever the sinogram."""
    from fbp_ray.filters import is_plain

    return is_plain(model.filter)


def _response(model: LearnableFBP) -> NDArray[Any]:
    stage: Any = model.filter
    response: NDArray[Any] = (stage.response.double() * stage.window().double()).numpy()
    mean = response.mean(0)
    alike = response.ndim == 2 and bool((np.abs(response - mean) <= SAME * np.abs(mean).max()).all())
    return mean if alike else response  # angles that were typed in are even but for the last digits


def _length(cells: int) -> int:
    """The least power of two that is twice the cells; 64 at least, as for TIGRE."""
    return max(64, 1 << (2 * cells - 1).bit_length())


def _exported(model: LearnableFBP) -> bytes:
    """The model as a program of torch."""
    import torch

    batch = None if _batch(model) == 1 else ({0: torch.export.Dim("batch")},)
    with torch.no_grad():
        example = torch.zeros(1 if batch is None else 2, *model.geometry.sinogram_shape)
        program = torch.export.export(model, (example,), dynamic_shapes=batch)
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()


def _batch(model: LearnableFBP) -> Literal["B", 1]:
    """How many sinograms the program takes at a time: any number, or one with code that may loop over them."""
    return 1 if model.config.own_code or model.config.window.kind == "zeng" else "B"


def _words(model: LearnableFBP, checkpoint: str, dimensions: int) -> dict[str, Any]:
    geometry, length = model.geometry, _length(model.geometry.cells)
    before = (length - geometry.cells) // 2
    return {
        "kind": model.config.window.kind,
        "checkpoint": checkpoint,
        "half": length // 2,
        "length": length,
        "order": length.bit_length() - 1,
        "batch": _batch(model),
        "angles": geometry.num_angles,
        "cells": geometry.cells,
        "cell_size": geometry.cell_size,
        "pixel_size": geometry.pixel_size,
        "cells_in_pixels": geometry.cell_size / geometry.pixel_size,
        "height": geometry.image_shape[0],
        "width": geometry.image_shape[1],
        "astra_type": "sinogram" if dimensions == 2 else "projection",
        "tomopy_type": "custom2d" if dimensions == 2 else "custom",
        "before": before,
        "after": length - geometry.cells - before,
        "centre": before + (geometry.cells - 1) / 2,
    }


if __name__ == "__main__":
    run_program(main)
