from __future__ import annotations

import piq
import pytest
import torch
from scipy.ndimage import sobel

from fbp_ray import losses
from fbp_ray.config import LossConfig
from fbp_ray.errors import ConfigError
from fbp_ray.losses import composite_loss
from fbp_ray.metrics import has_range, psnr, ssim


def images(batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(batch, 170, 165, dtype=torch.float64, generator=generator)
    return target + 0.2 * torch.randn(target.shape, dtype=torch.float64, generator=generator), target


def only(**weights: float) -> LossConfig:
    return LossConfig(**{"l1": 0.0, "ms_ssim": 0.0, "edge": 0.0, "mse": 0.0, **weights})


def test_the_defaults_are_those_of_the_reference_experiment() -> None:
    weights = {name: weight for name, weight in LossConfig().weights.items() if weight}
    assert weights == {"l1": 0.25, "ms_ssim": 1.0, "edge": 1.0}


def test_the_terms_of_the_reported_figures_leave_out_images_without_a_range() -> None:
    prediction, target = images()
    loss = composite_loss(prediction, target, only(log_mse=1, local_ssim=1))
    assert loss.parts["log_mse"] == pytest.approx(-psnr(prediction, target).mean().item() / 10)
    assert loss.parts["local_ssim"] == pytest.approx(1 - ssim(prediction, target).mean().item(), abs=1e-6)
    blank = torch.full_like(target, 0.2)
    both = composite_loss(prediction.repeat(2, 1, 1), torch.cat([target, blank]), only(log_mse=1, local_ssim=1))
    assert both.parts["log_mse"] == pytest.approx(loss.parts["log_mse"] / 2)
    pair = prediction.repeat(2, 1, 1), torch.cat([target, blank])
    known = {"psnr": psnr(*pair), "ssim": ssim(*pair)}
    assert torch.equal(composite_loss(*pair, only(log_mse=1, local_ssim=1), known).total, both.total)
    predicted = prediction.clone().requires_grad_()
    composite_loss(predicted, blank, only(log_mse=1, local_ssim=1)).total.backward()
    assert torch.equal(predicted.grad, torch.zeros_like(predicted))


def test_a_gpu_leaves_them_out_without_waiting() -> None:
    prediction, target = images()
    target[1] = 0.2
    found = []
    for way in (losses._over_ranged, losses._over_masked):
        predicted = prediction.clone().requires_grad_()
        ranged = [has_range(target)] if way is losses._over_masked else []
        value = way(ssim, None, torch.neg, predicted, target, *ranged)
        value.backward()
        found.append((value.detach(), predicted.grad))
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there, here)
    none = losses._over_masked(ssim, None, torch.neg, prediction, torch.zeros_like(target), torch.zeros(3).bool())
    assert none == 0


def test_l1_and_mse_are_means() -> None:
    prediction, target = images()
    loss = composite_loss(prediction, target, only(l1=1, mse=1))
    assert loss.parts["l1"] == pytest.approx((prediction - target).abs().mean().item())
    assert loss.parts["mse"] == pytest.approx((prediction - target).square().mean().item())


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_ms_ssim_is_piqs_loss_with_one_channel(batch: int) -> None:
    prediction, target = images(batch)
    expected = piq.MultiScaleSSIMLoss(data_range=1.0).double()(prediction.clamp(0, 1)[:, None], target[:, None])
    loss = composite_loss(prediction, target, only(ms_ssim=1))
    assert loss.total.item() == pytest.approx(expected.item(), abs=1e-9)


def test_ms_ssim_has_the_gradient_of_piqs_loss() -> None:
    prediction, target = images(2)
    first, second = prediction.clone().requires_grad_(), prediction.clone().requires_grad_()
    composite_loss(first, target, only(ms_ssim=1)).total.backward()
    piq.MultiScaleSSIMLoss(data_range=1.0).double()(second.clamp(0, 1)[:, None], target[:, None]).backward()
    torch.testing.assert_close(first.grad, second.grad)


def test_edge_is_the_l1_distance_of_sobel_gradients() -> None:
    prediction, target = images(1)
    difference = (prediction - target)[0].double().numpy()
    expected = sum(abs(sobel(difference, axis))[1:-1, 1:-1].mean() for axis in (0, 1))
    assert composite_loss(prediction, target, only(edge=1)).total.item() == pytest.approx(expected, rel=1e-5)


def test_the_total_is_the_weighted_sum_of_the_parts() -> None:
    prediction, target = images()
    config = LossConfig(l1=0.3, ms_ssim=0.7, edge=0.2, mse=2.0, log_mse=0.4, local_ssim=0.6)
    loss = composite_loss(prediction, target, config)
    assert set(loss.parts) == set(config.weights)
    expected = sum(config.weights[name] * part.item() for name, part in loss.parts.items())
    assert loss.total.item() == pytest.approx(expected, rel=1e-6)
    assert not any(part.requires_grad for part in loss.parts.values())


def test_a_perfect_prediction_costs_nothing() -> None:
    _, target = images()
    assert composite_loss(target, target, LossConfig(mse=1)).total.item() == pytest.approx(0, abs=1e-6)


def test_a_term_of_weight_zero_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr("fbp_ray.losses.similarity", never)
    prediction, target = images()
    assert "ms_ssim" not in composite_loss(prediction, target, LossConfig(ms_ssim=0)).parts


def test_images_too_small_for_ms_ssim_say_what_to_do() -> None:
    small = torch.rand(2, 64, 64)
    with pytest.raises(ConfigError, match=r"at least 161 pixels.*--loss.ms_ssim 0"):
        composite_loss(small, small, LossConfig())


@pytest.mark.parametrize("weights", [{"l1": -1.0}, {"edge": float("nan")}, {"tv": 1.0}])
def test_bad_weights_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(weights))):
        LossConfig(**weights)


def test_all_weights_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="all loss weights are 0"):
        only()
