from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from fbp_ray.checkpoint import load_model, read_manifest
from fbp_ray.cli import parse
from fbp_ray.config import TrainConfig
from fbp_ray.errors import ConfigError, FbpRayError
from fbp_ray.evaluate import main as evaluate
from fbp_ray.filters import WindowConfig, build_filter
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.run import ResolvedConfig, RunFolder
from fbp_ray.train.loop import train
from fbp_ray.train.process import Process
from fbp_ray.train.program import check
from service.settings import ModelsConfig
from tests.support.checkpoints import save_checkpoint
from tests.support.scans import COARSE, write_scan
from tests.support.serving import running, settings_for

PAGE = Path(__file__).parents[1] / "docs" / "your-own-window.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The example of the page, where Python finds it, under a name of its own."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    (tmp_path / "my_windows.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_windows", raising=False)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    return "my_windows:Median"


def test_the_example_of_the_page_trains_is_evaluated_and_loaded(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_scan(tmp_path / "data")
    tree = {
        "data": {"dir": data},
        "window": {"kind": example, "options": {"size": "5"}},
        "loss": {"ms_ssim": 0, "edge": 0},
        "train": {"epochs": 1},
        "run": {"storage": str(tmp_path / "runs"), "name": "mine"},
        "track": {"to": "none"},
    }
    config = ResolvedConfig.model_validate(tree)
    check(config)
    folder = RunFolder(tmp_path / "runs" / "mine")
    train(folder.begin(config), folder, Process(0, 1, torch.device("cpu")), lambda event: None)
    run = tmp_path / "runs" / "mine"
    assert read_manifest(run).model.window.options == {"size": "5"}
    evaluate(["--checkpoint", str(run), "--out", str(tmp_path / "out"), "--hann_psnr=0.5", "--hann_ssim=0.5"])
    assert "learned" in json.loads((tmp_path / "out" / "metrics.json").read_text())
    model = load_model(run)
    assert model.filter.size == 5
    assert torch.isfinite(model(torch.rand(2, *COARSE.sinogram_shape))).all()
    monkeypatch.delitem(sys.modules, "my_windows")
    (tmp_path / "my_windows.py").rename(tmp_path / "elsewhere.py")
    with pytest.raises(FbpRayError, match=r"my_windows:Median cannot be imported: .*install .* module my_windows"):
        load_model(run)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("no_such_package.windows:Median", {}, "install the package of the module no_such_package.windows"),
        ("math:Median", {}, "math has no Median; a stage is"),
        ("math:sqrt", {}, "a stage is a subclass of torch.nn.Module"),
        ("torch.nn:Linear", {}, "cannot be made: .* CLASS"),
        ("my_windows:Median", {"size": "many"}, r"options of my_windows:Median \(size\) .* --size: must be a whole"),
        ("my_windows:Median", {"sise": "3"}, "--sise: there is no such setting, the nearest is --size"),
    ],
)
def test_what_is_no_stage_says_what_a_stage_is(kind: str, options: dict[str, str], message: str, example: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_filter(WindowConfig(kind=kind, options=options), COARSE)


def test_options_come_with_a_window_of_ones_own_alone() -> None:
    with pytest.raises(ConfigError, match="options are those of a window of your own"):
        parse(TrainConfig, ["--window.options", "size=5"], "train")


@pytest.mark.parametrize("allowed", [False, True])
def test_the_service_runs_what_its_setting_names_alone(allowed: bool, example: str, tmp_path: Path) -> None:
    model = LearnableFBP(ModelConfig(geometry=COARSE, window=WindowConfig(kind=example)))
    save_checkpoint(tmp_path / "mine", model)
    settings = settings_for(tmp_path, models=ModelsConfig(storage=str(tmp_path), own=(example,) if allowed else ()))
    with running(settings) as client:
        answer = client.post("/models/best/activate", json={"source": str(tmp_path / "mine")})
    assert (answer.status_code == 200) == allowed
    assert allowed or ("my_windows:Median" in answer.text and "models.own" in answer.text)
