"""From counts to a data folder: the steps, the axis, the whole, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from fbp_ray.cli import parse_with_recipe
from fbp_ray.config import TrainConfig
from fbp_ray.data import LoDoPaB, geometry_of, photons_of, unit_of
from fbp_ray.errors import ConfigError, DataError, FbpRayError, RunError
from fbp_ray.model import fbp
from fbp_ray.scan import ScanConfig, main, scan
from fbp_ray.scan.axis import find_axis
from fbp_ray.scan.correct import clean, dead_pixels, filled, measure, replace_zingers
from fbp_ray.scan.program import split_rows
from fbp_ray.scan.raw import Flats, RawScan, arranged
from fbp_ray.train.parts import build_model, open_parts
from tests.support.raw_scans import Raw, simulated, write_dxchange, write_nexus, write_tiffs


@pytest.fixture(scope="module")
def raw() -> Raw:
    return simulated(rows=8, angles=90, cells=64, axis=29.3, photons=20000)


@pytest.fixture(scope="module")
def made(raw: Raw, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan")
    scan(ScanConfig(scan=write_nexus(folder / "scan.nxs", raw), out=folder / "data", pixel_size=2e-6))
    return folder / "data"


def raw_scan(projections: np.ndarray, flats: list[tuple[np.ndarray, float]], darks: np.ndarray | None) -> RawScan:
    groups = tuple(Flats(arranged(images, (0, 1, 2)), time) for images, time in flats)
    angles = np.linspace(0, math.pi, len(projections), endpoint=False)
    dark = None if darks is None else arranged(darks, (0, 1, 2))
    return RawScan(arranged(projections, (0, 1, 2)), angles, groups, dark, None, "a test")


def test_a_beam_that_fades_is_corrected_by_the_flats_before_and_after() -> None:
    passed = np.random.default_rng(0).uniform(0.2, 0.9, (10, 3, 16))
    beam = 1 - 0.03 * (np.arange(10) + 0.5) / 10
    projections = passed * 1000 * beam[:, None, None] + 50
    flats = [(np.full((3, 3, 16), 1050.0), 0.0), (np.full((3, 3, 16), 1020.0), 10.0)]
    config = ScanConfig(scan="x", out="y", correct={"zingers": 0})
    fixed = measure(raw_scan(projections, flats, np.full((2, 3, 16), 50.0)), config, slice(0, 3))
    for row in range(3):
        found = clean(projections[:, row].astype(np.float32), fixed, row, config, True)
        np.testing.assert_allclose(found.integrals, -np.log(passed[:, row]), rtol=1e-4)


def test_dead_pixels_are_filled_and_zingers_replaced_but_no_gap_that_moves() -> None:
    light = np.full((4, 30), 1000.0, np.float32)
    light[1, 7], light[2, 0], light[3, 15:17] = 0, 9000, 10
    dead = dead_pixels(light)
    assert [tuple(place) for place in np.argwhere(dead)] == [(1, 7), (2, 0), (3, 15), (3, 16)]
    ramp = np.broadcast_to(np.arange(30, dtype=np.float32), (4, 5, 30)).copy()
    broken = np.where(dead[:, None], np.float32(-1), ramp)
    expected = ramp.copy()
    expected[2, :, 0] = 1  # the nearest
    np.testing.assert_allclose(filled(broken, dead), expected)
    random = np.random.default_rng(0)
    clear = random.poisson(2000, (60, 40)) / 4000
    for angle in range(60):
        clear[angle, 10 + angle // 3] = 1.0  # a crack
    values = clear.copy()
    values[20, 30], values[0, 5], values[40, 12:14] = 3, 2, 2
    assert replace_zingers(values, 12) == 4
    assert np.flatnonzero((values != clear).any(1)).tolist() == [0, 20, 40]
    np.testing.assert_allclose(values, clear, atol=0.1)


def test_the_gain_and_the_photons_are_those_of_the_flats() -> None:
    random = np.random.default_rng(0)
    beam = np.linspace(1, 1.3, 12)[:, None, None]  # grows, which is no noise
    flats = 5.0 * random.poisson(3000 * beam, (12, 40, 50)) + 200
    fixed = measure(
        raw_scan(flats[:2], [(flats, 0.0)], np.full((1, 40, 50), 200.0)), ScanConfig(scan="x", out="y"), slice(0, 40)
    )
    assert fixed.gain == pytest.approx(5.0, rel=0.05)


@pytest.mark.parametrize(("axis", "turn"), [(29.35, 180.0), (14.6, 360.0)])
def test_the_axis_is_found_within_a_tenth_of_a_column_under_noise_and_rings(axis: float, turn: float) -> None:
    raw = simulated(rows=9, angles=180, cells=64, axis=axis, turn=turn, rings=0.02)
    passed = (raw.projections - 100.0) / (raw.flats.mean(0) - 100)
    sinograms = -np.log(np.maximum(passed, 1e-4)).transpose(1, 0, 2).astype(np.float32)
    assert find_axis(sinograms, np.deg2rad(raw.degrees)).column == pytest.approx(axis, abs=0.1)


def test_the_data_are_the_line_integrals_and_tell_their_scale(made: Path, raw: Raw) -> None:
    geometry, unit = geometry_of(made), unit_of(made)
    described = json.loads((made / "dataset.json").read_text())
    assert described["rows"] == {"train": [0, 6], "validation": [6, 7], "test": [7, 8]}
    assert geometry.sinogram_shape == (90, 64)
    assert geometry.axis_offset == pytest.approx((29.3 - 31.5) * 2e-6, abs=0.15 * 2e-6)
    rows = np.concatenate(
        [h5py.File(made / f"observation_{part}_000.hdf5")["data"][:] for part in ("train", "validation", "test")]
    )
    error = np.abs(rows * unit - raw.integrals).mean() / raw.integrals.mean()
    assert error < 0.05  # noise, and what is left of the rings
    assert photons_of(made) == pytest.approx(20000 * 1.09, rel=0.1)
    page = (made / "scan.html").read_text()
    assert "<svg" not in page
    assert "What stripe removal took away" in page
    assert not list(made.parent.glob(".*.part"))


def test_training_takes_it_with_its_own_scale(made: Path) -> None:
    config = parse_with_recipe(TrainConfig, ["--recipe", "scan", "--data.dir", str(made)], "train")
    training, validation = open_parts(config)
    assert isinstance(training, LoDoPaB)
    assert (len(training), len(validation), config.target) == (6, 1, "self")
    adaptive = config.model_copy(update={"window": config.window.model_copy(update={"kind": "adaptive"})})
    model = build_model(adaptive, training.geometry, 0.8)
    assert model.config.window.unit == unit_of(made) != 81.35858
    assert model.config.window.photons == photons_of(made)
    image = model(training[0].observation[None])[0].detach()
    assert 0.2 < float(torch.quantile(image, 0.99)) < 0.6  # as in LoDoPaB-CT, so that pictures show it


def test_the_same_scan_from_other_files_is_the_same_data(made: Path, raw: Raw, tmp_path: Path) -> None:
    for name, write in (("tiffs", write_tiffs), ("scan.h5", write_dxchange)):
        options = {"correct": {"flat": "median"}, "memory": 5e-4, "rows": (0, 4), "axis": {"column": 29.3}}
        scan(ScanConfig(scan=write(tmp_path / name, raw), out=tmp_path / f"{name}.data", **options))
    first, second = (
        (tmp_path / f"{name}.data/observation_train_000.hdf5").read_bytes() for name in ("tiffs", "scan.h5")
    )
    assert first == second


def test_rows_are_binned_to_sums(raw: Raw, tmp_path: Path) -> None:
    path = write_dxchange(tmp_path / "scan.h5", raw)
    main(
        [str(path), "--out", str(tmp_path / "data"), "--bin", "2", "--stripes.method", "none", "--axis.column", "29.3"]
    )
    geometry = geometry_of(tmp_path / "data")
    assert geometry.axis_offset == pytest.approx((29.3 - 31.5) * 1e-6)
    with h5py.File(tmp_path / "data/observation_train_000.hdf5") as file:
        binned = file["data"][0] * unit_of(tmp_path / "data")
    passed = np.exp(-raw.integrals[:2]).reshape(2, 90, 32, 2).mean((0, 3))
    np.testing.assert_allclose(binned, -np.log(passed), atol=0.12)


def test_what_is_cut_off_is_continued_to_nothing(raw: Raw, tmp_path: Path) -> None:
    cut = raw._replace(**{name: getattr(raw, name)[..., 16:44] for name in ("projections", "flats", "darks")})
    scan(ScanConfig(scan=write_dxchange(tmp_path / "scan.h5", cut), out=tmp_path / "data", axis={"column": 13.3}))
    with h5py.File(tmp_path / "data/observation_train_000.hdf5") as file:
        rows = file["data"][:]
    assert rows.shape[2] == 28 + 2 * 7
    assert np.abs(rows[..., [0, -1]]).max() < 0.06 * rows.max()
    assert "beyond the detector" in (tmp_path / "data/scan.html").read_text()


def test_half_acquisition_gives_the_whole_image_without_a_ring(tmp_path: Path) -> None:
    """A disc that goes on far beyond the short side, and one in it: chords of circles, in absolute units."""
    theta, axis = np.arange(0, 2 * math.pi, math.pi / 240), 20.3
    s, pixel = (np.arange(80) - axis)[None] * 2e-6, 2e-6

    def chords(radius: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
        away = s - x * np.cos(theta)[:, None] - y * np.sin(theta)[:, None]
        return 2 * np.sqrt(np.maximum(radius**2 - away**2, 0))

    scanned = 5000 * chords(55 * pixel) + 2500 * chords(15 * pixel, 20 * pixel, -10 * pixel)
    np.save(tmp_path / "scan.npy", np.repeat(scanned[None], 4, 0).astype(np.float32))
    np.savetxt(tmp_path / "angles.txt", np.rad2deg(theta))
    read = {"values": "integrals", "order": "sinograms", "angles": str(tmp_path / "angles.txt")}
    given: dict[str, Any] = {
        "read": read,
        "stripes": {"method": "none"},
        "correct": {"zingers": 0},
        "pixel_size": pixel,
    }
    scan(ScanConfig(scan=tmp_path / "scan.npy", out=tmp_path / "data", **given))
    geometry = geometry_of(tmp_path / "data")
    assert (geometry.cells, geometry.image_shape) == (80, (118, 118))  # nothing is made up beyond the short side
    assert geometry.axis_offset / pixel == pytest.approx(axis - 39.5, abs=0.02)
    sinogram = LoDoPaB(tmp_path / "data", "train", geometry, truth=False)[0].observation
    image = fbp(sinogram, geometry).numpy() * unit_of(tmp_path / "data")
    x, y = geometry.x[:, None] / pixel, geometry.y / pixel
    within = np.hypot(x - 20, y + 10)
    np.testing.assert_allclose(image[within < 12], 7500, rtol=0.01)
    np.testing.assert_allclose(image[(np.hypot(x, y) < 52) & (within > 18)], 5000, rtol=0.01)


def test_the_parts_are_blocks_that_make_up_all_rows() -> None:
    assert split_rows(135, (0.7, 0.15, 0.15)) == {"train": (0, 94), "validation": (94, 115), "test": (115, 135)}
    assert split_rows(3, (0.98, 0.01, 0.01)) == {"train": (0, 1), "validation": (1, 2), "test": (2, 3)}
    assert split_rows(4, (0.5, 0.5, 0.0)) == {"train": (0, 2), "validation": (2, 4)}


def test_what_cannot_be_is_refused_with_the_way_out(raw: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dark = raw._replace(projections=np.where(np.arange(90)[:, None, None] == 7, np.uint16(100), raw.projections))
    unlit = raw._replace(projections=np.full_like(raw.projections, 100))
    few = raw._replace(projections=np.where(raw.projections % 9 == 0, np.uint16(90), raw.projections))
    swapped = raw._replace(flats=raw.darks, darks=raw.flats)
    lost = raw._replace(projections=np.where(np.arange(90)[:, None, None] == 4, np.nan, raw.projections.astype("f4")))
    cases: list[tuple[Raw, dict[str, Any], type[FbpRayError], str]] = [
        (dark, {}, DataError, "1 of 90 projections are dark .* leave them out: --read.skip 7"),
        (unlit, {}, DataError, "all projections are dark"),
        (few, {}, DataError, "% of the counts are not above the darks"),
        (
            raw,
            {"read": {"values": "integrals"}},
            DataError,
            "100.0 % of the values are above 69, .* --read.values signal",
        ),
        (lost, {}, DataError, "1 of 90 projections have values that are NaN .*--read.skip 4"),
        (swapped, {}, DataError, "flats .* are no brighter than the darks .*swapped"),
        (
            raw,
            {"axis": {"column": 64}},
            ConfigError,
            "--axis.column 64 is outside the detector, whose columns are 0 to",
        ),
        (raw, {"rows": (0, 9)}, ConfigError, "the detector has 8 rows"),
        (raw, {"correct": {"flat": "interpolate"}}, ConfigError, "needs flats from before and from after"),
        (raw, {"read": {"skip": tuple(range(60, 90))}}, DataError, "less than a half circle; say .*--axis.column"),
    ]
    for number, (case, options, error, message) in enumerate(cases):
        path = write_dxchange(tmp_path / f"scan{number}.h5", case)
        with pytest.raises(error, match=message):
            scan(ScanConfig(scan=path, out=tmp_path / "data", **options))
        assert not (tmp_path / "data").exists()
    with h5py.File(tmp_path / "scan4.h5", "a") as file:
        del file["exchange/data_white"]
    with pytest.raises(DataError, match=r"has no flats .*--read\.flats.*--read\.values transmission"):
        scan(ScanConfig(scan=tmp_path / "scan4.h5", out=tmp_path / "data"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine").touch()
    with pytest.raises(ConfigError, match="holds something; choose another --out"):
        scan(ScanConfig(scan=tmp_path / "scan5.h5", out=tmp_path / "data"))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: type("", (), {"free": 1000})())
    with pytest.raises(RunError, match="GB left; choose another --out, fewer --rows, or a --bin"):
        scan(ScanConfig(scan=tmp_path / "scan5.h5", out=tmp_path / "other"))
