"""The benchmark of training on a GPU, small and on a CPU."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks.training import on_gpu
from fbp_ray.geometry import ParallelBeam, RegularAngles


def test_it_times_the_loop_and_the_parts_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(on_gpu, "CASES", {on_gpu.REFERENCE: on_gpu.CASES[on_gpu.REFERENCE]})
    geometry = ParallelBeam(
        angles=RegularAngles(count=20, first=0.05, step=math.pi / 20),
        cells=240,
        cell_size=1e-3,
        image_shape=(162, 162),
        pixel_size=1e-3,
    )
    on_gpu.measure(tmp_path, False, torch.device("cpu"), on_gpu.Size(geometry, 4, 6, 2, few=4, epochs=2, steps=2))
    found = json.loads((tmp_path / "training-gpu.json").read_text())["cases"][on_gpu.REFERENCE]
    assert len(found["samples_per_second"]) == 1
    assert set(found["milliseconds"]) == {*on_gpu.PARTS, "launching"}
    assert "| reference recipe: samples/s |" in capsys.readouterr().out
