"""Held-out angles in place of ground truth: what a model may see, and that the estimates find the best window."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fbp_ray.baseline import best_hann_alone, hann
from fbp_ray.data import Sample
from fbp_ray.data.layout import MU_MAX
from fbp_ray.errors import ConfigError
from fbp_ray.geometry import FanBeam, ParallelBeam, RegularAngles
from fbp_ray.least_squares import solve
from fbp_ray.model import LearnableFBP, ModelConfig, fbp
from fbp_ray.projector import project
from fbp_ray.rebinning import project as project_fan
from fbp_ray.self_target import self_loss, self_risk
from fbp_ray.split import FOLDS, ByAngles, ByPhotons, Split, splits
from fbp_ray.stage_settings import WindowConfig
from tests.support.scans import FAN, smooth_images

SCAN = ParallelBeam(
    angles=RegularAngles(count=96, first=0.01, step=np.pi / 96),
    cells=65,
    cell_size=0.005,
    image_shape=(45, 45),
    pixel_size=0.005,
)
PHOTONS = 3000.0


@pytest.fixture(scope="module")
def scans() -> tuple[Tensor, Tensor]:
    """Noisy sinograms and their images."""
    images = torch.from_numpy(smooth_images(16, SCAN, seed=0, widths=(0.05, 0.15)))
    random = torch.Generator().manual_seed(0)
    counts = torch.poisson(PHOTONS * torch.exp(-MU_MAX * project(images, SCAN)), random)
    return -torch.log(counts.clamp(min=0.1) / PHOTONS) / MU_MAX, images


def model(kind: str, **more: Any) -> LearnableFBP:
    window = WindowConfig.model_validate({"kind": kind, "init": "hann", "cutoff": 0.8, "photons": PHOTONS, **more})
    return LearnableFBP(ModelConfig(geometry=SCAN, window=window))


@pytest.mark.parametrize("kind", ["spline", "frequency", "low_rank", "angle_frequency"])
def test_images_without_each_fold_in_turn_have_the_image_of_all_as_their_mean(
    kind: str, scans: tuple[Tensor, Tensor]
) -> None:
    """So each angle has its own weights there, and those that are left stand for all."""
    one = model(kind)
    with torch.no_grad():
        for weights in one.parameters():
            weights += 0.1 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(1))
        sinogram = scans[0][:2]
        each = [one(split.seen.take(sinogram), some=split.seen) for split in splits(SCAN)]
        torch.testing.assert_close(torch.stack(each).mean(0), one(sinogram), rtol=0, atol=1e-5)
        held_out = [one(split.held_out.take(sinogram), some=split.held_out) for split in splits(SCAN)]
        torch.testing.assert_close(torch.stack(held_out).mean(0), one(sinogram), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["angle_frequency", "ray_noise", "adaptive"])
def test_the_weights_learn_from_all_angles_that_are_seen(kind: str, scans: tuple[Tensor, Tensor]) -> None:
    one, sinogram = model(kind), scans[0][3:4]
    ((_, parts),) = ByAngles(SCAN).fixed(sinogram, [3])
    self_loss(one(parts.seen, some=parts.seen_scan), parts).backward()
    gradients = [weights.grad for weights in one.parameters()]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
    if kind == "angle_frequency":
        (gradient,) = gradients
        seen = gradient.abs().sum(1) > 0
        assert seen.tolist() == [angle % FOLDS != 3 for angle in range(96)]


@pytest.mark.parametrize("split", [ByAngles(SCAN), ByPhotons(SCAN, PHOTONS, MU_MAX)], ids=["angles", "photons"])
def test_the_estimates_find_the_window_that_the_truth_finds(split: Split, scans: tuple[Tensor, Tensor]) -> None:
    sinogram, truth = scans
    index = torch.arange(len(truth))
    cutoffs = [0.3, 0.4, 0.5, 0.6, 0.8]
    true = torch.stack([(fbp(sinogram, SCAN, "hann", c) - truth).square().mean().double() for c in cutoffs])
    alone = torch.stack([self_risk(hann(c), sinogram, index, split).mean() for c in cutoffs])
    assert alone.argmin() == true.argmin()
    torch.testing.assert_close(alone - alone.min(), true - true.min(), rtol=0.25, atol=0.02 * true.max().item())
    best = best_hann_alone(lambda: [(sinogram[:9], index[:9]), (sinogram[9:], index[9:])], split)
    assert (fbp(sinogram, SCAN, "hann", best) - truth).square().mean() < 1.005 * true.min()


@pytest.mark.parametrize("split", [ByAngles(SCAN), ByPhotons(SCAN, PHOTONS, MU_MAX)], ids=["angles", "photons"])
def test_a_sample_is_judged_alike_in_any_batch(split: Split, scans: tuple[Tensor, Tensor]) -> None:
    sinogram, index = scans[0], torch.arange(16)
    whole = self_risk(hann(0.6), sinogram, index, split)
    one = self_risk(hann(0.6), sinogram[11:12], index[11:12], split)
    torch.testing.assert_close(one, whole[11:12], rtol=1e-4, atol=0)


def test_a_step_draws_its_fold_from_seed_epoch_and_step_alone() -> None:
    split, numbers = ByAngles(SCAN), torch.arange(96.0).expand(1, 65, 96).mT

    def fold(seed: int, epoch: int) -> float:
        return split.drawn(numbers, [5], seed, epoch, 1).held_out[0, 0, 0].item()

    drawn = [[fold(seed, epoch) for epoch in range(40)] for seed in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]
    assert set(drawn[0]) == set(range(FOLDS))


def test_too_few_angles_to_split_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"15 angles cannot be split into 8.*--target truth"):
        splits(SCAN.limited(0, 15 * np.pi / 96))


class TestPhotons:
    """Each photon of a ray goes to one of two parts."""

    def test_both_parts_are_scans_of_fewer_photons_whose_noise_is_independent(self) -> None:
        split = ByPhotons(SCAN, PHOTONS, MU_MAX)
        random = torch.Generator().manual_seed(2)
        expected = torch.linspace(40, PHOTONS, 65).expand(64, 96, 65)
        sinogram = -torch.log(torch.poisson(expected, random) / PHOTONS) / MU_MAX
        truth = -torch.log(expected / PHOTONS) / MU_MAX
        ((_, parts),) = split.fixed(sinogram, range(64))
        seen, held_out = ((MU_MAX * (rays - truth)).double() for rays in (parts.seen, parts.held_out))
        for noise, share in ((seen, 7 / 8), (held_out, 1 / 8)):  # the variance of a logarithm of n is about 1 / n
            torch.testing.assert_close(
                noise.square().mean((0, 1))[5:] * share * expected[0, 0, 5:].double(),
                torch.ones(60, dtype=torch.float64),
                rtol=0.12,
                atol=0,
            )
        correlation = (seen * held_out).mean() / (seen.square().mean() * held_out.square().mean()).sqrt()
        assert correlation.abs() < 0.01  # of 400 000 rays
        whole = (MU_MAX * (sinogram - truth)).double()
        assert (seen * whole).mean() / (seen.square().mean() * whole.square().mean()).sqrt() > 0.9
        assert abs(held_out.mean().item()) < 0.002  # 5 photons of the faintest ray are left: -log n alone is 0.1 off

    def test_rays_without_a_photon_stay_numbers(self) -> None:
        sinogram = torch.full((1, 96, 65), -math.log(0.1 / PHOTONS) / MU_MAX)
        parts = ByPhotons(SCAN, PHOTONS, MU_MAX).halves(sinogram, [0])
        assert parts.seen.isfinite().all()
        assert parts.held_out.isfinite().all()

    def test_they_differ_by_sample_epoch_and_seed_alone(self, scans: tuple[Tensor, Tensor]) -> None:
        split, sinogram = ByPhotons(SCAN, PHOTONS, MU_MAX), scans[0][:2]

        def seen(*when: int, index: tuple[int, int] = (0, 1)) -> Tensor:
            return split.drawn(sinogram, index, *when).seen

        assert torch.equal(seen(0, 1, 1), seen(0, 1, 7))
        assert torch.equal(seen(0, 1, 1)[1:], split.drawn(sinogram[1:], [1], 0, 1, 1).seen)
        for other in (seen(1, 1, 1), seen(0, 2, 1), seen(0, 1, 1, index=(2, 3))):
            assert not torch.equal(seen(0, 1, 1), other)

    def test_a_window_by_noise_knows_how_many_photons_are_left(self, scans: tuple[Tensor, Tensor]) -> None:
        one, half = model("adaptive"), model("adaptive", photons=PHOTONS / 2)
        parts = ByPhotons(SCAN, PHOTONS, MU_MAX).halves(scans[0][:1], [0])
        with torch.no_grad():
            for mine, its in zip(one.parameters(), half.parameters(), strict=True):
                mine += 0.1 * torch.randn(mine.shape, generator=torch.Generator().manual_seed(1))
                its.copy_(mine)
            found = one(parts.seen, some=parts.seen_scan)
            assert torch.equal(found, half(parts.seen))
            assert not torch.equal(found, one(parts.seen))

    def test_a_fan_beam_is_not_doubted_for_the_means_that_it_is_rebinned_to(self) -> None:
        counts = np.random.default_rng(0).poisson(PHOTONS / math.e, (1, *FAN.sinogram_shape))
        scan = torch.from_numpy(-np.log(counts / PHOTONS) / MU_MAX).float()
        for photons, doubted in ((PHOTONS / 2, False), (PHOTONS, False), (2 * PHOTONS, False), (4 * PHOTONS, True)):
            said = ByPhotons(FAN, photons, MU_MAX).doubt(scan)
            assert bool(said) == doubted
            assert "--split angles" not in said

    @pytest.mark.parametrize(("photons", "doubted"), [(PHOTONS, False), (4 * PHOTONS, True), (PHOTONS / 9, True)])
    def test_a_number_that_the_noise_does_not_bear_out_is_doubted(
        self, scans: tuple[Tensor, Tensor], photons: float, doubted: bool
    ) -> None:
        said = ByPhotons(SCAN, photons, MU_MAX).doubt(scans[0][:1])
        assert said.startswith(f"--split photons takes {photons:g} photons a ray") == doubted

    def test_so_a_fan_beam_can_be_split(self) -> None:
        fan = FanBeam(
            angles=RegularAngles(count=180, first=0.0, step=np.pi / 90),
            cells=65,
            cell_size=0.01,
            image_shape=(45, 45),
            pixel_size=0.005,
            source_to_axis=0.5,
            source_to_detector=1.0,
        )
        images = torch.from_numpy(smooth_images(4, SCAN, seed=0, widths=(0.05, 0.15)))
        random = torch.Generator().manual_seed(0)
        counts = torch.poisson(PHOTONS * torch.exp(-MU_MAX * project_fan(images, fan)), random)
        sinogram = -torch.log(counts.clamp(min=0.1) / PHOTONS) / MU_MAX
        split, index = ByPhotons(fan, PHOTONS, MU_MAX), torch.arange(4)
        cutoffs = [0.2, 0.35, 0.6, 1.0]
        true = torch.stack([(fbp(sinogram, fan, "hann", c) - images).square().mean().double() for c in cutoffs])
        alone = torch.stack([self_risk(hann(c), sinogram, index, split).mean() for c in cutoffs])
        assert alone.argmin() == true.argmin()
        with pytest.raises(ConfigError, match=r"fan beam.*--split photons"):
            ByAngles(fan)
        window = WindowConfig(kind="spline", init="hann", knots=6)
        learnable = LearnableFBP(ModelConfig(geometry=fan, window=window))
        before = (learnable(sinogram) - images).square().mean().item()
        solve(learnable, [Sample(sinogram, torch.empty(4, 0, 0), index)], split=split)  # type: ignore[arg-type]
        assert (learnable(sinogram) - images).square().mean().item() < before
