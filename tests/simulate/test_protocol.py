"""The simulator's physics: line integrals against analytic ones, the noise, and agreement with genuine data."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.transform import resize

import fbp_ray
from fbp_ray.config import PHOTONS
from fbp_ray.data.layout import MU_MAX
from fbp_ray.errors import DataError, GeometryError
from fbp_ray.geometry import ParallelBeam
from fbp_ray.simulate.protocol import LANES, finer, generator, ground_truth, observe, project_rays

PAIR = Path(__file__).parents[1] / "data" / "lodopab_pair" / "lodopab_test_3456.npz"


@pytest.fixture(scope="module")
def crooked() -> ParallelBeam:
    """Irregular angles, among them those along the axes, an image that is not square, an axis that is off."""
    return ParallelBeam(
        angles=(0.0, 0.3, math.pi / 4, 1.2, math.pi / 2, 2.0, 3 * math.pi / 4, 3.0, -2.5, 4.4),
        cells=91,
        cell_size=2e-3,
        image_shape=(60, 44),
        pixel_size=2e-3,
        axis_offset=7e-3,
    )


def grid(geometry: ParallelBeam, shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The pixel centres of another sampling of the geometry's rectangle."""
    x, y = (
        ((np.arange(count) + 0.5) / count - 0.5) * size * geometry.pixel_size
        for count, size in zip(shape, geometry.image_shape, strict=True)
    )
    return x[:, None], y[None, :]


def test_line_integrals_of_a_gaussian(crooked: ParallelBeam) -> None:
    x, y = grid(crooked, (330, 250))
    centre, widths, turn = (0.008, -0.006), (0.009, 0.005), 0.4
    along = (x - centre[0]) * math.cos(turn) + (y - centre[1]) * math.sin(turn)
    across = (y - centre[1]) * math.cos(turn) - (x - centre[0]) * math.sin(turn)
    image = np.exp(-((along / widths[0]) ** 2 + (across / widths[1]) ** 2) / 2).astype(np.float32)

    theta = crooked.theta[:, None]
    s = crooked.detector - crooked.axis_offset - centre[0] * np.cos(theta) - centre[1] * np.sin(theta)
    variance = (widths[0] * np.cos(theta - turn)) ** 2 + (widths[1] * np.sin(theta - turn)) ** 2
    exact = widths[0] * widths[1] * np.sqrt(2 * np.pi / variance) * np.exp(-(s**2) / variance / 2)
    np.testing.assert_allclose(project_rays(image[None], crooked)[0], exact, atol=5e-4 * exact.max())


def test_line_integrals_of_an_ellipse(crooked: ParallelBeam) -> None:
    a, b, centre = 0.035, 0.025, (-0.01, 0.005)
    x, y = grid(crooked, (480, 352))
    parts = (np.arange(8) + 0.5) / 8 - 0.5  # 8 x 8 points a pixel: the share that lies inside
    share = np.zeros((480, 352))
    for px in parts * 0.12 / 480:
        for py in parts * 0.088 / 352:
            share += ((x + px - centre[0]) / a) ** 2 + ((y + py - centre[1]) / b) ** 2 < 1
    sinogram = project_rays((20 * share / 64).astype(np.float32)[None], crooked)[0]

    theta = crooked.theta[:, None]
    s = crooked.detector - crooked.axis_offset - centre[0] * np.cos(theta) - centre[1] * np.sin(theta)
    reach = (a * np.cos(theta)) ** 2 + (b * np.sin(theta)) ** 2
    exact = 20 * 2 * a * b * np.sqrt(np.maximum(reach - s**2, 0)) / reach
    inside = np.abs(s) < 0.97 * np.sqrt(reach)  # at its very edge the ellipse has no slope that pixels can follow
    assert np.abs(sinogram - exact)[inside].max() < 3e-3 * exact.max()
    assert np.abs(sinogram - exact)[~inside].max() < 3e-2 * exact.max()
    assert abs(sinogram.sum() / exact.sum() - 1) < 1e-3


def test_rays_beside_the_image_meet_nothing(crooked: ParallelBeam) -> None:
    sinogram = project_rays(np.ones((1, 60, 44), np.float32), crooked)[0]
    along_x = crooked.theta.tolist().index(math.pi / 2)
    y = crooked.detector - crooked.axis_offset
    np.testing.assert_allclose(sinogram[along_x][np.abs(y) < 0.043], 0.12, rtol=1e-5)
    assert not sinogram[along_x][np.abs(y) > 0.046].any()


def test_neither_threads_nor_the_batch_change_the_result(crooked: ParallelBeam) -> None:
    images = np.random.default_rng(0).random((LANES + 3, 70, 50), dtype=np.float32)
    together = project_rays(images, crooked)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        for number in (0, 5, LANES + 2):
            np.testing.assert_array_equal(project_rays(images[number : number + 1], crooked)[0], together[number])
    finally:
        torch.set_num_threads(threads)


def test_rays_are_followed_where_nothing_compiled_can_be_kept(tmp_path: Path, crooked: ParallelBeam) -> None:
    shutil.copytree(Path(fbp_ray.__file__).parent, tmp_path / "fbp_ray", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "fbp_ray" / "simulate" / "__pycache__").write_text("")  # a file: no folder can be made
    code = (
        "import numpy as np\n"
        "from fbp_ray.geometry import ParallelBeam\n"
        "from fbp_ray.simulate.protocol import project_rays\n"
        f"geometry = ParallelBeam.model_validate_json({crooked.model_dump_json()!r})\n"
        "print(project_rays(np.ones((1, 60, 44), np.float32), geometry).max() > 0.12)\n"
    )
    no_cache = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | no_cache, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_other_arrays_are_refused(crooked: ParallelBeam) -> None:
    for images in (np.zeros((60, 44), np.float32), np.zeros((1, 60, 44))):
        with pytest.raises(GeometryError, match="images should be float32"):
            project_rays(images, crooked)


@pytest.mark.parametrize("shape", [(362, 362), (13, 7), (1, 5)])
def test_the_finer_grid_is_that_of_scikit_image(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    fine = finer(image)
    assert fine.dtype == np.float32
    assert shape != (362, 362) or fine.shape == (1000, 1000)
    np.testing.assert_allclose(fine, resize(image, fine.shape, order=1), atol=1e-5)


class TestGroundTruth:
    geometry = ParallelBeam.lodopab()

    def test_it_is_cropped_and_transposed(self) -> None:
        hounsfield = np.full((512, 512), -1000, np.int16)
        hounsfield[75 + 10, 75 + 200] = 1000
        image = ground_truth(hounsfield, self.geometry, generator(0, "a"), "a")
        assert image.shape == (362, 362)
        assert image.dtype == np.float32
        assert np.argwhere(image > 0.1).tolist() == [[200, 10]]

    def test_its_values_are_attenuation_with_dither(self) -> None:
        image = ground_truth(np.zeros((512, 512), np.int16), self.geometry, generator(0, "a"), "a") * MU_MAX
        assert image.min() >= 20 - 1e-4
        assert image.max() <= 20 + 0.01998 + 1e-4
        assert abs(image.mean() - (20 + 0.01998 / 2)) < 1e-4

    def test_it_is_clipped(self) -> None:
        hounsfield = np.array([[-2000, -1024], [3071, 5000]], np.int16).repeat(200, 0).repeat(200, 1)
        image = ground_truth(hounsfield, self.geometry, generator(0, "a"), "a")
        assert (image.min(), image.max()) == (0, 1)

    def test_a_smaller_slice_gets_air_around(self) -> None:
        image = ground_truth(np.zeros((100, 400)), self.geometry, generator(0, "a"), "a") * MU_MAX
        assert (image[:, 131:231] > 19).all()
        assert (image[:, :131] < 0.05).all()
        assert (image[:, 231:] < 0.05).all()

    def test_bad_slices(self) -> None:
        hounsfield = np.zeros((512, 512))
        hounsfield[100, 100] = np.nan
        with pytest.raises(DataError, match=r"a.npz\[3\] has values that are NaN or infinite"):
            ground_truth(hounsfield, self.geometry, generator(0, "a"), "a.npz[3]")
        with pytest.raises(DataError, match=r"one slice .* shape is \(2, 512, 512\)"):
            ground_truth(np.zeros((2, 512, 512)), self.geometry, generator(0, "a"), "a")


class TestNoise:
    def test_counts_are_poisson(self) -> None:
        line = np.full((400, 500), 2.0 / MU_MAX, np.float32)
        counts = 1000 * np.exp(-MU_MAX * observe(line, 1000, generator(0, "a")).astype(np.float64))
        expected = 1000 * math.exp(-2)
        assert abs(counts.mean() / expected - 1) < 5 / math.sqrt(expected * line.size)
        assert abs(counts.var() / expected - 1) < 0.02

    def test_electronic_noise_adds_to_the_variance_of_counts_however_few(self) -> None:
        for integral, spread in ((2.0, 12.0), (12.0, 3.0)):  # 135 photons of 1000, and none
            line = np.full((400, 500), integral / MU_MAX, np.float32)
            counts = 1000 * np.exp(-MU_MAX * observe(line, 1000, generator(0, "a"), spread).astype(np.float64))
            expected = 1000 * math.exp(-integral)
            seen = counts > 0.11  # the others were below, or none
            assert seen.mean() == pytest.approx(1 if expected > 1 else 0.49, abs=0.01)
            assert np.square(counts - expected)[seen].mean() == pytest.approx(expected + spread**2, rel=0.03)

    def test_no_photon_and_one_photon(self) -> None:
        dark = observe(np.full((200, 200), 0.12, np.float32), PHOTONS, generator(0, "a"))
        levels = np.unique(dark)
        assert levels[-1] == pytest.approx(0.1305376, abs=1e-7)
        assert levels[-2] == pytest.approx(0.1022359, abs=1e-7)

    def test_streams_are_their_own(self) -> None:
        draws = {generator(seed, name).random() for seed in (0, 1) for name in ("a", "b")}
        assert len(draws) == 4
        assert generator(0, "a").random() in draws


def test_the_genuine_pair_is_reproduced() -> None:
    """The genuine observation lies around our line integrals as Poisson noise does: no bias, the right spread."""
    with np.load(PAIR, allow_pickle=False) as pair:
        image, observation = pair["ground_truth"], pair["observation"].astype(np.float64)
    line = project_rays(finer(image)[None], ParallelBeam.lodopab())[0].astype(np.float64)
    expected = PHOTONS * np.exp(-MU_MAX * line)
    counts = PHOTONS * np.exp(-MU_MAX * observation)
    deviation = (counts - expected) / np.sqrt(expected)
    assert abs(deviation.mean()) < 5 / math.sqrt(deviation.size)  # 0.007 standard deviations of one cell
    assert abs(deviation.std() - 1) < 5 / math.sqrt(2 * deviation.size)
    well_measured = expected > 500
    noise_of_the_log = 1 / (2 * expected * MU_MAX)  # the mean of -log of a Poisson number is that much too large
    bias = (observation - line - noise_of_the_log)[well_measured].mean()
    assert abs(bias) < 1e-4 * line[well_measured].mean()

    ours = observe(line.astype(np.float32), PHOTONS, generator(0, "pair"))
    ratio = (ours - line)[well_measured].std() / (observation - line)[well_measured].std()
    assert ratio == pytest.approx(1, abs=0.01)
