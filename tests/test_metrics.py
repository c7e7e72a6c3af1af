from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fbp_ray.errors import GeometryError
from fbp_ray.geometry import ParallelBeam
from fbp_ray.metrics import has_range, psnr, ssim
from fbp_ray.model import fbp
from fbp_ray.structure import Window, reference_similarity, similarity

PAIR = Path(__file__).parent / "data" / "lodopab_pair" / "lodopab_test_3456.npz"


@settings(deadline=None, max_examples=30)
@given(
    st.integers(7, 40),
    st.integers(7, 40),
    st.floats(1e-3, 1e3),
    st.floats(0, 1),
    st.sampled_from([None, 1.0, 0.37]),
    st.integers(0, 10_000),
)
def test_psnr_and_ssim_are_those_of_scikit_image(
    height: int, width: int, scale: float, noise: float, data_range: float | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    target = (scale * rng.random((3, height, width))).astype(np.float32)
    prediction = (target + scale * (noise + 1e-3) * rng.normal(size=target.shape)).astype(np.float32)
    ours_psnr = psnr(torch.tensor(prediction), torch.tensor(target), data_range)
    ours_ssim = ssim(torch.tensor(prediction), torch.tensor(target), data_range)
    for k in range(3):
        a, b = target[k].astype(np.float64), prediction[k].astype(np.float64)
        used = data_range if data_range is not None else a.max() - a.min()
        assert ours_psnr[k].item() == pytest.approx(peak_signal_noise_ratio(a, b, data_range=used), abs=1e-5)
        assert ours_ssim[k].item() == pytest.approx(structural_similarity(a, b, data_range=used), abs=1e-6)


def test_ssim_does_not_depend_on_what_else_is_in_the_batch() -> None:
    target = torch.rand(2, 3, 362, 362, generator=torch.Generator().manual_seed(0))
    prediction = target + 0.1 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    together = ssim(prediction, target)
    assert together.shape == (2, 3)
    assert together[1, 2] == ssim(prediction[1, 2], target[1, 2])
    assert ssim(target[:0], target[:0]).shape == (0, 3)


def test_equal_images_are_as_good_as_can_be() -> None:
    image = torch.rand(2, 20, 20)
    assert torch.all(psnr(image, image) == torch.inf)
    torch.testing.assert_close(ssim(image, image), torch.ones(2, dtype=torch.float64))


def test_with_a_fixed_range_both_are_symmetric() -> None:
    a, b = torch.rand(20, 30), torch.rand(20, 30)
    torch.testing.assert_close(psnr(a, b, 1.0), psnr(b, a, 1.0))
    torch.testing.assert_close(ssim(a, b, 1.0), ssim(b, a, 1.0))


def test_nothing_is_clipped() -> None:
    target = torch.rand(10, 10)
    assert psnr(target + 5, target) < psnr((target + 5).clamp(0, 1), target)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"\(3, 4\) and \(4, 3\)"):
        psnr(torch.rand(3, 4), torch.rand(4, 3))
    with pytest.raises(GeometryError, match="at least 7 pixels"):
        ssim(torch.rand(6, 9), torch.rand(6, 9))


def test_the_genuine_pair_is_reconstructed_better_than_by_published_code() -> None:
    with np.load(PAIR, allow_pickle=False) as pair:
        observation, truth = torch.from_numpy(pair["observation"]), torch.from_numpy(pair["ground_truth"])
        theirs = torch.from_numpy(pair["fbp"])
    image = fbp(observation, ParallelBeam.lodopab(), "hann", 1.0)
    assert psnr(image, truth).item() >= 29.10
    assert ssim(image, truth).item() >= 0.680
    assert psnr(theirs, truth).item() == pytest.approx(28.957, abs=1e-3)
    assert ssim(theirs, truth).item() == pytest.approx(0.674, abs=1e-3)


def test_images_of_one_value_are_told_from_those_with_a_range() -> None:
    target = torch.stack([torch.zeros(8, 8), torch.full((8, 8), 3.0), torch.rand(8, 8)])
    assert has_range(target).tolist() == [False, False, True]
    assert not psnr(target + 1, target)[:2].isfinite().any()


@pytest.mark.parametrize("luminous", [True, False])
def test_the_kernel_of_ssim_and_its_gradient_are_those_of_torchs_operations(luminous: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(3, 20, 33, generator=generator)
    noisy = target + 0.2 * torch.randn(target.shape, generator=generator)
    constants = torch.tensor([1e-4, 2e-4, 3e-4], dtype=torch.float64), torch.tensor([1e-3, 2e-3, 3e-3]).double()
    window = Window((0.1, 0.2, 0.4, 0.3), sample=1.1, luminous=luminous)
    found = []
    for of in (similarity, reference_similarity):
        prediction = noisy.clone().requires_grad_()
        figures = of(prediction, target, *constants, window)
        (gradient,) = torch.autograd.grad(figures @ torch.tensor([1.0, -2, 3]).double(), prediction)
        found.append((figures.detach(), gradient))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-12, rtol=0)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-8, rtol=1e-6)
    exact = noisy[:1, :6, :6].double().requires_grad_()
    both = [constant[:1] for constant in constants]
    torch.autograd.gradgradcheck(lambda p: similarity(p, target[:1, :6, :6].double(), *both, window), exact)
