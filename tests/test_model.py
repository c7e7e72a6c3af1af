from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.transform import iradon

from fbp_ray.config import LossConfig
from fbp_ray.errors import ConfigError, GeometryError
from fbp_ray.filters import WindowConfig
from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.losses import composite_loss
from fbp_ray.metrics import psnr
from fbp_ray.model import LearnableFBP, ModelConfig, fbp
from fbp_ray.projector import backproject, project
from tests.support.scans import COARSE, smooth_images


def fine(angles: RegularAngles | tuple[float, ...], **changes: object) -> ParallelBeam:
    fields = {"cells": 151, "cell_size": 1e-3, "image_shape": (96, 96), "pixel_size": 1e-3, **changes}
    return ParallelBeam(angles=angles, **fields)  # type: ignore[arg-type]


REGULAR = RegularAngles(count=180, first=math.pi / 360, step=math.pi / 180)
JITTERED = tuple(((np.arange(300) + np.random.default_rng(3).uniform(-0.3, 0.3, 300)) * math.pi / 300).tolist())


@pytest.mark.parametrize(
    "geometry",
    [
        fine(REGULAR),
        fine(REGULAR, pixel_size=0.5e-3, image_shape=(160, 160)),
        fine(REGULAR, image_shape=(80, 96)),
        fine(REGULAR, axis_offset=3.3e-3),
        fine(RegularAngles(count=360, first=0.2, step=math.pi / 180)),
        fine(JITTERED),
    ],
    ids=["regular", "small pixels", "not square", "axis offset", "full circle", "irregular"],
)
def test_fbp_of_the_projection_is_the_phantom_in_absolute_units(geometry: ParallelBeam) -> None:
    phantom = torch.from_numpy(smooth_images(2, geometry, seed=5, widths=(0.18, 0.25))).double()
    reconstruction = fbp(project(phantom, geometry), geometry)
    assert (reconstruction - phantom).norm() / phantom.norm() < 0.01
    assert (reconstruction.sum() / phantom.sum()).item() == pytest.approx(1, abs=2e-3)


def test_fbp_agrees_with_scikit_image() -> None:
    geometry = fine(RegularAngles(count=180, first=0.0, step=math.pi / 180), image_shape=(151, 151))
    phantom = torch.from_numpy(smooth_images(1, geometry, seed=6)).double()
    sinogram = project(phantom, geometry)[0]
    ours = fbp(sinogram, geometry, "none").numpy()
    # Theirs has the rotation axis on cell 75 of 151 too; rows run along -sin, columns along cos, lengths are in cells.
    theirs = iradon(
        sinogram.numpy().T / geometry.cell_size, np.degrees(geometry.theta), filter_name="ramp", circle=True
    )
    inner = (geometry.x[:, None] ** 2 + geometry.y[None, :] ** 2) < 0.07**2
    turned = np.flip(theirs.T, axis=1)
    assert np.abs(ours - turned)[inner].max() < 0.01 * ours.max()
    assert np.abs(ours - theirs)[inner].max() > 0.3 * ours.max()  # the orientation matters for this phantom


def test_the_image_has_x_along_its_rows() -> None:
    image = torch.zeros(1, *COARSE.image_shape, dtype=torch.float64)
    image[0, 40, 23] = 1.0  # at large x, y = 0
    projection = project(image, COARSE)[0]
    first = projection[0]  # theta almost 0: s is almost x
    assert abs(COARSE.detector[first.argmax()] - COARSE.x[40]) < COARSE.cell_size
    middle = projection[30]  # theta about pi / 2: s is almost y
    assert abs(COARSE.detector[middle.argmax()] - COARSE.y[23]) < COARSE.cell_size


@pytest.mark.parametrize("kind", ["frequency", "angle_frequency"])
def test_the_learnable_model_starts_as_the_classic_fbp(kind: str) -> None:
    window = WindowConfig(kind=kind, init="hann", cutoff=0.8)  # type: ignore[arg-type]
    model = LearnableFBP(ModelConfig(geometry=COARSE, window=window))
    sinogram = project(torch.from_numpy(smooth_images(3, COARSE, seed=7)), COARSE)
    torch.testing.assert_close(model(sinogram), fbp(sinogram, COARSE, "hann", 0.8), rtol=1e-5, atol=1e-6)


def test_any_leading_dimensions() -> None:
    model = LearnableFBP(ModelConfig(geometry=COARSE))
    sinograms = torch.rand(2, 3, *COARSE.sinogram_shape)
    images = model(sinograms)
    assert images.shape == (2, 3, *COARSE.image_shape)
    torch.testing.assert_close(model(sinograms[1, 2]), images[1, 2], rtol=1e-4, atol=1e-5)
    assert model(sinograms[:0]).shape == (0, 3, *COARSE.image_shape)
    assert fbp(sinograms, COARSE).shape == (2, 3, *COARSE.image_shape)


def test_a_model_is_rebuilt_from_its_configuration_alone() -> None:
    config = ModelConfig(geometry=COARSE, window=WindowConfig(kind="angle_frequency", init="cosine", cutoff=0.5))
    again = LearnableFBP(ModelConfig.model_validate_json(config.model_dump_json()))
    first = LearnableFBP(config)
    sinogram = torch.rand(1, *COARSE.sinogram_shape)
    assert torch.equal(first(sinogram), again(sinogram))


def test_the_learned_weights_get_exact_gradients() -> None:
    geometry = ParallelBeam(angles=(0.1, 0.9, 2.0), cells=7, cell_size=1.0, image_shape=(4, 5), pixel_size=1.0)
    model = LearnableFBP(ModelConfig(geometry=geometry, window=WindowConfig(kind="angle_frequency"))).double()
    sinogram = torch.rand(2, 3, 7, dtype=torch.float64)

    def image_of(weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, {"filter.weight": weight}, (sinogram,))

    weight = model.filter.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(image_of, (weight,))


def test_a_sinogram_of_another_scan_is_refused() -> None:
    with pytest.raises(GeometryError, match=r"60, 67\), but this one is \(60, 66\)"):
        LearnableFBP(ModelConfig(geometry=COARSE))(torch.rand(60, 66))
    with pytest.raises(GeometryError, match="swap"):
        fbp(torch.rand(67, 60), COARSE)


def test_an_unknown_window_is_refused() -> None:
    with pytest.raises(ConfigError, match="no window is called 'hanning'"):
        fbp(torch.rand(60, 67), COARSE, "hanning")  # type: ignore[arg-type]


def test_a_sinogram_of_integers_is_refused() -> None:
    with pytest.raises(GeometryError, match="floating"):
        fbp(torch.ones(60, 67, dtype=torch.int32), COARSE)


@pytest.mark.parametrize(("cells", "offset"), [(120, 15e-3), (120, -15e-3)])
def test_half_acquisition_gives_a_disc_its_value_everywhere(cells: int, offset: float) -> None:
    angles = RegularAngles(count=720, first=0.0, step=math.pi / 360)
    geometry = fine(angles, cells=cells, image_shape=(110, 110), axis_offset=offset)
    radius = torch.from_numpy(np.hypot(geometry.x[:, None], geometry.y[None, :]))
    t = torch.from_numpy(geometry.detector) - offset
    chords = 2 * (0.05**2 - t**2).clamp(min=0).sqrt()
    image = fbp(chords.float().expand(geometry.sinogram_shape), geometry)
    for inner in np.arange(0, 0.045, 0.005):
        ring = image[(radius >= inner) & (radius < inner + 0.005)]
        assert ring.mean() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_filtered_in_float32_and_given_back(dtype: torch.dtype) -> None:
    model = LearnableFBP(ModelConfig(geometry=COARSE, window=WindowConfig(init="hann")))
    sinogram = project(torch.from_numpy(smooth_images(2, COARSE, seed=7)), COARSE)
    expected = fbp(sinogram.to(dtype).float(), COARSE)
    for image in (fbp(sinogram.to(dtype), COARSE), model(sinogram.to(dtype))):
        assert image.dtype == dtype
        torch.testing.assert_close(image.float(), expected, rtol=1e-2, atol=1e-3)
    assert project(torch.ones(COARSE.image_shape, dtype=dtype), COARSE).dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(fbp(sinogram, COARSE), fbp(sinogram, COARSE).float())


@pytest.mark.parametrize("default", [torch.float64, torch.float16, torch.bfloat16, "meta"])
def test_torchs_global_defaults_change_nothing(default: torch.dtype | str) -> None:
    sinogram = project(torch.from_numpy(smooth_images(2, COARSE, seed=7)), COARSE)
    before = fbp(sinogram, COARSE, cutoff=0.71)
    usual = torch.get_default_dtype()
    target = torch.zeros(1, 170, 170)
    loss = composite_loss(target, target + 0.1, LossConfig()).total
    try:
        torch.set_default_device(default) if isinstance(default, str) else torch.set_default_dtype(default)
        model = LearnableFBP(ModelConfig(geometry=COARSE, window=WindowConfig(init="hann", cutoff=0.7)))
        assert torch.equal(fbp(sinogram, COARSE, cutoff=0.7), model(sinogram))
        assert torch.equal(fbp(sinogram, COARSE, cutoff=0.71), before)
        assert torch.equal(project(before, COARSE).double() * 0, torch.zeros_like(sinogram).double())
        assert torch.equal(composite_loss(target, target + 0.1, LossConfig()).total, loss)
    finally:
        torch.set_default_dtype(usual)
        torch.set_default_device(None)


def test_a_numpy_array_is_refused_with_the_way_out() -> None:
    array, image = np.zeros(COARSE.sinogram_shape, np.float32), np.zeros(COARSE.image_shape, np.float32)
    model = LearnableFBP(ModelConfig(geometry=COARSE))
    for call in (
        lambda: fbp(array, COARSE),  # type: ignore[arg-type]
        lambda: model(array),
        lambda: project(image, COARSE),  # type: ignore[arg-type]
        lambda: backproject(array, COARSE),  # type: ignore[arg-type]
        lambda: psnr(image, image),  # type: ignore[arg-type]
        lambda: composite_loss(image, image, LossConfig()),  # type: ignore[arg-type]
    ):
        with pytest.raises(GeometryError, match=r"torch\.from_numpy"):
            call()
