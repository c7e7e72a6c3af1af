"""The tilt series of the package index: a signal without logarithm, whose axis lies along the rows of its images."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import h5py
import numpy as np
import pytest

from fbp_ray.errors import ConfigError
from fbp_ray.scan import SAMPLE, ScanConfig, main, sample, scan
from fbp_ray.scan.correct import clean, measure
from fbp_ray.scan.files import read_scan
from tests.support.raw_scans import Raw, simulated

BACKGROUND, SIGNAL = 30.0, 20000.0


@pytest.fixture
def series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Raw:
    """A small one, in a package in the cache."""
    raw = simulated(rows=8, angles=77, cells=64, axis=29.3, turn=154.0)
    stored = BACKGROUND + SIGNAL * raw.integrals.transpose(1, 2, 0)
    file = BytesIO()
    with h5py.File(file, "w") as inside:
        inside[SAMPLE["read"]["data"]] = stored.astype(np.float32)
        inside[SAMPLE["read"]["angles"]] = raw.degrees[:, None] - 76
    wheel = tmp_path / "cache/fbp-ray" / sample.PACKAGE.file
    wheel.parent.mkdir(parents=True)
    with ZipFile(wheel, "w") as archive:
        archive.writestr(sample.INSIDE, file.getvalue())
        archive.writestr("etspy/__init__.py", "raise SystemExit('it was run')")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sample, "PACKAGE", replace(sample.PACKAGE, sha256=digest))
    return raw


def test_the_tilt_series_becomes_data_in_proportion_to_its_signal(series: Raw, tmp_path: Path) -> None:
    own: dict[str, Any] = {"rows": (0, 8), "axis": {"column": 29.3}, "correct": {"air": 5}}
    scan(ScanConfig(sample="scan", out=tmp_path / "data", **own))
    described = json.loads((tmp_path / "data/dataset.json").read_text())
    parts = [h5py.File(tmp_path / f"data/observation_{part}_000.hdf5")["data"][:] for part in described["rows"]]
    values = np.concatenate(parts) * described["unit"]
    np.testing.assert_allclose(values, SIGNAL * series.integrals, atol=1e-4 * SIGNAL)
    assert described["photons"] is None
    assert described["geometry"]["cell_size"] == pytest.approx(3.36e-9)
    assert described["geometry"]["angles"]["first"] == pytest.approx(np.deg2rad(-76))
    assert "public domain" in described["origins"][0]["licence"]
    assert [file.name for file in (tmp_path / "cache/fbp-ray").iterdir()] == [sample.PACKAGE.file]


def test_a_sample_or_a_scan(tmp_path: Path) -> None:
    for options in (["tomo.nxs", "--sample", "scan"], []):
        with pytest.raises(ConfigError, match="name the SCAN, a file or a folder, or give --sample scan instead"):
            main([*options, "--out", str(tmp_path / "data")])
    with pytest.raises(ConfigError, match="a stack of sinograms has none"):
        main(["tomo.npy", "--out", "data", "--read.axis", "horizontal", "--read.order", "sinograms"])
    config = ScanConfig(sample="scan", out=tmp_path, axis={"rows": 3}, rows=(30, 40))
    assert (config.axis.column, config.axis.rows, config.rows) == (128.0, 3, (30, 40))


def test_what_flashes_up_in_a_signal_is_taken_out(series: Raw, tmp_path: Path) -> None:
    config = ScanConfig(sample="scan", out=tmp_path, correct={"zingers": 12.0, "air": 0})
    with ExitStack() as stack:
        raw = read_scan(config, stack)
        counts = raw.projections.read(np.arange(77), slice(2, 3))[:, 0]
        counts += np.random.default_rng(0).normal(0, 0.01 * SIGNAL, counts.shape)
        expected = counts.copy()
        counts[40, 30] += 9 * SIGNAL
        found = clean(counts, measure(raw, config, slice(0, 8)), 2, config, False)
    assert found.zingers == 1
    np.testing.assert_allclose(found.integrals, expected, atol=0.1 * SIGNAL)
