"""Fourier ring correlation of images whose correlation is known."""

from __future__ import annotations

import numpy as np
import pytest

from fbp_ray.evaluate.frc import Rings

SHAPE = (96, 80)


def rings(one: np.ndarray, other: np.ndarray) -> Rings:
    found = Rings(SHAPE)
    found.add(one, other)
    return found


@pytest.mark.parametrize("share", [0.0, 0.2071 / 1.2071, 0.5, 0.9])
def test_white_images_correlate_by_the_share_of_what_they_have_in_common(share: float) -> None:
    """S / (S + N), in every ring, to the statistical error of its frequencies."""
    random = np.random.default_rng(0)
    common, first, second = random.standard_normal((3, 40, *SHAPE))
    images = (np.sqrt(share) * common + np.sqrt(1 - share) * noise for noise in (first, second))
    found = rings(*images)
    count = 40 * 2 * np.pi * np.arange(1, 41) * (96 / 80) * 0.6 / 2  # half of a real image's frequencies are their own
    assert np.all(np.abs(found.correlation - share) < 4.5 / np.sqrt(count))


def test_an_image_correlates_with_itself_and_with_its_negative() -> None:
    image = np.random.default_rng(1).standard_normal((2, *SHAPE))
    np.testing.assert_allclose(rings(image, 3 * image + 5).correlation, 1)
    np.testing.assert_allclose(rings(image, -image).correlation, -1)
    assert rings(image, image).resolved(rings(image, image)) == 0.5
    assert rings(image, -image).resolved(rings(image, image)) == 0.0
    assert np.all(rings(image, 0 * image).correlation == 0)


def test_what_is_resolved_ends_where_the_common_part_ends() -> None:
    """Common up to a frequency, noise everywhere: the criterion is crossed there, with a window over both or not."""
    random = np.random.default_rng(2)
    common, first, second = random.standard_normal((3, 8, *SHAPE))
    frequency = np.hypot(np.fft.fftfreq(SHAPE[0])[:, None], np.fft.fftfreq(SHAPE[1]))
    low = np.fft.ifft2(np.fft.fft2(common) * (frequency < 0.2)).real
    found = rings(low + 0.4 * first, low + 0.4 * second)
    assert found.resolved(found) == pytest.approx(0.2, abs=0.02)
    blurred = [np.fft.ifft2(np.fft.fft2(low + 0.4 * n) * np.exp(-8 * frequency**2)).real for n in (first, second)]
    assert rings(*blurred).resolved(found) == pytest.approx(found.resolved(found), abs=0.015)
    cut = [np.fft.ifft2(np.fft.fft2(low + 0.4 * n) * (frequency < 0.1)).real for n in (first, second)]
    assert rings(*cut).resolved(found) == pytest.approx(0.1, abs=0.03)  # though they agree on what leaks beyond


def test_the_half_bit_criterion() -> None:
    """Much for the few frequencies of the first rings; towards 0.2071 / 1.2071, a signal to noise ratio of 0.2071."""
    one = rings(np.zeros((1, *SHAPE)), np.zeros((1, *SHAPE)))
    count = 2 * np.pi * np.arange(1, 41) * 96 / 80 * 0.46  # the fading circle's part of the image
    expected = (0.2071 + 1.9102 / np.sqrt(count)) / (1.2071 + 0.9102 / np.sqrt(count))
    np.testing.assert_allclose(one.half_bit, expected, atol=0.05)
