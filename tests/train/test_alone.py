"""Training without ground truth, in folders that have none, and with noise that is drawn anew."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from fbp_ray import trackers
from fbp_ray.baseline import Baseline
from fbp_ray.checkpoint import load_model, read_manifest
from fbp_ray.cli import parse
from fbp_ray.config import DataConfig, TrainConfig
from fbp_ray.data import LoDoPaB, geometry_of
from fbp_ray.data.layout import MU_MAX, check_data
from fbp_ray.doctor.machine import open_data
from fbp_ray.errors import ConfigError, DataError
from fbp_ray.evaluate import main as evaluate
from fbp_ray.metrics import psnr
from fbp_ray.model import LearnableFBP
from fbp_ray.projector import project
from fbp_ray.run import RunFolder
from fbp_ray.runs import summary
from fbp_ray.simulate.protocol import finer, project_rays
from fbp_ray.storage import open_folder
from fbp_ray.sweep.config import SweepTree
from fbp_ray.sweep.program import run_sweep
from fbp_ray.sweep.space import Choice
from fbp_ray.train.display import TrainingDisplay
from fbp_ray.train.events import Event, Step, Warned
from fbp_ray.train.loop import train
from fbp_ray.train.noise import Noise
from fbp_ray.train.parts import known_photons, open_parts, split_of
from fbp_ray.train.process import Process
from fbp_ray.train.program import beside_hann, check
from tests.support.scans import COARSE, FAN, write_scan

ALONE = Process(rank=0, world_size=1, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("scan") / "data", validation=3, photons=300)


@pytest.fixture(scope="module")
def blind(scan: Path) -> Path:
    """The same scans without ground truth."""
    folder = shutil.copytree(scan, scan.parent / "blind")
    for file in folder.glob("ground_truth_*"):
        file.unlink()
    return folder


def settings(folder: Path, **parts: Any) -> TrainConfig:
    tree: dict[str, Any] = {
        "target": "self",
        "window": {"kind": "spline", "init": "none"},
        "optim": {"lr": 0.1},
        "train": {"epochs": 2, "batch_size": 2},
        "run": {"name": "run"},
    }
    return TrainConfig.model_validate({**tree, **parts, "data": {"dir": folder, **parts.get("data", {})}})


def run(folder: Path, config: TrainConfig, report: Any = lambda event: None) -> RunFolder:
    made = RunFolder(folder)
    train(made.begin(config), made, ALONE, report)
    return made


def score(model: LearnableFBP, scan: Path) -> float:
    """Mean PSNR of the test part."""
    with torch.no_grad():
        return float(np.mean([psnr(model(y), x) for y, x, _ in LoDoPaB(scan, "test", COARSE)]))


def same(one: Path, other: Path) -> bool:
    weights = (load_model(folder / "last").state_dict() for folder in (one, other))
    first, second = weights
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(
    ("window", "split"),
    [({"kind": "adaptive", "init": "none", "photons": 300.0}, "photons"), ({"kind": "angle_frequency"}, "angles")],
)
def test_it_learns_the_same_with_and_without_files_of_ground_truth_and_goes_on_bit_for_bit(
    scan: Path, blind: Path, tmp_path: Path, window: dict[str, Any], split: str
) -> None:
    seen = run(tmp_path / "seen", settings(scan, window=window, split=split))

    def interrupt(event: Event) -> None:
        if isinstance(event, Step) and event.epoch == 2:
            raise KeyboardInterrupt

    config = settings(blind, window=window, split=split)
    check(config)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "blind", config, interrupt)
    made = run(tmp_path / "blind", config)
    assert same(tmp_path / "seen", tmp_path / "blind")
    with_figures, without = seen.read_history()[-1], made.read_history()[-1]
    assert without["validation_loss"] == with_figures["validation_loss"]
    assert {name for name in with_figures if name not in without} == {"validation_psnr", "validation_ssim"}
    learned = load_model(made.last)
    if window["kind"] == "adaptive":  # the other has too many weights for so few scans
        assert score(learned, scan) > score(LearnableFBP(learned.config), scan) + 1


def test_a_run_without_ground_truth_is_shown_listed_and_ends_with_a_verdict(
    blind: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[tuple[dict[str, float], list[str]]] = []
    monkeypatch.setattr(
        trackers.TensorBoardTracker, "log", lambda self, epoch, scalars, images: logged.append((scalars, list(images)))
    )
    with TrainingDisplay() as display:
        made = run(tmp_path / "run", settings(blind, window={"kind": "spline", "init": "hann"}), display.show)
    assert "squared error" in capsys.readouterr().out
    baseline = Baseline.model_validate(made.read_json("baseline.json"))
    assert baseline.hann_psnr is None
    assert baseline.start_cutoff == load_model(made).config.window.cutoff
    assert set(read_manifest(made.folder).metrics) == {"loss"}
    assert read_manifest(made.folder).metrics["loss"] == min(row["validation_loss"] for row in made.read_history())
    assert "judged by what is held out" in beside_hann(made)
    listed = summary(open_folder(tmp_path / "run"))
    assert (listed.epochs_done, listed.psnr, listed.ssim, listed.reason) == (2, None, None, "")
    assert "gain/psnr" not in logged[0][0]
    assert logged[0][0]["classic/risk_hann"] == baseline.hann_risk
    assert "reconstruction/0002" in logged[0][1]
    assert "12 train and 3 validation samples" in open_data(str(blind))


def test_a_solved_start_needs_no_ground_truth(scan: Path, blind: Path, tmp_path: Path) -> None:
    window = {"kind": "spline", "init": "solve", "knots": 6}
    alone = run(tmp_path / "alone", settings(blind, window=window, train={"epochs": 1, "batch_size": 4}))
    assert [row["epoch"] for row in alone.read_history()] == [0, 1]
    truth = run(
        tmp_path / "truth",
        settings(scan, target="truth", window=window, train={"epochs": 0, "batch_size": 4}, loss={"ms_ssim": 0}),
    )
    assert score(load_model(alone.best), scan) > score(load_model(truth.best), scan) - 0.3


@pytest.mark.parametrize("cache", ["memory", "half"])
def test_caches_keep_sinograms_alone(blind: Path, tmp_path: Path, cache: str) -> None:
    made = run(tmp_path / cache, settings(blind, data={"cache": cache}))
    assert len(made.read_history()) == 2


def test_what_needs_ground_truth_says_so_and_what_to_do(blind: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no ground_truth_train_\*\.hdf5; .*--target self"):
        check_data(DataConfig(dir=blind))
    with pytest.raises(DataError, match=r"no ground_truth_train_\*\.hdf5"):
        open_parts(settings(blind, target="truth"))
    with pytest.raises(ConfigError, match=r"--split photons .* not known of .*--window\.photons N.* --split angles"):
        check(settings(blind, split="photons"))
    with pytest.raises(ConfigError, match=r"are not known of .*`photons` in dataset\.json; or learn from ground truth"):
        split_of(settings(blind, split="photons"), FAN)  # whose angles cannot be held out
    loud = with_photons(blind, tmp_path / "loud", 300)
    (loud / "dataset.json").write_text((loud / "dataset.json").read_text().replace("{", '{"electronic_noise": 6, ', 1))
    with pytest.raises(ConfigError, match=r"electronic noise, which both parts would share; .*--split angles"):
        check(settings(loud, split="photons"))
    made = run(tmp_path / "run", settings(blind, train={"epochs": 1, "batch_size": 4}))
    with pytest.raises(ConfigError, match=r"--hann_psnr needs ground truth.*no ground_truth_test_\*\.hdf5"):
        evaluate(["--checkpoint", str(made), "--hann_psnr=0.5", "--hann_ssim=0.5"])
    tree = settings(blind).model_dump() | {
        "sweep": {"storage": str(tmp_path), "trials": 2},
        "run": {},
        "track": {"to": ()},
    }
    with pytest.raises(ConfigError, match=r"PSNR and SSIM.*no ground_truth_validation.*--target self"):
        run_sweep({"optim.lr": Choice(0.1, 0.2)}, SweepTree.model_validate(tree), "script.py")


class TestNoise:
    @pytest.mark.parametrize(
        ("given", "photons"),
        [
            (["--data.photons", "1024", "65536"], (1024, 65536)),
            (["--data.photons=1024,65536"], (1024, 65536)),
            (["--data.photons", "2e3"], (2000, 2000)),
            ([], None),
        ],
    )
    def test_a_range_is_two_numbers_or_one(self, given: list[str], photons: Any) -> None:
        assert parse(TrainConfig, given, "train").data.photons == photons

    def test_a_range_upside_down_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"run from 65536 to 1024; give the smaller number first: 1024 65536"):
            parse(TrainConfig, ["--data.photons", "65536", "1024"], "train")
        for given in ("few", "0.5"):
            with pytest.raises(
                ConfigError, match=rf"^--data\.photons: must be (a number|greater than or equal to 1) \(got '?{given}"
            ):
                parse(TrainConfig, ["--data.photons", given], "train")
        with pytest.raises(ConfigError, match=r"one number or two"):
            parse(TrainConfig, ["--data.photons", "1", "2", "3"], "train")

    def test_more_photons_than_measured_need_ground_truth(self, blind: Path) -> None:
        with pytest.raises(ConfigError, match=r"beyond what .* was measured with \(an unknown number of photons\)"):
            check_data(DataConfig(dir=blind, photons=(10, 20)), "self")

    @pytest.mark.parametrize(("thinned", "electronic"), [(True, 0), (False, 0), (True, 6), (False, 6)])
    def test_the_noise_is_that_of_as_many_photons_and_new_in_each_epoch(
        self, scan: Path, thinned: bool, electronic: float
    ) -> None:
        data = DataConfig(dir=scan, photons=(100, 100))
        noise = Noise(data, COARSE)
        noise.stored = 300.0 if thinned else None
        noise.electronic = electronic
        sample = LoDoPaB(scan, "train", COARSE)[0]
        truth = sample.ground_truth.numpy()

        def draw(epoch: int) -> Any:
            observation = sample.observation.numpy().copy()
            noise.draw(3, epoch, observation, truth)
            return observation

        assert np.array_equal(draw(1), draw(1))
        assert not np.array_equal(draw(1), draw(2))
        counts = np.stack([100 * np.exp(-MU_MAX * draw(epoch)) for epoch in range(200)])
        expected = 100 * np.exp(-MU_MAX * sample.observation.numpy()) if thinned else counts.mean(0)
        many = expected > 30
        np.testing.assert_allclose(counts.mean(0)[many], expected[many], rtol=0.08)
        fraction = 1 - 100 / 300 if thinned else 1.0  # binomial, or Poisson
        read_out = electronic**2 * (1 - (100 / 300) ** 2 if thinned else 1)  # a ninth is in the scan already
        assert np.mean((counts.var(0)[many] - read_out) / expected[many]) == pytest.approx(
            fraction, rel=0.1 if electronic else 0.05
        )

    def test_a_scan_that_is_projected_is_as_sharp_as_a_simulated_one(self, scan: Path) -> None:
        truth = 0.05 * np.random.default_rng(0).random(COARSE.image_shape, np.float32)
        drawn = np.empty(COARSE.sinogram_shape, np.float32)
        Noise(DataConfig(dir=scan, photons=(1e12, 1e12)), COARSE).draw(0, 1, drawn, truth)
        simulated = project_rays(finer(truth)[None], COARSE)[0]
        plain = project(torch.from_numpy(truth), COARSE).numpy()
        assert np.square(drawn - simulated).mean() < 0.4 * np.square(plain - simulated).mean()

    def test_as_many_photons_as_measured_leave_the_scan_as_it_is(self, scan: Path, tmp_path: Path) -> None:
        folder = with_photons(scan, tmp_path / "data", 300)
        noise = Noise(DataConfig(dir=folder, photons=(300, 300)), COARSE)
        sample = LoDoPaB(folder, "train", COARSE)[0]
        observation = sample.observation.numpy().copy()
        noise.draw(0, 1, observation, np.empty((0, 0), np.float32))
        np.testing.assert_allclose(observation, sample.observation, rtol=1e-5, atol=1e-7)

    def test_a_run_over_a_range_estimates_the_photons_and_is_validated_on_the_same_noise_always(
        self, scan: Path, tmp_path: Path
    ) -> None:
        folder = with_photons(scan, tmp_path / "data", 300)
        config = settings(folder, data={"photons": (50, 300)}, window={"kind": "adaptive", "init": "hann"})
        training, validation = open_parts(config)
        assert not training.truth
        assert torch.equal(validation[1].observation, validation[1].observation)
        stored = LoDoPaB(folder, "validation", geometry_of(folder))
        assert not torch.equal(validation[1].observation, stored[1].observation)

        def interrupt(event: Event) -> None:
            if isinstance(event, Step) and event.epoch == 2:
                raise KeyboardInterrupt

        run(tmp_path / "whole", config)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", config, interrupt)
        run(tmp_path / "cut", config)
        assert same(tmp_path / "whole", tmp_path / "cut")
        assert load_model(tmp_path / "cut").config.window.photons == "estimate"
        assert known_photons(settings(folder, data={"photons": 60})) == 60


def with_photons(scan: Path, folder: Path, photons: float) -> Path:
    """A copy of the scans whose description says how many photons were measured."""
    shutil.copytree(scan, folder)
    text = (scan / "dataset.json").read_text()
    (folder / "dataset.json").write_text(text.replace("{", f'{{"photons": {photons}, ', 1))
    return folder


@pytest.mark.parametrize(("unit", "values"), [(81.35858, 0.0), (1e-3, 1.0)])
def test_photons_that_cannot_be_estimated_have_to_be_told(
    blind: Path, tmp_path: Path, unit: float, values: float
) -> None:
    data = shutil.copytree(blind, tmp_path / "data")
    with h5py.File(data / "observation_train_000.hdf5", "a") as file:
        file["data"][:] *= values
    window = {"kind": "adaptive", "unit": unit}
    with pytest.raises(ConfigError, match=r"cannot be estimated .*--window.photons N.*--window.unit, now"):
        check(settings(data, window=window))
    check(settings(data, window=window | {"photons": 1000}))


def test_few_angles_are_warned_of(blind: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    run(tmp_path / "run", settings(blind, train={"epochs": 1, "batch_size": 2}), events.append)
    assert any("60 angles are few for 67 cells" in event.text for event in events if isinstance(event, Warned))
