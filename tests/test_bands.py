"""Windows that depend on the noise of each ray: the kernels against torch's own operations, and what stages mean."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fbp_ray.data.layout import MU_MAX
from fbp_ray.filters import BandWindow, build_filter, fft_length
from fbp_ray.filters.bands import apply_gains, reference_bands, reference_sum, tile_means
from fbp_ray.filters.noise import estimated_photons, log_variance
from fbp_ray.filters.ramp import shortest_length
from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.model import LearnableFBP, ModelConfig, fbp
from fbp_ray.projector import project
from fbp_ray.stage_settings import WindowConfig

SCAN = ParallelBeam(
    angles=RegularAngles(count=90, first=0.0, step=np.pi / 90),
    cells=65,
    cell_size=0.005,
    image_shape=(45, 45),
    pixel_size=0.005,
)
PHOTONS = 4096.0


def gate(sinogram: Tensor, energies: Tensor, samples: slice, rows: slice) -> Tensor:
    """Any smooth function of both."""
    return torch.tanh(energies) + tile_means(sinogram)[:, None]


def by_definition(sinogram: Tensor, responses: Tensor) -> Tensor:
    bands = reference_bands(sinogram, responses)
    return reference_sum(bands, gate(sinogram, tile_means(bands[:, 1:].square()), slice(None), slice(None)))


def responses_for(cells: int, bands: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(bands + 1, fft_length(cells) // 2 + 1, dtype=dtype)


def noisy_scan(count: int = 1) -> Tensor:
    """Sinograms of a disc in multiples of MU_MAX, with the noise of PHOTONS photons."""
    x = torch.arange(45) - 22.0
    disc = 0.25 * (x[:, None] ** 2 + x**2 < 15**2).float().expand(count, -1, -1)
    counts = torch.poisson(PHOTONS * torch.exp(-MU_MAX * project(disc, SCAN)), torch.Generator().manual_seed(3))
    return -torch.log(counts.clamp(min=0.1) / PHOTONS) / MU_MAX


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 150), st.integers(1, 40), st.integers(1, 3), st.sampled_from([torch.float32, torch.float64]))
def test_the_kernels_and_their_gradients_are_those_of_the_definition(
    angles: int, cells: int, bands: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(angles * cells)
    sinogram = torch.randn(2, angles, cells, dtype=dtype, requires_grad=True)
    responses = responses_for(cells, bands, dtype).requires_grad_()
    along = torch.randn(2, angles, cells, dtype=dtype)
    found, wanted = apply_gains(sinogram, responses, gate), by_definition(sinogram, responses)
    with torch.no_grad():
        without_gradient = apply_gains(sinogram, responses, gate)
    tolerance = {"rtol": 0.0, "atol": 1e-10 if dtype == torch.float64 else 2e-4 * float(wanted.detach().abs().max())}
    torch.testing.assert_close(found, wanted, **tolerance)
    torch.testing.assert_close(without_gradient, wanted, **tolerance)
    for one, other in zip(
        torch.autograd.grad((found * along).sum(), (sinogram, responses)),
        torch.autograd.grad((wanted * along).sum(), (sinogram, responses)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance["atol"] * (1 + float(other.abs().max())))


@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")  # of torch's own forward mode
def test_derivatives_of_either_order_in_either_direction() -> None:
    torch.manual_seed(0)
    sinogram = torch.randn(1, 6, 5, dtype=torch.float64, requires_grad=True)
    responses = responses_for(5, 2).requires_grad_()

    def stage(sinogram: Tensor, responses: Tensor) -> Tensor:
        return apply_gains(sinogram, responses, gate)

    assert torch.autograd.gradcheck(stage, (sinogram, responses), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(stage, (sinogram, responses))
    many = torch.randn(3, 1, 6, 5, dtype=torch.float64)
    together = torch.func.vmap(stage, (0, None))(many, responses)
    torch.testing.assert_close(together, torch.stack([stage(one, responses) for one in many]))


@pytest.mark.parametrize("kind", ["ray_noise", "adaptive"])
@pytest.mark.parametrize("photons", [PHOTONS, "estimate"])
def test_inference_is_what_is_trained(kind: str, photons: float | str) -> None:
    stage = build_filter(WindowConfig(kind=kind, init="hann", photons=photons), SCAN)  # type: ignore[arg-type]
    randomise(stage)
    sinogram = noisy_scan(3)
    trained = stage(sinogram).detach()
    torch.testing.assert_close(
        stage.requires_grad_(False)(sinogram), trained, rtol=0, atol=1e-4 * float(trained.abs().max())
    )


def test_a_sample_does_not_depend_on_its_batch_or_on_the_threads() -> None:
    stage = build_filter(WindowConfig(kind="adaptive", init="hann", photons=PHOTONS), SCAN)
    randomise(stage)
    batch = noisy_scan(11)
    with torch.no_grad():
        together = stage(batch)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            alone = torch.cat([stage(one[None]) for one in batch])
        finally:
            torch.set_num_threads(threads)
    assert torch.equal(together, alone)


@pytest.mark.parametrize("kind", ["spline", "fourier_series", "low_rank", "ray_noise", "adaptive"])
@pytest.mark.parametrize(("init", "cutoff"), [("hann", 0.7), ("ones", 1.0), ("none", 0.6), ("shepp-logan", 1.0)])
def test_every_kind_starts_as_its_analytic_window(kind: str, init: str, cutoff: float) -> None:
    window = WindowConfig(kind=kind, init=init, cutoff=cutoff, photons=PHOTONS)  # type: ignore[arg-type]
    model = LearnableFBP(ModelConfig(geometry=SCAN, window=window))
    sinogram = noisy_scan()
    plain = fbp(sinogram, SCAN, "none" if init == "ones" else init, cutoff)  # type: ignore[arg-type]
    torch.testing.assert_close(model(sinogram).detach(), plain, rtol=0, atol=2e-6 * float(plain.abs().max()))


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_stays_so(wrong: float) -> None:
    sinogram = noisy_scan(2)
    sinogram[1, 40, 30] = wrong
    for kind in ("spline", "ray_noise", "adaptive", "zeng"):
        image = LearnableFBP(ModelConfig(geometry=SCAN, window=WindowConfig(kind=kind, init="hann")))(sinogram)
        assert image[0].isfinite().all(), kind
        assert not image[1].isfinite().all(), kind


@pytest.mark.parametrize("kind", ["ray_noise", "adaptive"])
def test_flat_gains_are_a_plain_window(kind: str) -> None:
    stage = build_filter(WindowConfig(kind=kind, init="hann", photons=PHOTONS), SCAN)  # type: ignore[arg-type]
    assert isinstance(stage, BandWindow)
    with torch.no_grad():
        stage.coefficients.normal_()
        stage.gains.copy_(torch.tensor([0.9, 0.5, 0.3, 0.1])[:, None, None].expand_as(stage.gains))
        window = stage.bands()[0] + (stage.gains[:, 0, :1] * stage.bands()[1:]).sum(0)
        sinogram = noisy_scan()
        spectrum = torch.fft.rfft(sinogram.double(), n=shortest_length(65)) * (window * stage.ramp)
        wanted = torch.fft.irfft(spectrum, n=shortest_length(65))[..., :65]
        torch.testing.assert_close(stage(sinogram).double(), wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_where_all_rays_are_as_noisy_one_window_serves_all() -> None:
    stage = build_filter(WindowConfig(kind="ray_noise", init="hann", photons=PHOTONS), SCAN)
    randomise(stage)
    impulses = torch.zeros(2, 90, 65)
    impulses[0, 40, 20] = impulses[1, 70, 45] = 1e-7  # far below the noise: every ray counts as one through air
    with torch.no_grad():
        first, second = stage(impulses)
    torch.testing.assert_close(first[40, 10:31], second[70, 35:56], rtol=1e-3, atol=1e-9)


def test_the_variance_of_known_counts_and_of_estimated_ones() -> None:
    sinogram = noisy_scan(2)
    known = log_variance(sinogram, MU_MAX, torch.full((2,), PHOTONS))
    repeats = torch.stack([noisy_scan(40)[n] for n in range(40)]) * MU_MAX  # forty draws of the noise
    measured = tile_means(repeats.var(0)[None])[0].log10()
    assert (known[0] - measured).abs().median() < 0.1  # of a decade; forty draws know it to about 0.02 a tile
    assert estimated_photons(sinogram, MU_MAX) == pytest.approx([PHOTONS, PHOTONS], rel=0.3)  # every tile has edges


def test_the_noise_is_in_the_units_of_the_data() -> None:
    sinogram = noisy_scan()
    stages = [
        build_filter(WindowConfig(kind="adaptive", init="hann", photons=PHOTONS, unit=unit), SCAN)
        for unit in (MU_MAX, 1.0)
    ]
    for stage in stages:
        randomise(stage)
    with torch.no_grad():
        stored, absolute = stages[0](sinogram), stages[1](sinogram * MU_MAX)
    torch.testing.assert_close(stored * MU_MAX, absolute, rtol=0, atol=1e-4 * float(absolute.abs().max()))


def test_the_default_unit_is_that_of_the_data_set() -> None:
    assert WindowConfig().unit == pytest.approx(MU_MAX, rel=1e-7)


@pytest.mark.parametrize("broken", [np.zeros((1, 90, 65)), np.full((1, 90, 65), 20.0)])
@pytest.mark.parametrize("photons", [PHOTONS, "estimate"])
@pytest.mark.parametrize("init", ["hann", "ones"])  # with ones, one band is empty
def test_blank_and_saturated_sinograms_give_finite_images(broken: np.ndarray, photons: float | str, init: str) -> None:
    window = WindowConfig(kind="adaptive", init=init, photons=photons)  # type: ignore[arg-type]
    model = LearnableFBP(ModelConfig(geometry=SCAN, window=window))
    image = model(torch.from_numpy(broken).float())
    image.square().sum().backward()
    assert torch.isfinite(image).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, 1e30])
def test_values_that_are_no_numbers_come_out_as_such(wrong: float) -> None:
    window = WindowConfig(kind="adaptive", init="hann", photons=PHOTONS)
    model = LearnableFBP(ModelConfig(geometry=SCAN, window=window))
    sinogram = noisy_scan(2)
    sinogram[1] *= wrong
    image = model(sinogram)
    image.sum().backward()
    assert torch.isfinite(image[0]).all()
    assert torch.isfinite(image[1]).any() == (wrong == 1e30)


@pytest.mark.parametrize("kind", ["ray_noise", "adaptive", "zeng"])
def test_an_empty_batch_gives_an_empty_batch(kind: str) -> None:
    window = WindowConfig(kind=kind, init="hann", photons=PHOTONS)  # type: ignore[arg-type]
    model = LearnableFBP(ModelConfig(geometry=SCAN, window=window))
    assert model(torch.zeros(0, 90, 65)).shape == (0, 45, 45)
    assert model.requires_grad_(False)(torch.zeros(0, 90, 65)).shape == (0, 45, 45)


def test_compiled_and_exported_models_are_the_same() -> None:
    window = WindowConfig(kind="adaptive", init="hann", photons=PHOTONS)
    model = LearnableFBP(ModelConfig(geometry=SCAN, window=window)).eval()
    randomise(model.filter)
    sinogram = noisy_scan(2)
    with torch.no_grad():
        wanted = model(sinogram)
        exported: Callable[[Tensor], Tensor] = torch.export.export(model, (sinogram,)).module()
        torch.testing.assert_close(exported(sinogram), wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def randomise(stage: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
