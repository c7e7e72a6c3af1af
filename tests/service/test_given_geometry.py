"""A geometry that comes with a stack: what is made of it is counted, forgotten, and shared with no other."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import pytest
import torch

from fbp_ray.geometry import FanBeam, ParallelBeam
from fbp_ray.rebinning.tables import Tables
from service import given_geometry
from service.batching import bytes_per_image, classic
from service.given_geometry import FILTER_BYTES, LOOK_BYTES, MAKING_BYTES, geometry_of, given, prepare
from service.memory import Bill, Memory
from service.observability import Metrics
from service.problems import Problem
from service.settings import LimitsConfig
from tests.support.scans import COARSE, FAN, PARALLEL

CPU = torch.device("cpu")


def noise(geometry: ParallelBeam | FanBeam, *count: int) -> torch.Tensor:
    return torch.rand(*count, *geometry.sinogram_shape, generator=torch.Generator().manual_seed(0))


def bill_of(**limits: Any) -> Bill:
    return Bill(Memory(LimitsConfig(**limits), Metrics()))


def test_what_is_made_of_it_is_counted_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """About 40 bytes a ray for a fan beam seen from two sides; nothing of it stays in a cache of the process."""
    made: list[dict[Any, Any]] = []
    apart = given_geometry.apart_from_caches
    monkeypatch.setattr(given_geometry, "apart_from_caches", lambda own: made.append(own) or apart(own))
    bill, bills = bill_of(waiting_mb=10), []
    monkeypatch.setattr(bill, "take", lambda size, take=bill.take: bills.append(size) or take(size))
    with bill:
        geometry = geometry_of(FAN.model_dump_json(), LimitsConfig(), bill)
        assert bill.bytes == 0
        engine = given(geometry, "hann", 1.0, CPU, bill)
        prepare(engine, bill)
        (tables,) = (value for own in made for value in own.values() if isinstance(value, Tables))
        rays, filtered = math.prod(FAN.parallel.sinogram_shape), FAN.parallel.num_angles * 31
        assert bills[-1] == MAKING_BYTES * 2 * rays + FILTER_BYTES * filtered
        assert bill.bytes == LOOK_BYTES * 2 * rays + 4 * filtered
        assert tables.place.nbytes + tables.weights.nbytes == LOOK_BYTES * 2 * rays
        made.clear()
        engine.run(noise(FAN, 1))
        assert any(value is tables for own in made for value in own.values())  # made once for all batches
    assert bill.memory.in_use == 0
    place = weakref.ref(tables.place)
    made.clear()
    del tables, engine
    gc.collect()
    assert place() is None


def test_tables_for_which_there_is_no_memory_are_not_made() -> None:
    bill = bill_of(waiting_mb=0.3)
    with bill, pytest.raises(Problem, match="bytes of memory") as refused:
        prepare(given(FAN, "hann", 1.0, CPU, bill), bill)
    assert refused.value.status == 413
    repeated = FAN.model_copy(update={"angles": tuple(0.1 * (k % 8) + 1e-9 * k for k in range(8000))})
    with pytest.raises(Problem, match="64 arcs, or turns, but this one has 1000"):
        geometry_of(repeated.model_dump_json(), LimitsConfig(), bill_of())
    many = FAN.model_copy(update={"angles": tuple(0.002 * k for k in range(2000)), "cells": 6000})
    with pytest.raises(Problem, match=r"rays \(rebinned, for each arc\)"):
        geometry_of(many.model_copy(update={"cell_size": 1e-5}).model_dump_json(), LimitsConfig(), bill_of())


def test_no_batch_is_shared_by_geometries_whose_digests_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ParallelBeam, "digest", "0" * 12)
    one, other = PARALLEL, PARALLEL.model_copy(update={"pixel_size": 2e-3})
    engines = [classic(one, "hann", 1.0, CPU), given(one, "hann", 1.0, CPU, bill_of())]
    assert engines[0].key == engines[1].key != given(other, "hann", 1.0, CPU, bill_of()).key


def test_a_large_image_of_few_rays_counts_too() -> None:
    large = COARSE.model_copy(update={"image_shape": (1000, 1000)})
    assert bytes_per_image(classic(large, "hann", 1.0, CPU)) > 3 * 4 * 1000 * 1000
