from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fbp_ray.errors import GeometryError
from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.model import fbp
from fbp_ray.split import splits

LODOPAB = ParallelBeam.lodopab()


def beam(angles: RegularAngles | tuple[float, ...], axis_offset: float = 0.0) -> ParallelBeam:
    return ParallelBeam(
        angles=angles, cells=9, cell_size=2e-3, image_shape=(6, 5), pixel_size=1e-3, axis_offset=axis_offset
    )


def test_lodopab_has_the_published_angles_cells_and_pixels() -> None:
    assert LODOPAB.sinogram_shape == (1000, 513)
    assert LODOPAB.image_shape == (362, 362)
    np.testing.assert_allclose(LODOPAB.theta, (np.arange(1000) + 0.5) * math.pi / 1000, rtol=1e-14)
    rho, cell = 0.13 * math.sqrt(2), 2 * 0.13 * math.sqrt(2) / 513
    np.testing.assert_allclose(LODOPAB.detector, -rho + (np.arange(513) + 0.5) * cell, atol=1e-15)
    assert LODOPAB.pixel_size == pytest.approx(7.18232e-4, rel=1e-6)
    assert LODOPAB.x[0] == pytest.approx(-0.13 + LODOPAB.pixel_size / 2)


@pytest.mark.parametrize("geometry", [LODOPAB, beam((0.0, 1.5, 0.3)), beam((0.5,), axis_offset=1e-3)])
def test_a_geometry_is_its_repr_and_its_json(geometry: ParallelBeam) -> None:
    assert eval(repr(geometry)) == geometry
    again = ParallelBeam.model_validate_json(geometry.model_dump_json())
    assert again == geometry
    assert hash(again) == hash(geometry)
    assert again.digest == geometry.digest


def test_geometries_that_differ_have_other_digests() -> None:
    assert len({LODOPAB.digest, LODOPAB.every(2).digest, LODOPAB.every(2, start=1).digest}) == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cells", 0),
        ("cell_size", -1.0),
        ("cell_size", math.nan),
        ("pixel_size", math.inf),
        ("image_shape", (0, 5)),
        ("angles", ()),
        ("angles", (0.0, math.nan)),
        ("axis_offset", 1.0),
        ("unknown", 1),
    ],
)
def test_what_cannot_be_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        ParallelBeam(**{**beam((0.0,)).model_dump(), field: value})


def test_a_geometry_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        LODOPAB.cells = 5  # type: ignore[misc]


def test_regular_angles_weigh_the_same_and_cover_the_half_circle() -> None:
    np.testing.assert_allclose(LODOPAB.angle_weights, math.pi / 1000, rtol=1e-9)
    full_circle = beam(RegularAngles(count=20, first=0.1, step=math.pi / 10))
    np.testing.assert_allclose(full_circle.angle_weights, math.pi / 20, rtol=1e-9)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=30))
def test_weights_are_positive_and_never_exceed_the_half_circle(angles: list[float]) -> None:
    weights = beam(tuple(angles)).angle_weights
    assert np.all(weights > 0)
    assert weights.sum() <= math.pi * (1 + 1e-6)


def test_irregular_angles_weigh_by_the_distance_to_their_neighbours() -> None:
    weights = beam((0.0, 0.4, 1.0, 2.0)).angle_weights
    gap = math.pi - 2.0
    np.testing.assert_allclose(weights, [(0.4 + gap) / 2, 0.5, 0.8, (1.0 + gap) / 2], rtol=1e-12)


def test_a_limited_angle_scan_does_not_weigh_its_ends_by_the_missing_wedge() -> None:
    wedge = LODOPAB.limited(0.5, 1.5)
    np.testing.assert_allclose(wedge.angle_weights, math.pi / 1000, rtol=1e-9)
    assert wedge.theta.min() >= 0.5
    assert wedge.theta.max() < 1.5


@pytest.mark.parametrize(("n", "start"), [(1, 0), (7, 0), (7, 6), (1000, 3)])
def test_every_keeps_each_nth_angle(n: int, start: int) -> None:
    np.testing.assert_allclose(LODOPAB.every(n, start).theta, LODOPAB.theta[start::n], rtol=1e-13)
    listed = beam(tuple(LODOPAB.theta))
    np.testing.assert_array_equal(listed.every(n, start).theta, LODOPAB.theta[start::n])


def test_selections_that_keep_nothing_say_what_there_is() -> None:
    with pytest.raises(GeometryError, match="0 <= start < 1000"):
        LODOPAB.every(2, start=1000)
    with pytest.raises(GeometryError, match=r"angles from 0\.0016"):
        LODOPAB.limited(4.0, 5.0)


def test_a_transposed_sinogram_is_recognised() -> None:
    with pytest.raises(GeometryError, match="swap its last two axes"):
        LODOPAB.check(np.zeros((2, 513, 1000)), "sinogram")
    with pytest.raises(GeometryError, match=r"362, 362\), but this one is \(512, 512\)"):
        LODOPAB.check(np.zeros((512, 512)), "image")


RANDOM = np.random.default_rng(0)
BURSTS = np.deg2rad(20 * np.arange(9)[:, None] + 0.5 * np.arange(5)).ravel()
COVERED = {
    "two turns in float32": np.linspace(0, 4 * math.pi, 80, endpoint=False).astype(np.float32),
    **{
        f"{turns} half turns, {jitter} rad of jitter": np.arange(36 * turns) * math.pi / 36
        + RANDOM.uniform(-jitter, jitter, 36 * turns)
        for turns in (4, 5, 8)
        for jitter in (1e-7, 1e-5, 1e-3)
    },
    "bursts": BURSTS,
    "random": RANDOM.uniform(0, math.pi, 100),
    "golden angle": np.mod(np.arange(50) * 1.94161, math.pi),
    "golden angle, many turns": np.arange(150) * 2.39996,
    "unsorted": RANDOM.permutation(np.arange(90) * math.pi / 90),
    "both ends": np.linspace(0, math.pi, 50),
}


@pytest.mark.parametrize("name", COVERED)
def test_weights_add_up_to_pi_whenever_the_half_circle_is_covered(name: str) -> None:
    weights = beam(tuple(COVERED[name].tolist())).angle_weights
    assert weights.sum() == pytest.approx(math.pi, rel=1e-6)
    if "turns" in name and "golden" not in name:
        np.testing.assert_allclose(weights, weights.mean(), rtol=0.1)


def test_a_missing_wedge_is_not_counted() -> None:
    wedge = np.linspace(0, 2 * math.pi / 3, 61)
    assert beam(tuple(wedge.tolist())).angle_weights.sum() == pytest.approx(61 * math.pi / 90, rel=1e-6)


GOLDEN = math.pi * (math.sqrt(5) - 1) / 2
DEGREES = [
    RegularAngles(count=180, first=0, step=1),
    RegularAngles(count=720, first=0, step=359 / 719),
    RegularAngles(count=360, first=0, step=179 / 359),
    range(0, 120, 3),
    (0, 30, 100),
    (0, 10, 20, 30),
    (0, 90),
    (90,),
    *(np.linspace(*ends) for ends in ((0, 359, 720), (0, 179, 360), (-15, 15, 25), (-15, 15, 101), (0, 30, 16))),
    *(np.linspace(*ends) for ends in ((0, 355, 72), (0, 358, 720), (0, 179.9, 1800), (180, 0, 180))),
    *(np.arange(*ends) for ends in ((0, 360, 0.7), (0, 180, 0.7), (5, 25, 0.5), (0, 180, 0.1), (0, 360, 0.05))),
    *(np.arange(*ends) for ends in ((0, 360, 1.2), (0, 360, 2.4), (0, 360, 0.07))),
    np.arange(0, 360, 0.7, dtype=np.float32),
    np.tile(np.arange(360), 2),
    *(np.arange(count) * golden for count in (20, 100, 3000) for golden in (111.246, 137.508)),
    np.mod(np.arange(1000) * 111.246, 180),
    RANDOM.uniform(0, 360, 720),
    np.sort(RANDOM.uniform(0, 180, 1000)),
]
RADIANS = [
    *(np.arange(10 * n) * 2 * math.pi / n + RANDOM.normal(0, 1e-3, 10 * n) for n in (13, 18, 36, 360, 720)),
    *(np.arange(10 * n) * 2 * math.pi / n for n in (12, 18, 100, 360, 514)),
    (np.arange(3600) * math.pi / 180)[RANDOM.random(3600) < 0.7],
    np.linspace(0, 4 * math.pi, 20),
    np.linspace(0, 20 * math.pi, 1000),
    *(np.arange(n) * step for n in (7, 100, 1000, 5000) for step in (2.3999, 2.4, 1.9416, GOLDEN, 2 * GOLDEN)),
    np.arange(4000) * math.pi / (math.pi / GOLDEN + 6),
    np.arange(4000) * GOLDEN + RANDOM.normal(0, 1e-3, 4000),
    RANDOM.uniform(0, 2 * math.pi, 720),
    RANDOM.uniform(-math.pi, math.pi, 20),
    (0.0, 1.0, 2.0),
    (-2.5, 0.0, 0.3, 1.7, 4.4),
    (-7.0, 7.0),
    (-5.0, 5.0, 0.1),
    np.deg2rad(np.arange(0, 1080, 0.7)),
]


@pytest.mark.parametrize("angles", DEGREES, ids=map(str, range(len(DEGREES))))
def test_degrees_are_asked_about(angles: RegularAngles | np.ndarray) -> None:
    with pytest.raises(ValueError, match="were degrees meant"):
        beam(angles if isinstance(angles, RegularAngles) else tuple(map(float, angles)))


@pytest.mark.parametrize("angles", RADIANS, ids=map(str, range(len(RADIANS))))
def test_radians_are_accepted_also_of_many_turns(angles: np.ndarray) -> None:
    scan = beam(tuple(map(float, angles)))
    for n in (2, 3, 7):
        fewer = scan.every(n)
        assert ParallelBeam.model_validate_json(fewer.model_dump_json()) == fewer
        np.testing.assert_allclose(np.cos(fewer.theta), np.cos(scan.theta[::n]), atol=1e-10)


def test_cells_weigh_alike_unless_opposite_rays_are_missing() -> None:
    circle = RegularAngles(count=40, first=0, step=math.pi / 20)
    assert np.all(beam(circle).cell_weights == 1)
    assert np.all(beam(circle.model_copy(update={"step": math.pi / 40}), axis_offset=5e-3).cell_weights == 1)
    for offset in (3e-3, -3e-3):
        geometry = ParallelBeam(**{**dict(beam(circle, axis_offset=offset)), "image_shape": (14, 12)})
        t, weights = geometry.detector - offset, geometry.cell_weights
        both = weights + np.interp(-t, np.sort(t), weights, left=np.nan, right=np.nan)
        np.testing.assert_allclose(both[np.isfinite(both)], 2, atol=0.05)
        assert weights.max() == pytest.approx(2)


def test_half_acquisition_that_sees_too_little_twice_is_refused() -> None:
    circle = RegularAngles(count=40, first=0, step=math.pi / 20)
    geometry = ParallelBeam(
        angles=circle, cells=70, cell_size=1e-3, image_shape=(110, 110), pixel_size=1e-3, axis_offset=25e-3
    )
    with pytest.raises(GeometryError, match=r"half acquisition.* less than 16 cells"):
        _ = geometry.cell_weights


def half_acquisition(degrees: np.ndarray, offset: float = 15e-3, pixels: int = 100) -> ParallelBeam:
    return ParallelBeam(
        angles=tuple(np.deg2rad(degrees).tolist()),
        cells=120,
        cell_size=1e-3,
        image_shape=(pixels, pixels),
        pixel_size=1e-3,
        axis_offset=offset,
    )


TURN = np.arange(360.0)
FULL_CIRCLES = {
    "one turn": TURN,
    "one and a half": np.arange(540),
    "one and a quarter": np.arange(450),
    "30 degrees more": np.arange(390),
    "one and a half, reduced": np.mod(np.arange(0, 540, 0.7), 360),
    "coarser second half": np.r_[0:180, 180:360:5],
    "random": RANDOM.uniform(0, 360, 720),
    "looks dropped": TURN[RANDOM.random(360) < 0.7],
    "gap of 8 degrees": TURN[:-7],
    "two gaps of 14 degrees": np.r_[0:90, 103:200, 213:360],
    "few": TURN[::20],
}


@pytest.mark.parametrize("cells_off", [40, -40, 35.3, 63.65])
def test_half_acquisition_far_off_the_middle_is_the_image_of_a_centred_scan(cells_off: float) -> None:
    """A disc that reaches far beyond the rays that are seen twice: within 1 % inside, and no ring where those end."""
    scan = half_acquisition(np.arange(0, 360, 0.5)).model_copy(update={"cells": 160, "axis_offset": 1e-3 * cells_off})
    reach = 0.08 + abs(scan.axis_offset)
    size = int(2e3 * reach)  # all that the detector sees
    scan = scan.model_copy(update={"image_shape": (size, size)})
    more = round(abs(2 * cells_off))
    left = 1e-3 * (cells_off - math.copysign(more / 2, cells_off))  # less than half a cell
    centred = scan.model_copy(update={"cells": 160 + more, "axis_offset": left})

    def disc(geometry: ParallelBeam) -> np.ndarray:
        chords = 2 * torch.from_numpy((reach - 1e-3) ** 2 - geometry.rays[1] ** 2).clamp(min=0).sqrt()
        return fbp(chords.float().expand(geometry.sinogram_shape), geometry, "none").numpy()

    away = np.hypot(scan.x[:, None], scan.y)
    image, inside = disc(scan), away < reach - 4e-3
    np.testing.assert_allclose(image[inside], 1, atol=0.01)
    np.testing.assert_allclose(image[inside], disc(centred)[inside], atol=8e-3)
    np.testing.assert_allclose(disc(splits(scan)[0].seen)[inside], 1, atol=0.02)


@pytest.mark.parametrize("name", FULL_CIRCLES)
def test_half_acquisition_is_right_however_the_looks_lie_on_the_circle(name: str) -> None:
    geometry = half_acquisition(FULL_CIRCLES[name])
    assert geometry.angle_weights.sum() == pytest.approx(math.pi, rel=1e-6)
    t = geometry.detector - geometry.axis_offset
    chords = 2 * torch.from_numpy(0.05**2 - t**2).clamp(min=0).sqrt()
    disc = fbp(chords.float().expand(geometry.sinogram_shape), geometry).numpy()
    inside = disc[np.hypot(geometry.x[:, None], geometry.y) < 0.045]
    assert inside.min() > 0.97
    assert inside.max() < 1.05


@pytest.mark.parametrize(
    "degrees", [np.arange(180), np.arange(234), TURN[:-20], np.r_[0:180, 187:300, 325:360], np.arange(120)]
)
def test_rays_that_are_never_seen_are_told_of(degrees: np.ndarray) -> None:
    with pytest.warns(UserWarning, match=r"farther than 0\.045 m from the axis are never seen"):
        assert np.all(half_acquisition(degrees).cell_weights == 1)
    for silent in ({"pixels": 90}, {"offset": 3e-3}, {"offset": -3e-3, "pixels": 120}):  # an object that fits
        assert np.all(half_acquisition(degrees, **silent).cell_weights == 1)  # type: ignore[arg-type]
