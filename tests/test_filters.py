from __future__ import annotations

import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform.radon_transform import _get_fourier_filter

from fbp_ray.errors import ConfigError, GeometryError
from fbp_ray.filters import (
    WindowConfig,
    WindowName,
    analytic_window,
    build_filter,
    fft_length,
    frequencies,
    ramp,
)
from fbp_ray.filters.filtering import filter_projections
from fbp_ray.filters.ramp import shortest_length
from fbp_ray.geometry import ParallelBeam
from tests.support.scans import COARSE


@given(cells=st.integers(1, 200))
def test_the_shortest_length_filters_as_a_convolution_does(cells: int) -> None:
    length = shortest_length(cells)
    assert length <= fft_length(cells)
    sinogram = np.random.default_rng(cells).normal(size=cells)
    filtered = np.fft.irfft(np.fft.rfft(sinogram, n=length) * ramp(cells, 0.5, length), n=length)[:cells]
    longer = 4 * cells
    wanted = np.fft.irfft(np.fft.rfft(sinogram, n=longer) * ramp(cells, 0.5, longer), n=longer)[:cells]
    np.testing.assert_allclose(filtered, wanted, atol=1e-12 * np.abs(wanted).max())


def test_the_fft_length_of_513_cells_is_1080() -> None:
    assert fft_length(513) == 1080


@given(st.integers(1, 3000))
def test_the_fft_length_holds_the_convolution_and_is_smooth(cells: int) -> None:
    length = fft_length(cells)
    assert 2 * cells - 1 <= length <= 2.5 * cells + 2
    assert length % 2 == 0
    rest = length
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    assert rest == 1


@pytest.mark.parametrize("cells", [513, 64, 7])
def test_the_ramp_is_the_direct_convolution_with_the_spatial_kernel(cells: int) -> None:
    cell = 0.7
    signal = np.random.default_rng(0).normal(size=cells)
    kernel = np.zeros(2 * cells - 1)
    n = np.arange(-(cells - 1), cells)
    kernel[n == 0] = 1 / (4 * cell**2)
    kernel[n % 2 != 0] = -1 / (np.pi * n[n % 2 != 0] * cell) ** 2
    direct = cell * np.convolve(signal, kernel)[cells - 1 : 2 * cells - 1]
    response = torch.tensor(ramp(cells, cell))
    filtered = filter_projections(torch.tensor(signal)[None, None], response)[0, 0]
    np.testing.assert_allclose(filtered.numpy(), direct, atol=1e-12)


def test_the_ramp_does_not_vanish_at_zero_and_is_almost_the_frequency() -> None:
    response = ramp(513, 1.0)
    assert 0 < response[0] < 1e-3
    np.testing.assert_allclose(response[10:], frequencies(513)[10:] / 2, rtol=0.02)


@pytest.mark.parametrize("name", ["shepp-logan", "cosine", "hamming", "hann"])
def test_the_windows_are_those_of_scikit_image(name: WindowName) -> None:
    size = 64
    theirs = np.asarray(_get_fourier_filter(size, name)).ravel()
    ramp_only = np.asarray(_get_fourier_filter(size, "ramp")).ravel()
    ours = analytic_window(name, np.arange(size // 2) / (size // 2))
    # scikit-image samples hamming and hann over size points of which the last repeats none: compare where they agree
    tolerance = 0.05 if name in ("hamming", "hann") else 1e-12
    np.testing.assert_allclose(ours, (theirs / ramp_only)[: size // 2], atol=tolerance)


@given(
    st.sampled_from(["none", "shepp-logan", "cosine", "hamming", "hann"]),
    st.floats(0.05, 1.0),
)
def test_a_window_is_one_at_zero_falls_and_ends_at_its_cutoff(name: WindowName, cutoff: float) -> None:
    frequency = np.linspace(0, 1, 201)
    window = analytic_window(name, frequency, cutoff)
    assert window[0] == pytest.approx(1)
    assert np.all(np.diff(window) <= 1e-12)
    assert np.all(window[frequency > cutoff * (1 + 1e-9)] == 0)


def test_hann_is_the_squared_cosine() -> None:
    f, c = np.linspace(0, 0.6, 7), 0.6
    np.testing.assert_allclose(analytic_window("hann", f, c), np.cos(np.pi * f / (2 * c)) ** 2, atol=1e-15)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, math.nan])
def test_a_cutoff_is_positive(cutoff: float) -> None:
    with pytest.raises(ConfigError, match="cut-off"):
        analytic_window("hann", np.zeros(1), cutoff)


def test_an_unknown_window_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="'hanning'; there are none, shepp-logan"):
        analytic_window("hanning", np.zeros(1))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["frequency", "angle_frequency"])
@pytest.mark.parametrize("init", ["ones", "none", "shepp-logan", "cosine", "hamming", "hann"])
def test_a_learnable_window_starts_as_the_analytic_one(kind: str, init: str) -> None:
    cutoff = 1.0 if init == "ones" else 0.7
    sinogram = torch.randn(2, *COARSE.sinogram_shape, generator=torch.Generator().manual_seed(1))
    learnable = build_filter(WindowConfig(kind=kind, init=init, cutoff=cutoff), COARSE)  # type: ignore[arg-type]
    fixed = build_filter(WindowConfig(kind="fixed", init=init, cutoff=cutoff), COARSE)  # type: ignore[arg-type]
    assert torch.equal(learnable(sinogram), fixed(sinogram))
    assert not list(fixed.parameters())


def test_the_learned_state_has_the_documented_shape_and_nothing_else() -> None:
    frequency = build_filter(WindowConfig(kind="frequency"), ParallelBeam.lodopab())
    assert {k: tuple(v.shape) for k, v in frequency.state_dict().items()} == {"weight": (541,)}
    both = build_filter(WindowConfig(kind="angle_frequency"), ParallelBeam.lodopab())
    assert {k: tuple(v.shape) for k, v in both.state_dict().items()} == {"weight": (1000, 541)}


def test_ones_have_no_cutoff() -> None:
    with pytest.raises(ValueError, match="a window of ones has no cut-off"):
        WindowConfig(init="ones", cutoff=0.5)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 20), st.booleans())
def test_filtering_has_exact_gradients(batch: int, angles: int, cells: int, by_angle: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    frequency_count = fft_length(cells) // 2 + 1
    shape = (angles, frequency_count) if by_angle else (frequency_count,)
    sinogram = torch.randn(batch, angles, cells, dtype=torch.float64, generator=generator, requires_grad=True)
    response = torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(filter_projections, (sinogram, response), fast_mode=True)


def test_filtering_in_blocks_is_filtering_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    sinogram = torch.randn(3, 700, 21, dtype=torch.float64, generator=generator)
    response = torch.randn(700, fft_length(21) // 2 + 1, dtype=torch.float64, generator=generator)
    whole = torch.fft.irfft(torch.fft.rfft(sinogram, n=fft_length(21)) * response, n=fft_length(21))[..., :21]
    torch.testing.assert_close(filter_projections(sinogram, response), whole)


def test_non_contiguous_and_expanded_sinograms_are_filtered_alike() -> None:
    response = torch.rand(fft_length(8) // 2 + 1)
    sinogram = torch.rand(8, 5, 3).permute(2, 1, 0)
    assert torch.equal(filter_projections(sinogram, response), filter_projections(sinogram.contiguous(), response))
    expanded = torch.rand(1, 5, 8).expand(3, 5, 8)
    assert torch.equal(filter_projections(expanded, response), filter_projections(expanded.contiguous(), response))


@pytest.mark.parametrize("shape", [(4,), (1,), (), (3, 5), (2, 4), (1, 2, 5)])
def test_a_response_that_does_not_fit_is_told_the_shapes_that_do(shape: tuple[int, ...]) -> None:
    shapes = r"2 angles of 4 cells .* \(5,\) or \(2, 5\), but this one is " + re.escape(str(shape))
    with pytest.raises(GeometryError, match=shapes):
        filter_projections(torch.rand(1, 2, 4), torch.rand(shape))


@pytest.mark.parametrize("shape", [(4,), (2, 4), (1, 1, 2, 4)])
def test_a_sinogram_to_be_filtered_has_three_dimensions(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match=r"\(samples, angles, cells\), but this one is " + re.escape(str(shape))):
        filter_projections(torch.rand(shape), torch.rand(5))


def test_a_response_is_real() -> None:
    with pytest.raises(GeometryError, match=r"real, but this one is torch.complex64: \.real"):
        filter_projections(torch.rand(1, 2, 4), torch.rand(5, dtype=torch.complex64))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def filtered_with_gradient(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(number)
    sinogram = torch.randn(3, 300, 21, generator=generator)
    response = torch.randn(fft_length(21) // 2 + 1, generator=generator, requires_grad=True)
    filtered = filter_projections(sinogram, response)
    (gradient,) = torch.autograd.grad(filtered.square().sum(), response)
    return filtered.detach(), gradient


@pytest.mark.usefixtures("threads")
def test_the_number_of_threads_does_not_change_a_bit() -> None:
    results = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        results.append(filtered_with_gradient(0))
    for filtered, gradient in results[1:]:
        assert torch.equal(filtered, results[0][0])
        assert torch.equal(gradient, results[0][1])


@pytest.mark.usefixtures("threads")
def test_threads_that_filter_at_the_same_time_get_what_each_gets_alone() -> None:
    torch.set_num_threads(2)
    alone = [filtered_with_gradient(number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(filtered_with_gradient, range(8)))
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


@pytest.mark.usefixtures("threads")
def test_filtering_leaves_torchs_threads_to_others() -> None:
    torch.set_num_threads(3)
    filtered_with_gradient(0)
    assert torch.get_num_threads() == 3
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 3


@pytest.mark.usefixtures("threads")
def test_filtering_works_in_inference_mode_and_without_gradients() -> None:
    torch.set_num_threads(2)
    sinogram, response = torch.randn(2, 300, 21), torch.rand(fft_length(21) // 2 + 1, requires_grad=True)
    usual = filter_projections(sinogram, response).detach()
    with torch.inference_mode():
        assert torch.equal(filter_projections(sinogram, response), usual)
    with torch.no_grad():
        result = filter_projections(sinogram, response)
    assert torch.equal(result, usual)
    assert not result.requires_grad
