"""How far the GPU kernels are from the float64 reference, in Triton's interpreter or on a GPU.

`TRITON_INTERPRET=1 python -m tests.support.gpu_cases` prints the figures as JSON; with `structure` after it, those of
SSIM. The variable counts only when it is set before triton is imported, so the tests run this program instead. `python
-m tests.support.gpu_cases cuda [WORD]` prints those of a GPU, with those of models, a line a case (that has the word in
its name); it is small enough for `PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer`.
"""

from __future__ import annotations

import json
import math
import sys
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.metrics import UNIFORM
from fbp_ray.projector import reference
from fbp_ray.structure import Window, reference_half_size, reference_similarity
from tests.support.scans import COARSE


def scan(**changes: object) -> ParallelBeam:
    fields = {
        "angles": RegularAngles(count=5, first=0.1, step=math.pi / 5),
        "cells": 19,
        "cell_size": 1e-3,
        "image_shape": (12, 12),
        "pixel_size": 1e-3,
        **changes,
    }
    return ParallelBeam(**fields)  # type: ignore[arg-type]


GEOMETRIES = {
    # In no order, along the axes too, and beyond a turn; of an axis that is off the middle and an image not square.
    "any angles": scan(angles=(2.9, 0.03, 7.0, 0.0, math.pi / 2, -math.pi), axis_offset=2.3e-3, image_shape=(5, 9)),
    "coarse pixels": scan(pixel_size=3.1e-3, image_shape=(5, 6)),
    "fine pixels": scan(pixel_size=0.21e-3, image_shape=(5, 6), cells=4, angles=(0.1, 0.7, 2.0)),
    "pixels wider than the detector": scan(pixel_size=7e-3, image_shape=(3, 4), cells=8),
    "several blocks": scan(angles=(0.4, 2.2), cells=40, image_shape=(3, 34)),
    "many angles": scan(angles=RegularAngles(count=65, first=0.1, step=0.05), cells=9, image_shape=(3, 4)),
}
SYMMETRIC = RegularAngles(count=8, first=math.pi / 16, step=math.pi / 8)
MIRRORED = {
    "odd": scan(angles=SYMMETRIC, image_shape=(11, 11)),
    "even": scan(angles=RegularAngles(count=8, first=0.0, step=math.pi / 8), cells=10, image_shape=(6, 6)),
    "a full turn": scan(angles=RegularAngles(count=16, first=0.0, step=math.pi / 8), cells=7, image_shape=(4, 4)),
    "own reach": scan(angles=SYMMETRIC, image_shape=(9, 9), pixel_size=1.5e-3),
}
CASES = (
    {name: (geometry, 2, False) for name, geometry in GEOMETRIES.items()}
    | {f"{name} pixels, interpolated": (GEOMETRIES[f"{name} pixels"], 2, True) for name in ("coarse", "fine")}
    | {
        f"mirrored, {name}, batch {batch}": (MIRRORED[name], batch, name != "own reach")
        for name, batch in (("odd", 9), ("even", 1), ("a full turn", 1), ("own reach", 1))
    }
    | {
        "one of each": (scan(angles=(0.7,), cells=1, image_shape=(1, 1)), 1, False),
        "outside the detector": (scan(angles=(0.1, 0.9), cells=5, image_shape=(8, 8)), 3, True),
        "batch 33": (scan(angles=(0.3, 1.9)), 33, True),
    }
)


def differences(geometry: ParallelBeam, batch: int, interpolate: bool, device: str) -> dict[str, float]:
    """Relative differences from the reference, of the operators and of their inner products."""
    from fbp_ray.projector import gpu

    generator = torch.Generator().manual_seed(batch)
    y = torch.randn(batch, *geometry.sinogram_shape, generator=generator)
    x = torch.randn(batch, *geometry.image_shape, generator=generator)
    # In float16 the smaller sample must not drown in the larger, nor the larger leave its range.
    loud = y * torch.logspace(-3, 6, batch)[:, None, None]
    scan = geometry, interpolate
    image, sinogram = gpu.backproject(y.to(device), *scan).cpu(), gpu.project(x.to(device), *scan).cpu()
    exact_image, exact_sinogram = reference.backproject(y.double(), *scan), reference.project(x.double(), *scan)
    stored = gpu.backproject(loud.to(device), *scan, torch.float16).cpu()
    exact_stored = reference.backproject(loud.double(), *scan)
    halves = gpu.backproject(y.half().to(device), *scan).cpu(), gpu.project(x.half().to(device), *scan).cpu()
    assert stored.dtype == torch.float32
    assert {array.dtype for array in halves} == {torch.float16}
    scale = (exact_image.norm() * x.norm() + exact_sinogram.norm() * y.norm()).item()
    return {
        "backproject": relative(image, exact_image),
        "project": relative(sinogram, exact_sinogram),
        "transpose": abs(((image.double() * x).sum() - (sinogram.double() * y).sum()).item()) / scale,
        "stored in half precision": max(relative(s, e) for s, e in zip(stored, exact_stored, strict=True)),
        "half precision": max(relative(halves[0], exact_image), relative(halves[1], exact_sinogram)),
    }


def filtered_by_pairs(device: str = "cpu") -> float:
    """The largest relative difference from the float64 reference, of two projections filtered at a time."""
    from fbp_ray.filters import fft_length, filter_projections, pairs

    found = []
    for shape in ((1, 6, 19), (3, 4, 130)):
        generator = torch.Generator().manual_seed(shape[2])
        sinogram = torch.randn(shape, generator=generator)
        count = fft_length(shape[2]) // 2 + 1
        response = torch.rand(count, generator=generator)
        exact = filter_projections(sinogram.double(), response.double())
        sinogram[1:2] = torch.nan  # the other samples' business it is not
        filtered = pairs.filter_pairs(sinogram.to(device), response.to(device), fft_length(shape[2])).cpu()
        found += [relative(filtered[sample], exact[sample]) for sample in range(len(exact)) if sample != 1]
    return max(found)


LUMINOUS = Window((0.1, 0.2, 0.05, 0.3, 0.05, 0.1, 0.05, 0.05, 0.02, 0.03, 0.05))
CONTRASTS = LUMINOUS._replace(luminous=False)
IMAGES = {
    "one place": ((7, 7), UNIFORM, torch.float32),
    "even": ((20, 34), UNIFORM, torch.float32),
    "odd": ((41, 23), UNIFORM, torch.float32),
    "several programs": ((90, 46), UNIFORM, torch.float32),
    "a row": ((11, 60), LUMINOUS, torch.float32),
    "contrasts alone": ((31, 28), CONTRASTS, torch.float32),
    "double precision": ((24, 25), LUMINOUS, torch.float64),
}


def of_structure(shape: tuple[int, int], window: Window, dtype: torch.dtype, device: str) -> dict[str, float]:
    """Differences from float64 torch of similarities, relative ones of gradients; 0 or 1 where bits are compared."""
    from fbp_ray import structure, structure_gpu

    generator = torch.Generator().manual_seed(shape[0])
    target = torch.rand(3, *shape, dtype=dtype, generator=generator)
    prediction = target + 0.1 * torch.randn(3, *shape, dtype=dtype, generator=generator)
    target[2], prediction[2] = 0.7 + 1e-3 * target[2], 0.7 + 1e-3 * prediction[2]  # smooth, as most of an image is
    constants = tuple(torch.tensor(values, dtype=torch.float64) for values in ([1e-4, 2e-4, 1e-4], [9e-4, 2e-3, 9e-4]))
    upstream = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    exact_of = prediction.double().requires_grad_()
    exact = reference_similarity(exact_of, target.double(), *constants, window)
    (exact_gradient,) = torch.autograd.grad(exact, exact_of, upstream)
    weights = torch.tensor(window.weights, dtype=torch.float64, device=device)
    on_device = [array.to(device) for array in (target, *constants)]

    def ours(predicted: Tensor) -> tuple[Tensor, Tensor]:
        found, slopes = structure._on_gpu(predicted.to(device), *on_device, window, True)
        back = structure_gpu.gradient(upstream.to(device), slopes, predicted.to(device), on_device[0], weights)
        return found.cpu(), back.cpu()

    found, back = ours(prediction)
    broken = prediction.clone()
    broken[1] = torch.nan
    beside, beside_back = ours(broken)
    alone = structure._on_gpu(prediction.to(device), *on_device, window, False)[0].cpu()
    same = torch.equal(alone, found) and all(torch.equal(beside[i], found[i]) for i in (0, 2))
    same = same and all(torch.equal(beside_back[i], back[i]) for i in (0, 2)) and bool(beside[1].isnan())
    halves, upstream_halves = reference_half_size(exact_of), torch.rand(reference_half_size(exact_of).shape).double()
    (exact_whole,) = torch.autograd.grad(halves, exact_of, upstream_halves)
    whole = structure_gpu.halved_back(upstream_halves.to(device, dtype), on_device[0])
    return {
        "similarity": (found - exact).abs().max().item(),
        "gradient": max(relative(b, e) for b, e in zip(back, exact_gradient, strict=True)),
        "halves": relative(structure_gpu.halved(prediction.to(device)).cpu(), halves.detach()),
        "gradient of halves": relative(whole.cpu(), exact_whole),
        "others count": float(not same),
    }


def added_in_parts(device: str = "cpu") -> float:
    """The relative difference from the reference where the tensor cores add up 16 of 40 angles at a time."""
    from fbp_ray.projector import gpu

    geometry = scan(angles=RegularAngles(count=40, first=0.1, step=0.07), image_shape=(3, 4))
    sinograms = torch.randn(64, *geometry.sinogram_shape, generator=torch.Generator().manual_seed(0))
    with mock.patch.object(gpu, "_SHARE", 16):
        images = gpu.backproject(sinograms.to(device), geometry, True).cpu()
    return relative(images, reference.backproject(sinograms.double(), geometry, True))


def samples_apart(device: str = "cpu") -> dict[str, bool]:
    """Whether samples are as without a blank one and one that is no number beside them, which stay what they are."""
    from fbp_ray.projector import gpu

    geometry = MIRRORED["odd"]
    sinograms = torch.rand(9, *geometry.sinogram_shape, generator=torch.Generator().manual_seed(0))
    beside = sinograms.clone()
    beside[1], beside[2] = torch.nan, 0
    found = {}
    for name, storage in (("whole", None), ("half", torch.float16)):
        alone, images = (gpu.backproject(y.to(device), geometry, True, storage).cpu() for y in (sinograms, beside))
        kept = bool(images[1].isnan().all()) and not images[2].any()
        found[name] = kept and torch.equal(images[3:], alone[3:]) and torch.equal(images[0], alone[0])
    return found


def model_differences(geometry: ParallelBeam, window: str, device: str) -> dict[str, float]:
    """Relative differences from the CPU, of a model's images and of the gradient of all its parameters."""
    from fbp_ray.filters import WindowConfig
    from fbp_ray.model import LearnableFBP, ModelConfig
    from fbp_ray.projector import project
    from fbp_ray.stage_settings import PostprocessingConfig

    config = ModelConfig(
        geometry=geometry,
        window=WindowConfig(kind=window, photons=4096.0, unit=81.0),
        postprocessing=PostprocessingConfig(kind="tiny"),
    )
    torch.manual_seed(0)
    model = LearnableFBP(config)
    truth = torch.rand(2, *geometry.image_shape)
    sinogram = project(truth, geometry)
    found = []
    for where in ("cpu", device):
        model = model.to(where)
        model.zero_grad(set_to_none=True)
        image = model(sinogram.to(where))
        (image - truth.to(where)).square().mean().backward()
        gradient = torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None])
        found.append((image.detach().cpu(), gradient))
    (image, gradient), (ours, our_gradient) = found
    return {"image": relative(ours, image), "gradient": relative(our_gradient, gradient)}


def print_each(device: str, word: str = "") -> None:
    """Prints the figures of each case, and those of products of several groups and of models."""
    cases: dict[str, Any] = {name: partial(differences, *case, device) for name, case in CASES.items()}
    for batch in (8, 33):
        cases[f"products, batch {batch}"] = partial(differences, COARSE, batch, False, device)
    cases["filter"] = lambda: {"pairs": filtered_by_pairs(device)}
    cases["parts"] = lambda: {"backproject": added_in_parts(device)}
    cases["apart"] = partial(samples_apart, device)
    cases |= {f"SSIM, {name}": partial(of_structure, *case, device) for name, case in IMAGES.items()}
    for window in ("angle_frequency", "ray_noise", "adaptive"):
        cases[f"model, {window}"] = partial(model_differences, COARSE, window, device)
    for name, case in cases.items():
        if word in name:
            print(json.dumps({name: case()}), flush=True)


def relative(array: Tensor, exact: Tensor) -> float:
    return ((array.double() - exact.double()).norm() / exact.double().norm()).item()


def compiles_for(arch: int, ones: bool) -> dict[str, int]:
    """The size in bytes of each kernel's machine code for an NVIDIA GPU of this compute capability; needs none.

    Triton makes a constant of every number that is 1, which the interpreter does not: `ones` stands for that. Products
    are for GPUs with tensor cores that Triton knows, from 80 on.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fbp_ray import structure_gpu
    from fbp_ray.filters import pairs
    from fbp_ray.projector import gpu_kernels, gpu_layout

    options = {"num_warps": 4, "enable_fp_fusion": True}
    tile = {"LANES": 32, "TILE_X": 8, "TILE_Y": 8, "ANGLES": 4}
    views = {"VIEWS": 8, "IMAGES": 4, "LANES": 32, "CELLS": 32, "PIXELS": 32, "PAD": 16}
    places = {"SIZE": 11, "BLOCK": 512}
    variants: list[tuple[Any, dict[str, Any]]] = [
        (gpu_kernels.backproject_kernel, tile | {"INTERPOLATE": True}),
        (gpu_kernels.backproject_kernel, tile | {"INTERPOLATE": False}),
        (gpu_kernels.multiply_kernel, tile | {"SPAN": 16, "SPLIT": False}),
        (gpu_kernels.multiply_kernel, tile | {"SPAN": 16, "SPLIT": True}),
        (gpu_kernels.project_kernel, {"LANES": 32, "CELLS": 16, "PIXELS": 3, "TAPS": 3}),
        (gpu_layout.fold_sinogram_kernel, views | {"HALF": True, "SPLIT": True}),
        (gpu_layout.fold_sinogram_kernel, views | {"HALF": False, "SPLIT": False}),
        (gpu_layout.unfold_image_kernel, views | {"PARTS": 2, "SCALED": True}),
        (gpu_layout.fold_image_kernel, views),
        (gpu_layout.unfold_sinogram_kernel, views),
        (pairs.pair_kernel, {"CELLS": 256}),
        (pairs.part_kernel, {"CELLS": 256}),
        (structure_gpu.down_kernel, places),
        (structure_gpu.across_kernel, places | {"LUMINOUS": True, "WANTED": True}),
        (structure_gpu.across_kernel, places | {"LUMINOUS": False, "WANTED": False}),
        (structure_gpu.total_kernel, {"BLOCK": 256}),
        (structure_gpu.up_kernel, places),
        (structure_gpu.back_kernel, places),
        (structure_gpu.halve_kernel, {"BLOCK": 512, "ODD": 1}),
        (structure_gpu.unhalve_kernel, {"BLOCK": 512, "ODD": 0}),
    ]
    tables = ("angle_of", "turned", "maps", "angles", "line_of", "view_of")
    arrays = ("image", "sums", "dx", "dy", "reach", "lines", "sinogram", "along", "across", "largest", "signals")
    images = ("prediction", "target", "gradient", "whole", "halves")
    doubles = ("columns", "c1", "c2", "slopes", "partial", "found", "spread", "upstream", "weights")
    kinds = {"axis": "fp32", "scale": "fp32", "highest": "fp32"}
    kinds |= dict.fromkeys(tables, "*i32") | dict.fromkeys(arrays + images, "*fp32")
    kinds |= dict.fromkeys(doubles, "*fp64")
    sizes = {}
    for number, (kernel, constants) in enumerate(variants):
        halved = constants.get("HALF", "SPLIT" in constants)
        known = kinds | {"rows": "*fp16" if halved else "*fp32"}
        if arch < 80 and kernel.__name__.startswith("multiply"):
            continue
        whole = [name for name in kernel.arg_names if name not in known and name not in constants]
        chosen = {name: constants[name] for name in kernel.arg_names if name in constants}
        chosen |= dict.fromkeys(whole, 1) if ones else {}
        signature = {name: "constexpr" if name in chosen else known.get(name, "i32") for name in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=signature, constexprs=chosen)
        compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
        sizes[f"{number} {kernel.__name__}"] = len(compiled.asm["cubin"])
    return sizes


if __name__ == "__main__":
    if sys.argv[1:2] == ["cuda"]:
        print_each(*sys.argv[1:])
    elif sys.argv[1:] == ["structure"]:
        print(json.dumps({name: of_structure(*case, "cpu") for name, case in IMAGES.items()}))
    elif sys.argv[1:]:
        print(json.dumps({arch: compiles_for(int(arch), ones=arch == "80") for arch in sys.argv[1:]}))
    else:
        found = {name: differences(*case, "cpu") for name, case in CASES.items()}
        print(
            json.dumps(
                found
                | {
                    "filter": {"pairs": filtered_by_pairs()},
                    "parts": {"backproject": added_in_parts()},
                    "apart": samples_apart(),
                }
            )
        )
