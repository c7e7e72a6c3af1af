from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fbp_ray.checkpoint import load_model, read_manifest
from fbp_ray.cli import parse
from fbp_ray.config import LossConfig, TrainConfig
from fbp_ray.errors import ConfigError, FbpRayError
from fbp_ray.evaluate import main as evaluate
from fbp_ray.filters import WindowConfig, build_filter
from fbp_ray.losses import composite_loss
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.run import ResolvedConfig, RunFolder
from fbp_ray.sweep import LogRange, Range, sweep
from fbp_ray.sweep.config import SweepTree, training_config
from fbp_ray.sweep.space import Space, check_space, recipe_parameters
from fbp_ray.train.cluster import own_files
from fbp_ray.train.loop import train
from fbp_ray.train.process import Process
from fbp_ray.train.program import check, resolve
from service.settings import ModelsConfig
from tests.support.checkpoints import save_checkpoint
from tests.support.scans import COARSE, write_scan
from tests.support.serving import running, settings_for

PAGE = Path(__file__).parents[1] / "docs" / "your-own-code.md"


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


@pytest.mark.usefixtures("no_sweep_report")
def test_the_example_of_the_page_is_swept_on_ray(
    cluster: None, own_code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    (own_code / "swept_windows.py").write_text(code)
    data = write_scan(tmp_path / "data")
    words = (
        f"--data.dir {data} --window.kind swept_windows:Median --window.options size=5 --loss.ms_ssim 0 "
        f"--train.epochs 1 --sweep.trials 1 --sweep.name mine --sweep.storage {tmp_path}"
    )
    found = sweep({"optim.lr": LogRange(1e-3, 1e-1)}, words.split(), "script.py")
    best = tmp_path / "mine" / "trials" / found.ranked[0].name / "best"
    assert load_model(best).filter.size == 5


NONE = dict.fromkeys(("l1", "edge", "log_mse", "local_ssim"), 0)
MORE = """
import torch
from pydantic import BaseModel, Field
from torch import nn


class Gain(nn.Module):
    class Settings(BaseModel):
        start: float = 1.0

    def __init__(self, geometry, settings):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(settings.start))

    def forward(self, image):
        return self.gain * image


class Cut(Gain):
    def forward(self, image):
        return image[:, 1:]


class Broken(Gain):
    def forward(self, image):
        return image / (1 // 0)


class Whole(Gain):
    def forward(self, image):
        return (self.gain * image).long()


class Nothing(Gain):
    def forward(self, image):
        self.gain * image


class Endless(Gain):
    def forward(self, image):
        return self.gain * image / 0


class Quarter(nn.Module):
    def __init__(self, geometry, settings):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(geometry.num_angles // 4))

    def forward(self, image):
        return self.gain.mean() * image


class Unmade(Gain):
    def __init__(self, geometry, settings):
        super().__init__(geometry, settings)
        1 // 0


class Power:
    class Settings(BaseModel):
        power: float = Field(default=1.0, gt=0)

    def __init__(self, settings):
        self.power = settings.power

    def __call__(self, prediction, target):
        return (prediction - target).abs().pow(self.power).mean()


def bias(prediction, target):
    return (prediction - target).mean((-2, -1))


def detached(prediction, target):
    return (prediction.detach() - target).abs().mean()


def each(prediction, target):
    return (prediction - target).square().mean((-2, -1))
"""


@pytest.fixture
def more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with a network, loss terms and a metric, and entry points for two of them."""
    name = f"more_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MORE)
    about = tmp_path / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        f"[fbp_ray.networks]\ngain = {name}:Gain\n[fbp_ray.losses]\npower = {name}:Power\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_a_network_a_term_and_a_metric_of_ones_own_train_and_are_evaluated(more: str, tmp_path: Path) -> None:
    data = write_scan(tmp_path / "data")
    words = (
        f"--data.dir {data} --window.kind spline --loss.ms_ssim 0 --loss.edge 0 --loss.l1 0 --train.epochs 2 "
        f"--run.name mine --run.storage {tmp_path / 'runs'} --track.to none --postprocessing.kind gain "
        f"--postprocessing.options start=0.5 --loss.own power=2 --metrics.own {more}:bias"
    ).split()
    config = parse(ResolvedConfig, [*words, "--loss.options", f'{more}:Power={{"power": 2}}'], "train")
    assert config.postprocessing.kind == f"{more}:Gain"  # what the entry point stands for
    config = resolve(config)
    assert config.postprocessing.options == {"start": 0.5}  # typed, as the manifest has them
    assert config.loss.options == {f"{more}:Power": {"power": 2.0}}
    assert config.own_code == [f"{more}:Gain", f"{more}:Power", f"{more}:bias"]
    check(config)
    folder = RunFolder(tmp_path / "runs" / "mine")
    train(folder.begin(config), folder, Process(0, 1, torch.device("cpu")), lambda event: None)
    rows = folder.read_history()
    assert rows[1]["train_loss"] == pytest.approx(2 * rows[1]["train_Power"])
    assert rows[1]["train_loss"] < rows[0]["train_loss"]  # the gain of 0.5 is learned away
    assert "validation_bias" in rows[1]
    run = tmp_path / "runs" / "mine"
    assert read_manifest(run).model.own_code == [f"{more}:Gain"]
    out = tmp_path / "out"
    given = ["--checkpoint", str(run), "--split=validation", "--hann_psnr=0.5", "--hann_ssim=0.5"]
    evaluate([*given, "--out", str(out), "--metrics.own", f"{more}:bias"])
    figures = json.loads((out / "metrics.json").read_text())
    best = min(rows, key=lambda row: row["validation_loss"])
    assert figures["learned"]["bias"] == pytest.approx(best["validation_bias"], abs=1e-6)
    with (out / "images.csv").open() as file:
        assert {row["method"] for row in csv.DictReader(file) if row["bias"]} == set(figures)


def test_a_power_of_one_is_the_mean_absolute_error(more: str) -> None:
    one, other = torch.rand(2, 5, 6), torch.rand(2, 5, 6)
    loss = composite_loss(one, other, LossConfig(l1=3, ms_ssim=0, edge=0, own={f"{more}:Power": 2}))
    assert loss.parts["Power"] == loss.parts["l1"]
    assert loss.total == pytest.approx(5 * loss.parts["l1"].item())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"loss": {"own": {"MORE:each": 1}}},
            r"MORE:each gave a tensor \(1,\) instead of a scalar",
        ),
        (
            {"metrics": {"own": ["MORE:Power"]}},
            r"MORE:Power gave a tensor \(\) instead of a figure for each",
        ),
        (
            {"loss": {"own": {"MORE:Power": 1}, "options": {"MORE:Power": {"power": 0}}}},
            "MORE:Power .power. do not hold: po",
        ),
        ({"metrics": {"own": ["MORE:bias"], "options": {"MORE:bias": {"x": 1}}}}, "bias is a function, which takes no"),
        ({"loss": {"own": {"MORE:MORE": 1}}}, "has no MORE; a loss term or a metric is"),
        ({"postprocessing": {"kind": "MORE:Cut"}}, "the network MORE:Cut made .* has to keep their shape"),
        ({"window": {"kind": "MORE:Cut"}}, r"the window MORE:Cut made \(59, 67\) of .* has to keep their shape"),
        ({"window": {"kind": "MORE:Whole"}}, "the window MORE:Whole made torch.int64 of sinograms; it has to give"),
        ({"window": {"kind": "MORE:Nothing"}}, "the window MORE:Nothing made a NoneType of sinograms"),
        (
            {"window": {"kind": "MORE:Endless"}},
            "MORE:Endless makes values of the first .* not finite; look at its code",
        ),
        (
            {"loss": {"own": {"MORE:detached": 1}, **NONE}},
            "the loss has no gradient: MORE:detached takes the prediction out",
        ),
        (
            {"window": {"kind": "MORE:Quarter"}, "target": "self"},
            r"cannot have its weights: gain is \(13,\) for 52 angles, \(15,\) for all 60",
        ),
        ({"window": {"kind": "MORE:Broken"}}, "MORE:Broken failed on the first training sample: ZeroDivisionError"),
        ({"window": {"kind": "MORE:Unmade"}}, "MORE:Unmade cannot be made: ZeroDivisionError"),
        ({"postprocessing": {"kind": "MORE:bias"}}, "a stage is a subclass of torch.nn.Module"),
    ],
)
def test_what_cannot_be_used_is_found_before_the_training(
    settings: dict[str, Any], message: str, more: str, tmp_path: Path
) -> None:
    base = {"loss": {"ms_ssim": 0}, "window": {"kind": "spline"}, "run": {"name": "x"}}
    tree = json.loads(json.dumps(base | settings).replace("MORE:", f"{more}:"))
    tree["loss"] = {"ms_ssim": 0, **tree.get("loss", {})}
    tree["data"] = {"dir": str(write_scan(tmp_path / "data", train=8, validation=1, test=1))}
    with pytest.raises(FbpRayError, match=message.replace("MORE:", f"{more}:")):
        check(ResolvedConfig.model_validate(tree))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--loss.own", "sharpness=1"), r"--loss.own.*one of your own, PACKAGE.MODULE:NAME"),
        (("--loss.own", "my_code:mse=1"), "my_code:mse would be called mse, as another is"),
        (("--metrics.own", "a:psnr"), "a:psnr would be called psnr"),
        (("--metrics.own", "a:x,b:x"), "b:x would be called x, as another is"),
        (("--loss.options", 'a:x={"size": 1}'), "options are given for a:x, which own does not name"),
        (("--loss.own", "a:x=-1"), "--loss.own"),
    ],
)
def test_names_that_cannot_be_are_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(TrainConfig, words, "train")


def test_a_sweep_searches_the_weight_of_a_term_of_ones_own(more: str) -> None:
    tree = SweepTree.model_validate({"loss": {"own": {"my.losses:Other": 1, f"{more}:Power": 1}}})
    space: Space = {"loss.own.my.losses:Other": LogRange(0.1, 10), f"loss.own.{more}:Power": Range(0, 2)}
    check_space(space, tree)
    found = recipe_parameters(space, tree)
    assert found == {"loss.own.my.losses:Other": 1, f"loss.own.{more}:Power": 1}
    config = training_config(tree, {"loss.own.my.losses:Other": 0.5})
    assert config.loss.own == {"my.losses:Other": 0.5, f"{more}:Power": 1}
    assert recipe_parameters(space, SweepTree()) is None


def test_what_is_not_installed_goes_along_to_ray(more: str, tmp_path: Path) -> None:
    assert own_files([f"{more}:Gain", f"{more}:bias", "torch.nn:Linear", "json:loads", "no_such:thing"]) == [
        str(tmp_path / f"{more}.py")
    ]
    assert own_files(["tests.support:Thing"]) == [str(Path.cwd() / "tests")]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("no_such_package.windows:Median", {}, "install the package of the module no_such_package.windows"),
        ("math:Median", {}, "math has no Median; a stage is"),
        ("math:sqrt", {}, "a stage is a subclass of torch.nn.Module"),
        ("torch.nn:Linear", {}, "cannot be made: .* CLASS"),
        ("my_windows:Median", {"size": "many"}, r"options of my_windows:Median \(size\) .* size: must be a whole"),
        ("my_windows:Median", {"sise": "3"}, "sise: there is no such setting, the nearest is size$"),
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
