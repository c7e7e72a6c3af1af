"""Windows that are solved for: the closed form against brute force, and without ground truth against with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fbp_ray.config import StartWindowConfig
from fbp_ray.data import Sample
from fbp_ray.data.layout import MU_MAX
from fbp_ray.errors import ConfigError
from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.least_squares import solve
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.projector import project
from fbp_ray.split import ByAngles, ByPhotons, Split
from fbp_ray.stage_settings import WindowConfig

SCAN = ParallelBeam(
    angles=RegularAngles(count=120, first=0.01, step=np.pi / 120),
    cells=65,
    cell_size=0.005,
    image_shape=(45, 45),
    pixel_size=0.005,
)
PHOTONS = 3000.0


def pairs(count: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy scans of discs at random places, and their images."""
    random = torch.Generator().manual_seed(seed)
    x = torch.arange(45) - 22.0
    places = 16 * torch.rand(count, 3, 2, generator=random) - 8
    distance = (x[:, None] - places[..., 0, None, None]) ** 2 + (x - places[..., 1, None, None]) ** 2
    images = 0.08 * torch.sigmoid(2 * (8 - distance.sqrt())).sum(1)
    counts = torch.poisson(PHOTONS * torch.exp(-MU_MAX * project(images, SCAN)), random)
    return -torch.log(counts.clamp(min=0.1) / PHOTONS) / MU_MAX, images


def samples(data: tuple[Tensor, Tensor]) -> list[Sample]:
    """As a training part has them, in two batches."""
    index = torch.arange(len(data[0]))
    return [Sample(*(of[some] for of in (*data, index))) for some in (slice(3), slice(3, None))]


def model(kind: str, **more: object) -> LearnableFBP:
    window = WindowConfig.model_validate({"kind": kind, "init": "hann", "cutoff": 0.8, "photons": PHOTONS, **more})
    return LearnableFBP(ModelConfig(geometry=SCAN, window=window))


def error(model: LearnableFBP, data: tuple[Tensor, Tensor]) -> Tensor:
    return (model(data[0]) - data[1]).double().square().sum()


@pytest.mark.parametrize("kind", ["spline", "fourier_series", "frequency", "low_rank", "ray_noise", "adaptive"])
def test_the_solution_is_the_least_squared_error(kind: str) -> None:
    solved, data = model(kind, knots=8, rank=2), pairs()
    before = error(solved, data).item()
    solve(solved, samples(data))
    found = error(solved, data)
    assert found.item() < 0.95 * before
    names = {"frequency": "weight", "ray_noise": "gains", "adaptive": "gains"}
    unknowns = solved.filter.get_parameter(names.get(kind, "coefficients"))
    (slope,) = torch.autograd.grad(found, unknowns)
    with torch.no_grad():
        for step in (1e-2, -1e-2):  # no coefficient is better a little higher or lower
            for number in range(0, unknowns.numel(), 1 + unknowns.numel() // 50):
                unknowns.view(-1)[number] += step
                assert error(solved, data) > found - 1e-6 * before
                unknowns.view(-1)[number] -= step
    assert slope.abs().max() * 1e-2 < 1e-3 * before


@pytest.mark.parametrize(
    ("kind", "split"),
    [("spline", ByAngles(SCAN)), ("spline", ByPhotons(SCAN, PHOTONS, MU_MAX)), ("low_rank", ByAngles(SCAN))],
)
def test_without_ground_truth_it_is_nearly_as_good_on_other_scans(kind: str, split: Split) -> None:
    start, with_truth, without = model(kind, knots=8), model(kind, knots=8), model(kind, knots=8)
    data, others = pairs(8), pairs(8, seed=1)
    solve(with_truth, samples(data))
    solve(without, samples((data[0], torch.full_like(data[1], torch.nan))), split=split)
    with torch.no_grad():
        worst, best, found = (error(one, others).item() for one in (start, with_truth, without))
    assert found - best < 0.1 * (worst - best)


def test_what_the_data_say_nothing_about_stays_and_is_said() -> None:
    solved = model("ray_noise")
    said = solve(solved, samples(pairs()))
    assert "next to nothing about 32 of 44" in said
    never_seen = solved.filter.gains[:, 0]  # no ray of these scans has so little noise
    torch.testing.assert_close(never_seen.detach(), torch.tensor([1.0, 1.0, 1.0, 0.0])[:, None], rtol=0, atol=1e-3)


def test_other_windows_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"some hundred coefficients \(spline.*not angle_frequency"):
        solve(model("angle_frequency"), samples(pairs()))


def test_a_solved_window_starts_as_a_hann() -> None:
    window = StartWindowConfig(kind="spline", init="solve").with_best(0.7, photons=100.0)
    assert (window.init, window.cutoff, window.photons) == ("hann", 0.7, 100.0)
