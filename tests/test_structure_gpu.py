"""SSIM's kernels in Triton's interpreter, and the loss and its gradient on a GPU where there is one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fbp_ray.config import LossConfig
from fbp_ray.losses import composite_loss
from fbp_ray.metrics import psnr, ssim
from fbp_ray.structure import Window, half_size, similarity
from tests.projector.test_projector_gpu import run
from tests.support import gpu_cases

pytest.importorskip("triton", reason="Triton is for Linux")

BOUNDS = {"similarity": 1e-12, "gradient": 1e-7, "halves": 1e-7, "gradient of halves": 1e-7, "others count": 0}
NONE = dict.fromkeys(("l1", "ms_ssim", "edge"), 0.0)


@pytest.fixture(scope="module")
def interpreted() -> Any:
    return run("tests.support.gpu_cases", "structure", TRITON_INTERPRET="1")


@pytest.mark.parametrize("case", gpu_cases.IMAGES)
def test_interpreted_kernels_are_torchs_operations(interpreted: Any, case: str) -> None:
    assert {name: value for name, value in interpreted[case].items() if not value <= BOUNDS[name]} == {}


def test_of_no_images() -> None:
    from fbp_ray import structure_gpu

    none, weights = torch.empty(0, 20, 20), torch.ones(3).double()
    found, slopes = structure_gpu.similarity(none, none, *torch.empty(2, 0).double(), weights, True, True)
    assert found.shape == (0,)
    assert structure_gpu.gradient(found, slopes, none, none, weights).shape == none.shape
    assert structure_gpu.halved(none).shape == (0, 10, 10)
    assert structure_gpu.halved_back(torch.empty(0, 10, 10), none).shape == none.shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the same on a GPU, where there is one")
class TestOnAGpu:
    @pytest.mark.parametrize("case", gpu_cases.IMAGES)
    def test_kernels_are_torchs_operations(self, case: str) -> None:
        figures = gpu_cases.of_structure(*gpu_cases.IMAGES[case], "cuda")
        assert {name: value for name, value in figures.items() if not value <= BOUNDS[name]} == {}

    @pytest.mark.parametrize("weights", [{}, {**NONE, "ms_ssim": 1.0}, {**NONE, "log_mse": 0.5, "local_ssim": 0.5}])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_the_loss_and_its_gradient_are_those_on_the_cpu(
        self, weights: dict[str, float], dtype: torch.dtype
    ) -> None:
        target, noisy = pair(5, dtype)
        (loss, gradient), *ours = (
            loss_and_gradient(noisy.to(device), target.to(device), LossConfig(**weights))
            for device in ("cpu", "cuda", "cuda")
        )
        assert abs(ours[0][0].item() - loss.item()) < 1e-6
        assert gpu_cases.relative(ours[0][1].cpu(), gradient) < 1e-6
        assert all(torch.equal(once, again) for once, again in zip(*ours, strict=True))

    def test_figures_are_those_on_the_cpu_whatever_else_is_in_the_batch(self) -> None:
        target, noisy = pair(5)
        on_gpu = noisy.cuda(), target.cuda()
        for figure in (ssim, psnr):
            torch.testing.assert_close(figure(*on_gpu).cpu(), figure(noisy, target), rtol=0, atol=1e-6)
        assert torch.equal(ssim(*on_gpu)[3:], ssim(*(images[3:] for images in on_gpu)))
        on_gpu[0][1] = torch.nan
        assert ssim(*on_gpu).isnan().tolist() == [False, True, False, False, False]

    def test_second_derivatives(self) -> None:
        target, noisy = (images[:2, :13, :12].cuda() for images in pair(2, torch.float64))
        constants = [torch.full((2,), value, dtype=torch.float64, device="cuda") for value in (1e-4, 9e-4)]
        window = Window((0.2, 0.5, 0.3), sample=1.2)
        noisy.requires_grad_()
        for function in (half_size, lambda image: similarity(half_size(image), half_size(target), *constants, window)):
            torch.autograd.gradcheck(function, noisy)
            torch.autograd.gradgradcheck(function, noisy, nondet_tol=1e-9)  # torch's operations, in no order

    def test_images_that_are_not_contiguous(self) -> None:
        target, noisy = (images.cuda() for images in pair(3))
        straight = loss_and_gradient(noisy, target, LossConfig())
        turned = loss_and_gradient(noisy.mT.contiguous().mT, target.mT.contiguous().mT, LossConfig())
        assert abs(turned[0].item() - straight[0].item()) < 1e-6
        assert gpu_cases.relative(turned[1], straight[1]) < 1e-6


def pair(batch: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Images that are smooth in places and noisy in others, and noisier ones."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.rand(batch, 1, 12, 12, generator=generator)
    target = torch.nn.functional.interpolate(blocks, (362, 362), mode="bilinear")[:, 0]
    noise = torch.randn(batch, 362, 362, generator=generator)
    return target.to(dtype), (target + 0.02 * noise * (target > 0.4)).to(dtype)


def loss_and_gradient(
    noisy: torch.Tensor, target: torch.Tensor, config: LossConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    prediction = noisy.detach().requires_grad_()
    loss = composite_loss(prediction, target, config).total
    loss.backward()
    assert prediction.grad is not None
    return loss.detach(), prediction.grad
