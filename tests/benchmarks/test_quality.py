"""The figures of the quality benchmark are what they are called."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.quality.methods import classic
from benchmarks.quality.report import table
from benchmarks.quality.scores import score, time_in_turns
from fbp_ray.baseline import BestCutoffs
from fbp_ray.data import LoDoPaB
from fbp_ray.data.layout import MU_AIR, MU_MAX, MU_WATER
from fbp_ray.data.values import BRIGHTEST
from fbp_ray.evaluate.phantom import Apart, edge_mtf, look_apart, noise_power
from fbp_ray.evaluate.scores import interval
from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.metrics import psnr
from fbp_ray.model import fbp
from tests.support.scans import COARSE, write_scan


def test_interval_draws_patients_not_images() -> None:
    means = np.random.default_rng(0).normal(size=25)
    patients = np.repeat(np.arange(25), 8)
    low, high = interval(np.repeat(means, 8), patients)
    assert low < means.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * means.std() / 5, rel=0.1)


def test_mtf_of_a_gaussian_blur() -> None:
    sigma = 1.2
    rows, columns = np.indices((160, 160))
    distance = np.hypot(rows - 79.6, columns - 80.3) - 50
    disc = np.vectorize(lambda d: 0.5 - 0.5 * math.erf(d / (sigma * 2**0.5)))(distance)
    frequency, transfer = edge_mtf(disc, (79.6, 80.3), 50)
    below = frequency <= 0.3
    assert transfer[below] == pytest.approx(np.exp(-2 * (np.pi * sigma * frequency[below]) ** 2), abs=0.04)


def test_white_noise_has_a_flat_spectrum_of_its_variance() -> None:
    _, power = noise_power(np.random.default_rng(0).normal(0, 3, (200, 32, 32)))
    assert power == pytest.approx(np.full(len(power), 9.0), rel=0.1)


def test_a_lower_cutoff_trades_noise_for_resolution_and_half_contrast_is_where_it_is() -> None:
    geometry = ParallelBeam(
        angles=RegularAngles(count=180, first=0.01, step=math.pi / 180),
        cells=183,
        cell_size=0.26 / 121,
        image_shape=(121, 121),
        pixel_size=0.26 / 121,
    )
    sharp, smooth = (look_apart(partial(fbp, geometry=geometry, cutoff=cutoff), geometry, 1e5) for cutoff in (1.0, 0.5))
    assert smooth.noise < sharp.noise / 2
    for insert in ("high", "low"):
        # A Hann of cut-off c is at a half at c / 2 of Nyquist's frequency; sampling and interpolation take a little.
        assert smooth.half(insert) == pytest.approx(0.5 / 2 / (2 * 260 / 121), rel=0.2)
        assert smooth.half(insert) < sharp.half(insert)


def test_noise_and_resolution_do_not_depend_on_the_unit_of_the_data() -> None:
    look = partial(look_apart, partial(fbp, geometry=COARSE), COARSE, 1e5, 4)
    water, scaled = look(), look(unit=MU_MAX / 1000, high=1000 * BRIGHTEST)
    assert scaled.noise == pytest.approx(water.noise * (MU_WATER - MU_AIR) / MU_WATER, rel=0.01)


def test_the_table_has_what_was_scored_and_timed(tmp_path: Path) -> None:
    data = write_scan(tmp_path)
    part = LoDoPaB(data, "test", COARSE)
    (tmp_path / "patient_ids_rand_test.csv").write_text("1\n1\n2\n2\n")
    methods = list(classic(COARSE, BestCutoffs(0.7, 0.5), 1000.0))[:3]
    scored = {method.name: score(method, part) for method in methods}
    times = time_in_turns(methods, part, 1)
    edge = (np.arange(3.0), np.array([1, 0.6, 0.2]))
    seen = dict.fromkeys(scored, Apart(1.0, np.zeros(2), np.zeros(2), {"high": edge, "low": edge}))
    rows = {line.split("|")[1].strip(): line.split("|") for line in table(methods, scored, times, seen).splitlines()}
    images = fbp(torch.stack([part[i].observation for i in range(4)]), COARSE, "hann", 0.7)
    wanted = psnr(images, torch.stack([part[i].ground_truth for i in range(4)])).mean()
    assert float(rows["Hann 0.70"][3]) == pytest.approx(float(wanted), abs=0.006)
    low, _, high = rows["Hann 0.70"][4].split()
    assert float(low) <= float(wanted) + 0.01
    assert float(high) >= float(wanted) - 0.01
    assert float(rows["ramp"][10]) == 1.0
    assert rows["ramp"][15].strip() == "1.25"


def test_without_patients_there_is_no_interval(tmp_path: Path) -> None:
    part = LoDoPaB(write_scan(tmp_path), "test", COARSE)
    assert score(next(classic(COARSE, BestCutoffs(0.7, 0.5), None)), part).interval("psnr") is None
