"""Paths with `~`, and text files as other programs save them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fbp_ray.checkpoint import read_manifest
from fbp_ray.data import geometry_of
from fbp_ray.data.layout import describe
from fbp_ray.doctor import DoctorConfig
from fbp_ray.errors import CheckpointError, ConfigError, DataError
from fbp_ray.geometry import ParallelBeam
from fbp_ray.runs import RunsConfig
from fbp_ray.simulate import SimulateConfig
from fbp_ray.simulate.sources import stack_folder
from fbp_ray.storage import open_folder
from service.settings import read_settings
from tests.support.simulating import entry, write_stacks

BOM = b"\xef\xbb\xbf"
TOKEN = "a token of more than 16 characters"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestHome:
    def test_every_setting_that_is_a_path_knows_it(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = SimulateConfig.model_validate({"out": "~/o", "images": "~/i", "geometry": "~/g"})
        assert (made.out, made.images, made.geometry) == (home / "o", home / "i", home / "g")
        assert RunsConfig(storage="~/runs").storage == str(home / "runs")
        doctor = DoctorConfig.model_validate({"data": {"dir": "~/d"}, "run": {"storage": "~/runs"}})
        assert (doctor.data.dir, doctor.run.storage) == (home / "d", str(home / "runs"))
        (home / "tok").write_text(TOKEN)
        monkeypatch.setenv("FBPRAY_ACCESS__OPERATE_FILE", "~/tok")
        monkeypatch.setenv("FBPRAY_MODELS__STORAGE", "~/runs")
        settings = read_settings(["--state=~/st", "--jobs.storage=~/jobs"])
        assert [token.get_secret_value() for token in settings.access.operate] == [TOKEN]
        assert (settings.state, settings.models.storage) == (home / "st", str(home / "runs"))
        assert settings.jobs.storage == str(home / "jobs")

    def test_so_do_functions_that_take_a_folder(self, home: Path, scan: ParallelBeam) -> None:
        (home / "data").mkdir()
        (home / "data" / "dataset.json").write_text(json.dumps({"geometry": scan.model_dump(mode="json")}))
        assert geometry_of("~/data") == scan
        assert str(open_folder("~/data")) == str(home / "data")


class TestEncodings:
    def test_a_byte_order_mark_is_passed_over(self, home: Path, scan: ParallelBeam) -> None:
        (home / "dataset.json").write_bytes(BOM + json.dumps({"geometry": scan.model_dump(mode="json")}).encode())
        assert geometry_of(home) == scan
        (home / "scan.json").write_bytes(BOM + scan.model_dump_json().encode())
        assert SimulateConfig(out=home, phantoms=1, geometry=home / "scan.json").load_geometry() == scan
        index = write_stacks(home / "stacks", [entry("a.npz")]) / "index.json"
        index.write_bytes(BOM + index.read_bytes())
        assert len(stack_folder(home / "stacks").slices) == 4
        (home / ".env").write_bytes(BOM + b"FBPRAY_PORT=8123\n")
        assert read_settings([]).port == 8123

    def test_another_encoding_is_named(self, home: Path, scan: ParallelBeam) -> None:
        utf16 = f'{{"text": "{TOKEN}"}}'.encode("utf-16")
        (home / "dataset.json").write_bytes(utf16)
        with pytest.raises(DataError, match=r"dataset\.json.*save it as UTF-8"):
            describe(home)
        with pytest.raises(ConfigError, match=r"dataset\.json.*save it as UTF-8"):
            SimulateConfig(out=home, phantoms=1, geometry=home / "dataset.json").load_geometry()
        with pytest.raises(ConfigError, match=r"token file .*dataset\.json.*save it as UTF-8"):
            read_settings([f"--access.operate_file={home / 'dataset.json'}"])

    @pytest.mark.parametrize("content", ["{", "{}", "[]", '{"model": 3}'])
    def test_what_is_wrong_is_in_plain_words(self, home: Path, content: str) -> None:
        for name in ("manifest.json", "index.json", "scan.json"):
            (home / name).write_text(content)
        with pytest.raises(CheckpointError) as checkpoint:
            read_manifest(str(home))
        with pytest.raises(ConfigError) as geometry:
            SimulateConfig(out=home, phantoms=1, geometry=home / "scan.json").load_geometry()
        with pytest.raises(DataError) as index:
            stack_folder(home)
        for error in (checkpoint, geometry, index):
            assert not any(word in str(error.value) for word in ("pydantic", ": :", "Input", "Value error", "--help"))
