"""The figures of the quality benchmark are what they are called."""

import math

import numpy as np
import pytest

from benchmarks.quality.measures import edge_mtf, interval, noise_power


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
