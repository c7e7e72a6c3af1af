"""A geometry that comes with a stack: bounded, checked, and forgotten when its images are made.

What is made of a scan before its first image (a fan beam's tables, the filter) is made in a thread that reads files,
not in the one that computes for all, is on the request's bill, and lives as long as the request's engine: the caches
of the process keep what models need.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from fbp_ray.angles import arcs, repeats
from fbp_ray.caches import apart_from_caches
from fbp_ray.errors import FbpRayError
from fbp_ray.filters.ramp import fft_length
from fbp_ray.geometry import FanBeam, Geometry, geometry_from
from fbp_ray.stage_settings import WindowName
from service.batching import Engine, classic_alone
from service.body_limits import depth
from service.memory import Bill
from service.problems import Problem, sentences
from service.settings import LimitsConfig

LOOK_BYTES, MAKING_BYTES, FILTER_BYTES = 20, 200, 20
"""A fan beam's tables take the first for each ray and each side it is seen from, and the second while they are made
(measured: 20 and 190); a filter takes the third for each angle and frequency while it is made, and then 4."""
PARSED = 64  # bytes that a character of JSON becomes at most
MOST_ARCS = 64
"""Of a fan beam's scan; each takes some work of its own, however few angles it has."""
MOST_LOOKS = 1 << 25
"""Rays of a fan beam's parallel beam, each counted for every side and arc that it may be seen from: some 7 s."""
RATIOS = 1e-3, 1e3  # of a pixel to a cell; beyond, no scanner is, and the fast kernels are not made for it


def geometry_of(text: str | bytes, limits: LimitsConfig, bill: Bill) -> Geometry:
    """The geometry of a form's field, as JSON, with the parallel beam that it is reconstructed in.

    Raises:
        Problem: 413 for more than the limits let in, 422 for what is no geometry or none that can be reconstructed;
            503, there is no memory for it now.
    """
    content = text.encode(errors="replace") if isinstance(text, str) else text
    _refuse_beyond("", "bytes of JSON", len(content), limits.json_kb * 1000)
    if depth(content) > limits.json_depth:
        raise Problem(422, f"geometry: its JSON may be nested {limits.json_depth} deep; a scan needs no more")
    with bill:
        bill.take(PARSED * len(content))
        try:
            fields = json.loads(content.decode())
            if not isinstance(fields, dict):
                raise ValueError(f"a {type(fields).__name__}, not an object with the fields of a scan")
        except ValueError as error:  # no UTF-8, no JSON, or a number of thousands of digits
            raise Problem(
                422, f"geometry: this is no JSON of a scan: {error!s:.200}; ParallelBeam.model_dump_json() has the form"
            ) from None
        _bounded(fields, limits)
        try:
            return _reconstructable(geometry_from(fields), limits)
        except ValidationError as error:
            errors = [{**item, "loc": ("geometry", *item["loc"])} for item in error.errors()]
            raise Problem(422, sentences(errors)) from None
        finally:
            bill.give(PARSED * len(content))


def _bounded(fields: dict[str, Any], limits: LimitsConfig) -> None:
    """Refuses large numbers before anything is made of them; what is no number is left to the geometry."""
    angles, shape = fields.get("angles"), fields.get("image_shape")
    count = angles.get("count") if isinstance(angles, dict) else len(angles) if isinstance(angles, list) else None
    _refuse_beyond("angles", "angles", count, limits.angles)
    _refuse_beyond("cells", "cells", fields.get("cells"), limits.cells)
    if isinstance(shape, list) and len(shape) == 2 and all(isinstance(side, int) for side in shape):
        pixels = shape[0] * shape[1]
        _refuse_beyond("image_shape", "pixels", pixels, limits.pixels)
        if isinstance(count, int):
            most = int(limits.updates_g * 1e9)
            _refuse_beyond("image_shape and angles", "pixels times angles", pixels * count, most)


def _refuse_beyond(field: str, what: str, number: Any, most: int) -> None:
    if isinstance(number, int | float) and number > most:
        place = f"geometry.{field}" if field else "geometry"
        raise Problem(
            413,
            f"{place}: a geometry that comes with a stack may have {most} {what}, but this one has "
            f"{number!s:.20}; reconstruct it with python -m fbp_ray.reconstruct, or as a job",
        )


def _reconstructable(geometry: Geometry, limits: LimitsConfig) -> Geometry:
    pixels = math.prod(geometry.image_shape)
    if isinstance(geometry, FanBeam):  # looking for arcs takes long where many angles repeat each other
        most_alike = int(repeats(np.sort(np.mod(geometry.theta, 2 * math.pi))).max()) + 1
        _refuse_beyond("angles", "arcs, or turns", most_alike, MOST_ARCS)
    try:
        with apart_from_caches({}):
            parallel = geometry.parallel
        found = len(arcs(geometry.theta)) if isinstance(geometry, FanBeam) else 0
    except Exception as error:  # whatever numpy and pydantic make of a stranger's angles
        why = str(error) if isinstance(error, FbpRayError) else "angles that are alike, too few or too close"
        raise Problem(422, f"geometry: no parallel beam can stand for this scan: {why:.300}") from None
    _refuse_beyond("angles", "arcs, or turns", found, MOST_ARCS)
    most = int(limits.updates_g * 1e9)
    _refuse_beyond("angles", "pixels times rebinned angles", pixels * parallel.num_angles, most)
    ratio = parallel.pixel_size / parallel.cell_size
    if not RATIOS[0] <= ratio <= RATIOS[1]:
        raise Problem(
            422,
            f"geometry.pixel_size: a pixel is {ratio:.3g} cells wide (at the axis), and {RATIOS[0]:g} to {RATIOS[1]:g} "
            "can be; all lengths are metres",
        )
    looks = _looks(geometry) * math.prod(parallel.sinogram_shape)
    _refuse_beyond("angles", "rays (rebinned, for each arc)", looks, MOST_LOOKS)
    return geometry


def _looks(geometry: Geometry) -> int:
    """The most sides that the rebinning may see a ray from, 0 without one."""
    return sum(2 if arc.closed else 4 for arc in arcs(geometry.theta)) if isinstance(geometry, FanBeam) else 0


def given(geometry: Geometry, window: WindowName, cutoff: float, device: torch.device, bill: Bill) -> Engine:
    """The classic FBP in a geometry that came with a request; call `prepare` before it runs.

    Args:
        geometry: of `geometry_of`.
        window: of the classic FBP.
        cutoff: of the window.
        device: where it runs.
        bill: of the request, which is not paid back while a batch of it is computed.
    """
    engine, own = classic_alone(geometry, window, cutoff, device), dict[Hashable, Any]()

    def run(batch: torch.Tensor) -> torch.Tensor:
        with bill, apart_from_caches(own):
            return engine.run(batch)

    return replace(engine, run=run)


def prepare(engine: Engine, bill: Bill) -> None:
    """Makes what all of an engine's images need, once it is known that a stack comes with it.

    Raises:
        Problem: 413 or 503, there is no memory for it; 422, the scan cannot be reconstructed.
    """
    with bill, apart_from_caches({}):
        parallel, looks = engine.geometry.parallel, _looks(engine.geometry)
        rays, filtered = math.prod(parallel.sinogram_shape), parallel.num_angles * (fft_length(parallel.cells) // 2 + 1)
        most = MAKING_BYTES * looks * rays + FILTER_BYTES * filtered
        bill.take(most)
        try:
            engine.run(torch.zeros(0, *engine.geometry.sinogram_shape))
        except FbpRayError as error:
            raise Problem(422, f"geometry: {error}") from None
        bill.give(most - LOOK_BYTES * looks * rays - 4 * filtered)
