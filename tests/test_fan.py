"""Fan beams: exact line integrals of smooth ellipses, by any scan, are to become the ellipses themselves."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fbp_ray.angles import arcs
from fbp_ray.errors import ConfigError, GeometryError
from fbp_ray.filters.adaptive import BandWindow
from fbp_ray.filters.bands import reference_bands, tile_means
from fbp_ray.filters.noise import carried_noise, log_variance
from fbp_ray.geometry import FanBeam, Geometry, ParallelBeam, RegularAngles, geometry_from
from fbp_ray.model import LearnableFBP, ModelConfig, fbp
from fbp_ray.projector import backproject, project
from fbp_ray.rebinning import rebin, rebin_transpose, rebin_variance
from fbp_ray.simulate.protocol import project_rays
from fbp_ray.split import splits
from fbp_ray.stage_settings import PostprocessingConfig, WindowConfig
from fbp_ray.train.augment import Augment

TURN = 2 * math.pi
ELLIPSES = ((0.0, 0.0, 0.06, 0.05, 20.0), (0.03, -0.02, 0.02, 0.025, 15.0), (-0.03, 0.02, 0.025, 0.018, -10.0))
"""x, y, semi-axes in metres, and the attenuation in the middle in 1/m."""


def fan(angles: Any = None, **changed: Any) -> FanBeam:
    fields: dict[str, Any] = {
        "angles": angles or RegularAngles(count=240, first=0.1, step=TURN / 240),
        "cells": 120,
        "cell_size": 3e-3,
        "image_shape": (64, 60),
        "pixel_size": 2.5e-3,
        "source_to_axis": 0.4,
        "source_to_detector": 0.7,
    }
    return FanBeam(**(fields | changed))


def image(geometry: Geometry) -> NDArray[np.float64]:
    """Ellipses that fall to 0 as (1 - r^2)^2 does: (H, W) in 1/m."""
    x, y = geometry.x[:, None], geometry.y[None]
    return sum(  # type: ignore[return-value]
        mu * np.maximum(1 - ((x - cx) / a) ** 2 - ((y - cy) / b) ** 2, 0) ** 2 for cx, cy, a, b, mu in ELLIPSES
    )


def line_integrals(geometry: Geometry, shift: float = 0.0) -> torch.Tensor:
    """Theirs, (A, D), exactly: 16/15 a b / w (1 - (t / w)^2)^(5/2), where w is an ellipse's half width and t the
    distance from its middle; all rays `shift` metres further at the axis."""
    theta, s = geometry.rays
    total = np.zeros(geometry.sinogram_shape)
    for cx, cy, a, b, mu in ELLIPSES:
        half = np.hypot(a * np.cos(theta), b * np.sin(theta))
        t = (s + shift - cx * np.cos(theta) - cy * np.sin(theta)) / half
        total += mu * 16 / 15 * a * b / half * np.maximum(1 - t**2, 0) ** 2.5
    return torch.from_numpy(total)


SHORT = math.pi + 0.52
SCANS = {
    "full circle": fan(),
    "end repeats begin": fan(RegularAngles(count=241, first=0.1, step=TURN / 240)),
    "short scan": fan(RegularAngles(count=150, first=-1.0, step=SHORT / 149)),
    "short scan across 0, in any order": fan(
        tuple(np.random.default_rng(0).permutation(np.mod(5 + np.arange(150) * SHORT / 149, TURN)).tolist())
    ),
    "450 degrees": fan(RegularAngles(count=300, first=0.0, step=TURN / 240)),
    "two turns, interlaced": fan(RegularAngles(count=361, first=0.0, step=2 * TURN / 361)),
    "golden angles": fan(tuple(np.mod(np.arange(300) * math.pi * (3 - math.sqrt(5)), TURN).tolist())),
    "curved": fan(detector="curved"),
    "an axis off the middle": fan(axis_offset=0.06),
    "odd number of cells": fan(cells=121, axis_offset=0.0004),
}


def error(scan: FanBeam, shift: float = 0.0) -> float:
    """Of the image, relative to the phantom."""
    made = fbp(line_integrals(scan, shift).float(), scan, "none").numpy()
    return float(np.linalg.norm(made - image(scan)) / np.linalg.norm(image(scan)))


@pytest.mark.parametrize("name", SCANS)
def test_an_image_is_right_in_absolute_units_whatever_the_scan(name: str) -> None:
    """A parallel beam's own image of the phantom is 0.45 % away from it."""
    assert error(SCANS[name]) < 0.006


@pytest.mark.parametrize("name", ["short scan", "an axis off the middle"])
def test_half_a_cell_shows(name: str) -> None:
    """Where opposite looks do not make up for it."""
    half = SCANS[name].parallel.cell_size / 2
    assert min(error(SCANS[name], half), error(SCANS[name], -half)) > 0.006


def test_more_looks_make_less_noise() -> None:
    noise = [rebin_variance(torch.ones(SCANS[name].sinogram_shape), SCANS[name]).mean() for name in
             ("short scan", "full circle", "450 degrees", "two turns, interlaced")]  # fmt: skip
    assert noise == sorted(noise, reverse=True)


@pytest.mark.parametrize("name", ["short scan", "an axis off the middle"])
def test_the_transpose_is_exact_and_the_kernels_are_the_reference(name: str) -> None:
    scan, random = SCANS[name], torch.Generator().manual_seed(1)
    y = torch.rand(2, *scan.sinogram_shape, generator=random, dtype=torch.float64)
    z = torch.rand(2, *scan.parallel.sinogram_shape, generator=random, dtype=torch.float64)
    forward, back = rebin(y.float(), scan), rebin_transpose(z.float(), scan)
    assert float((forward.double() * z).sum()) == pytest.approx(float((y * back).sum()), rel=1e-6)
    torch.testing.assert_close(forward.double(), rebin(y, scan), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(back.double(), rebin_transpose(z, scan), rtol=1e-5, atol=1e-5)


SMALL = fan(RegularAngles(count=12, first=0.0, step=TURN / 12), cells=9, cell_size=0.04, image_shape=(5, 4))


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_derivatives_of_any_order_and_torch_func() -> None:
    y = torch.rand(2, *SMALL.sinogram_shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: rebin(y, SMALL), y, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda y: rebin(y, SMALL) ** 2, y, fast_mode=True)
    x = torch.rand(SMALL.image_shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: project(x, SMALL), x, fast_mode=True)
    mapped = torch.func.vmap(lambda one: rebin(one, SMALL))(y)
    torch.testing.assert_close(mapped, rebin(y, SMALL))


def test_variance_is_what_independent_samples_give() -> None:
    every = torch.eye(math.prod(SMALL.sinogram_shape), dtype=torch.float64).reshape(-1, *SMALL.sinogram_shape)
    variance = torch.rand(SMALL.sinogram_shape, dtype=torch.float64)
    wanted = (rebin(every, SMALL).square() * variance.flatten()[:, None, None]).sum(0)
    torch.testing.assert_close(rebin_variance(variance, SMALL), wanted)


@pytest.mark.parametrize("name", ["full circle", "short scan"])
def test_windows_by_noise_know_the_noise_of_rebinned_rays(name: str) -> None:
    """Each band's energy is what is expected of it, and the photons are estimated as from the rays themselves."""
    scan, photons = SCANS[name], 4000.0
    clean = line_integrals(scan)[None]
    noise = torch.randn(8, *scan.sinogram_shape, generator=torch.Generator().manual_seed(0)) * torch.exp(clean / 2)
    noise = noise.double() / math.sqrt(photons)
    window = WindowConfig(kind="adaptive", unit=1.0, photons=photons)
    stage = BandWindow(window, scan.parallel, torch.float64, carried := carried_noise(scan))
    responses = (stage.bands() * stage.ramp).detach()
    energies = tile_means(reference_bands(rebin(noise, scan), responses)[:, 1:4].square()).mean(0)
    level = log_variance(rebin(clean, scan), 1.0, torch.tensor([photons]), stage.tile_level)[0]
    assert carried is not None
    density = torch.from_numpy(carried.density(np.linspace(0, 1, responses.shape[-1])))
    white = (responses[1:4].square() * density).mean(-1)
    found = (energies / 10**level).mean((1, 2)) / white
    torch.testing.assert_close(found, torch.ones(3, dtype=torch.float64), rtol=0.06, atol=0)
    estimate = BandWindow(window.model_copy(update={"photons": "estimate"}), scan.parallel, torch.float64, carried)
    assert float(estimate._photons(rebin(clean + noise, scan)).mean()) == pytest.approx(photons, rel=0.15)


def test_what_was_not_measured_is_told() -> None:
    half = fan(RegularAngles(count=100, first=0.0, step=math.pi / 100))
    with pytest.warns(UserWarning, match=r"4\.\d % of the rays were not measured.*spans 178\.2 degrees.* takes 208\."):
        rebin(torch.zeros(half.sinogram_shape), half)
    with pytest.raises(GeometryError, match="3 angles and 120 cells cannot be rebinned"):
        rebin(torch.zeros(3, 120), fan((0.0, 1.0, 2.0)))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"source_to_detector": 0.3}, "are the two exchanged"),
        ({"source_to_axis": 0.1}, "inside the image"),
        ({"cell_size": 0.1}, "in another unit"),
        ({"cell_size": 0.02, "detector": "curved"}, "in another unit"),
        ({"axis_offset": 0.2}, "falls outside the detector"),
        ({"angles": tuple(range(0, 360, 2))}, "were degrees meant"),
        ({"detector": "round"}, "'flat' or 'curved'"),
        ({"source_to_axis": math.nan}, "source_to_axis"),
    ],
)
def test_fans_that_cannot_be_are_refused_in_words(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fan(**changed)


def test_a_fan_is_its_repr_and_its_json() -> None:
    scan = fan(axis_offset=0.001, detector="curved")
    assert eval(repr(scan)) == scan
    assert geometry_from(scan.model_dump(mode="json")) == scan
    config = ModelConfig(geometry=scan)
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config
    assert isinstance(ModelConfig(geometry=scan.parallel.model_dump()).geometry, ParallelBeam)  # type: ignore[arg-type]
    assert scan.every(2).sinogram_shape == (120, 120)
    assert scan.every(2).digest != scan.digest


def test_arcs_follow_the_scan() -> None:
    steps = np.arange(30) * 0.1
    (one,) = arcs(np.mod(5 + steps, TURN))
    np.testing.assert_array_equal(one.order, np.arange(30))
    assert not one.closed
    two = arcs(np.concatenate([steps[:10], 4 + steps[:10]]))
    assert [arc.order.tolist() for arc in two] == [list(range(10)), list(range(10, 20))]
    turns = arcs(np.arange(100) * TURN / 40)
    assert [(arc.order.size, arc.closed) for arc in turns] == [(40, True), (40, True), (20, False)]


def test_projections_of_an_image_agree_with_the_exact_ones() -> None:
    scan = SCANS["an axis off the middle"]
    fine = scan.model_copy(update={"image_shape": (192, 180), "pixel_size": scan.pixel_size / 3})
    exact, phantom = line_integrals(scan).numpy(), image(fine)
    for made in (
        project(torch.from_numpy(phantom).float(), fine).numpy(),
        project_rays(phantom[None].astype("f4"), scan)[0],
    ):
        assert np.abs(made - exact).max() < 2e-3 * exact.max()


def test_a_flipped_image_has_a_flipped_sinogram() -> None:
    scan = fan(RegularAngles(count=8, first=TURN / 16, step=TURN / 8), image_shape=(20, 20))
    truth = np.random.default_rng(0).random((20, 20))
    for symmetry in Augment("all", scan, 0).symmetries:
        observation, moved = project(torch.from_numpy(truth), scan).numpy(), truth.copy()
        symmetry.apply(observation, moved)
        np.testing.assert_allclose(observation, project(torch.from_numpy(moved), scan).numpy(), atol=1e-9)
    with pytest.raises(ConfigError, match="augment"):
        Augment("flips", scan.model_copy(update={"axis_offset": 0.01}), 0)


def test_a_model_takes_it_and_can_be_exported() -> None:
    scan = fan(RegularAngles(count=40, first=0.0, step=TURN / 40), cells=30, cell_size=0.012, image_shape=(16, 16))
    sinograms = line_integrals(scan).float().expand(2, -1, -1)
    for kind in ("angle_frequency", "adaptive", "zeng"):
        model = LearnableFBP(ModelConfig(geometry=scan, window=WindowConfig(kind=kind, unit=1.0)))
        assert model(sinograms).shape == (2, 16, 16)
    start = LearnableFBP(
        ModelConfig(geometry=scan, window=WindowConfig(kind="spline"), postprocessing=PostprocessingConfig())
    )
    torch.testing.assert_close(start(sinograms), fbp(sinograms, scan, "none"), rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        program = torch.export.export(start, (sinograms,)).module()
        torch.testing.assert_close(program(sinograms), start(sinograms), rtol=1e-4, atol=1e-3)


def test_what_does_not_take_it_says_what_does() -> None:
    scan = SCANS["full circle"]
    with pytest.raises(ConfigError, match="--target truth"):
        splits(scan)
    with pytest.raises(GeometryError, match="rebin it"):
        backproject(torch.zeros(scan.sinogram_shape), scan)  # type: ignore[arg-type]
    with pytest.raises(GeometryError, match=r"\(\.\.\., 240, 120\)"), warnings.catch_warnings():
        fbp(torch.zeros(240, 119), scan)


HALF = ParallelBeam(
    angles=SMALL.angles, cells=20, cell_size=1e-3, image_shape=(14, 14), pixel_size=1e-3, axis_offset=3e-3
)


@pytest.mark.parametrize("scan", [SMALL, HALF])
def test_torch_compile_takes_what_is_rebinned_or_continued(scan: Geometry) -> None:
    assert scan.parallel.cells != scan.cells
    sinogram = torch.rand(1, *scan.sinogram_shape)
    compiled = torch.compile(lambda y: fbp(y, scan), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(sinogram), fbp(sinogram, scan))


@pytest.mark.parametrize("angles", [(0.0,), (1.0, 1.0, 1.0), (0.0, 1e-9)])
def test_angles_that_do_not_follow_each_other_are_refused_in_words(angles: tuple[float, ...]) -> None:
    with pytest.raises(GeometryError, match=rf"{len(angles)} angles are .* radians apart; give those of the whole"):
        _ = fan(angles).parallel
