"""Training a network after the window: rates, averages, positions, what is monitored; each goes on bit for bit."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from fbp_ray.checkpoint import load_model, load_training, read_manifest
from fbp_ray.config import OptimConfig, TrainConfig
from fbp_ray.errors import CheckpointError, ConfigError
from fbp_ray.geometry import RegularAngles
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.projector import project
from fbp_ray.run import ResolvedConfig, RunFolder
from fbp_ray.runs import summary
from fbp_ray.train.augment import Augment
from fbp_ray.train.events import Event, Step, Warned
from fbp_ray.train.loop import train
from fbp_ray.train.optimiser import load_moments, make_optimiser, rate_factor
from fbp_ray.train.process import Process
from fbp_ray.train.program import check
from tests.support.scans import COARSE, smooth_images, write_scan

ALONE = Process(rank=0, world_size=1, device=torch.device("cpu"))
NETWORK = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self, geometry, settings):
        super().__init__()
        first, last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)
        self.body = nn.Sequential(first, nn.BatchNorm2d(4), nn.ReLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, image):
        return image + self.body(image[:, None])[:, 0]

def worst(prediction, target):
    return (prediction - target).abs().amax((-2, -1))
"""


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("scan") / "data")


@pytest.fixture(autouse=True)
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small_network.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "small_network", raising=False)
    monkeypatch.setattr("fbp_ray.train.loop.STEP_SECONDS", 0.0)


def settings(scan: Path, **parts: dict[str, Any]) -> ResolvedConfig:
    tree: dict[str, Any] = {
        "data": {"dir": scan},
        "window": {"kind": "spline"},
        "postprocessing": {"kind": "small_network:Small"},
        "loss": {"l1": 0, "ms_ssim": 0, "edge": 0, "mse": 1},
        "optim": {"lr": 0.05, "network_lr": 0.01},
        "train": {"epochs": 3, "batch_size": 4},
        "run": {"name": "mine"},
        "track": {"to": "none"},
    }
    for name, part in parts.items():
        tree[name] = {**tree.get(name, {}), **part}
    return ResolvedConfig.model_validate(tree)


def run(folder: Path, config: ResolvedConfig, report: Any = None) -> RunFolder:
    made = RunFolder(folder)
    train(made.begin(config), made, ALONE, report or (lambda event: None))
    return made


def state(folder: Any) -> dict[str, torch.Tensor]:
    return load_model(folder).state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


EVERYTHING: dict[str, dict[str, Any]] = {
    "data": {"augment": "all"},
    "optim": {"kind": "adamw", "weight_decay": 0.1, "clip": 0.01, "schedule": "one_cycle"},
    "train": {"ema": 0.9, "checkpointing": True, "monitor": "min:worst"},
    "metrics": {"own": "small_network:worst"},
}


def test_a_run_with_everything_goes_on_bit_for_bit_and_ends_with_its_average(scan: Path, tmp_path: Path) -> None:
    config = settings(scan, **EVERYTHING)
    check(config)
    whole = run(tmp_path / "whole", config)

    def interrupt(event: Event) -> None:
        if isinstance(event, Step) and (event.epoch, event.step) == (3, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", config, interrupt)
    cut = run(tmp_path / "cut", config)
    assert same(state(whole.last), state(cut.last))
    rows = whole.read_history()
    worst = [row["validation_worst"] for row in rows]
    assert read_manifest(whole.best).epoch == 1 + worst.index(min(worst))
    assert rows[0]["network_lr"] == pytest.approx(rows[0]["lr"] / 5)
    raw = load_training(whole.last)
    average = state(whole.last)
    assert not torch.equal(raw["weights"]["filter.coefficients"], average["filter.coefficients"])
    statistics = "postprocessing.body.1.running_mean"
    assert torch.equal(raw["weights"][statistics], average[statistics])
    once = settings(scan, **{**EVERYTHING, "train": {**EVERYTHING["train"], "checkpointing": False}})
    assert same(state(run(tmp_path / "once", once).last), state(whole.last))


def test_a_network_starts_after_a_trained_window_which_may_be_frozen(scan: Path, tmp_path: Path) -> None:
    window = run(tmp_path / "window", settings(scan, postprocessing={"kind": "identity"}))
    init = {"checkpoint": str(window.last)}
    barely = {"network_lr": 1e-9}
    config = settings(scan, init=init, window={"frozen": True}, optim=barely, train={"epochs": 1})
    check(config)
    said: list[Event] = []
    made = run(tmp_path / "network", config, said.append)
    assert any(
        isinstance(event, Warned) and "has no network: the window starts from it" in event.text for event in said
    )
    assert torch.equal(state(made.last)["filter.coefficients"], state(window.last)["filter.coefficients"])
    first, before = made.read_history()[-1], window.read_history()[-1]
    assert first["validation_loss"] == pytest.approx(before["validation_loss"], rel=1e-4)  # it starts as that FBP
    assert first["lr"] == 1e-9  # the network's, which alone is trained
    assert (state(made.last)["postprocessing.body.3.weight"] != 0).any()
    with pytest.raises(ConfigError, match="a frozen window learns nothing"):
        check(settings(scan, window={"frozen": True}, postprocessing={"kind": "identity"}))
    check(settings(scan, window={"kind": "fixed"}))
    other = make_optimiser(load_model(made.last, trainable=True), OptimConfig())
    load_moments(other, load_training(window.last)["optimizer"], "window")  # the window's, which comes first
    with pytest.raises(CheckpointError, match=r"leave out --init\.optimizer"):
        load_moments(torch.optim.Adam([torch.zeros(3)]), load_training(window.last)["optimizer"], "window")


def test_best_and_the_list_of_runs_follow_what_is_monitored(scan: Path, tmp_path: Path) -> None:
    config = settings(scan, train={"monitor": "ssim", "epochs": 4}, optim={"lr": 3.0, "network_lr": 0.3})
    made = run(tmp_path / "run", config)
    ssims = [row["validation_ssim"] for row in made.read_history()]
    assert read_manifest(made.best).epoch == 1 + ssims.index(max(ssims))
    listed = summary(made.folder).ssim
    assert listed is not None
    assert listed.value == max(ssims)
    with pytest.raises(ValidationError, match=r"metrics.own has none; .*--metrics.own PACKAGE.MODULE:worst"):
        settings(scan, train={"monitor": "max:worst"})


def test_bfloat16_on_a_cpu_is_warned_of_and_changes_nothing(scan: Path, tmp_path: Path) -> None:
    said: list[Event] = []
    half = run(tmp_path / "half", settings(scan, train={"epochs": 1, "precision": "bfloat16"}), said.append)
    assert any(isinstance(event, Warned) and "trains in float32" in event.text for event in said)
    assert same(state(half.last), state(run(tmp_path / "whole", settings(scan, train={"epochs": 1})).last))
    config = ModelConfig(geometry=COARSE, postprocessing=settings(scan).postprocessing)
    model, rays = LearnableFBP(config), torch.rand(2, *COARSE.sinogram_shape)
    model.network_dtype = torch.bfloat16
    torch.nn.init.normal_(model.postprocessing.body[3].weight)
    image = model(rays)
    assert image.dtype == torch.float32
    assert not torch.equal(image, model.eval()(rays))


def test_what_decays_is_the_kernels_of_the_network(scan: Path) -> None:
    model = LearnableFBP(ModelConfig(geometry=COARSE, postprocessing=settings(scan).postprocessing))
    groups = make_optimiser(model, OptimConfig(kind="adamw", lr=1, network_lr=2)).param_groups
    found = [(group["lr"], group["weight_decay"], [tuple(p.shape) for p in group["params"]]) for group in groups]
    assert found[0][:2] == (1, 0)
    assert found[1] == (2, 0.01, [(4, 1, 3, 3), (1, 4, 3, 3)])
    assert found[2] == (2, 0, [(4,), (4,), (4,), (1,)])
    with pytest.raises(ValidationError, match="weight_decay is adamw's"):
        OptimConfig(weight_decay=0.1)


def test_one_cycle_rises_then_falls_along_a_cosine() -> None:
    config = OptimConfig(schedule="one_cycle", warm_up=0.2)
    assert [rate_factor(config, at) for at in (0.0, 0.1, 0.2)] == pytest.approx([0.04, 0.52, 1.0])
    assert rate_factor(config, 0.6) == pytest.approx((1 + 1e-3) / 2)
    assert rate_factor(config, 1.0) == pytest.approx(1e-3)


@pytest.mark.parametrize("first", [0.0, 0.5])
@pytest.mark.parametrize("turn", [1, 2])
def test_the_fbp_of_a_sample_in_another_position_is_its_image_there(first: float, turn: int) -> None:
    step = turn * math.pi / 60
    scan = COARSE.model_copy(update={"angles": RegularAngles(count=60, first=first * step, step=step)})
    image = torch.from_numpy(smooth_images(1, scan, seed=1))[0]
    model = LearnableFBP(ModelConfig(geometry=scan))
    sinogram = project(image, scan)
    reconstructed = model(sinogram).detach()
    augment = Augment("all", scan, seed=0)
    assert len(augment.symmetries) == 8
    positions = set()
    for symmetry in augment.symmetries:
        rays, there = sinogram.numpy().copy(), reconstructed.numpy().copy()
        symmetry.apply(rays, there)
        torch.testing.assert_close(model(torch.from_numpy(rays)).detach(), torch.from_numpy(there), atol=1e-5, rtol=0)
        positions.add(there.tobytes())
    assert len(positions) == 8
    drawn = [sinogram.numpy().copy() for _ in range(3)]
    for (sample, epoch), rays in zip([(3, 1), (3, 1), (3, 2)], drawn, strict=True):
        augment.draw(sample, epoch, rays, rays[:0, :0])
    assert (drawn[0] == drawn[1]).all()


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (
            "flips",
            {"angles": RegularAngles(count=15, first=math.pi / 120, step=math.pi / 15)},
            "not those of the flipped",
        ),
        ("flips", {"axis_offset": 0.001}, "not those of the flipped"),
        ("all", {"angles": RegularAngles(count=15, first=math.pi / 30, step=math.pi / 15)}, "use --data.augment flips"),
        ("all", {"image_shape": (47, 46)}, "not square; use --data.augment flips"),
    ],
)
def test_a_scan_without_the_symmetry_is_refused(kind: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Augment(kind, COARSE.model_copy(update=change), seed=0)


def test_what_is_monitored_needs_ground_truth(scan: Path, tmp_path: Path) -> None:
    blind = tmp_path / "blind"
    blind.mkdir()
    for file in scan.iterdir():
        if not file.name.startswith("ground_truth"):
            (blind / file.name).symlink_to(file)
    tree = {"data": {"dir": blind}, "target": "self", "window": {"kind": "spline"}, "train": {"monitor": "psnr"}}
    with pytest.raises(ConfigError, match=r"--train.monitor psnr needs ground truth"):
        check(ResolvedConfig.model_validate({**tree, "run": {"name": "a"}}))
    assert TrainConfig().train.monitored == "validation_loss"
