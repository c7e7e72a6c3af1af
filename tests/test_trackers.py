"""Trackers: what is read back is what was logged, each epoch once, and no tracker ends a training."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fbp_ray.baseline import Baseline
from fbp_ray.cli import parse
from fbp_ray.config import TrackConfig
from fbp_ray.data import LoDoPaB
from fbp_ray.errors import ConfigError, RunError
from fbp_ray.filters import WindowConfig
from fbp_ray.model import LearnableFBP, ModelConfig, fbp
from fbp_ray.pictures import DIFFERENCE, GREY, HEADER, blank_figure, panels, scales_for, strip, window_charts
from fbp_ray.trackers import Tracker, TrackerGroup, check_trackers, open_tracker, scalars
from tests.support.scans import COARSE, write_scan

PICTURE = np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3)
SETTINGS = {"optim": {"lr": 0.01}, "recipe": "quickstart"}


def opened(
    folder: Path, to: tuple[str, ...] | str, first_epoch: int = 1, warn: Callable[[str], None] = pytest.fail
) -> Tracker:
    return open_tracker(TrackConfig.model_validate({"to": to}), folder, "name", SETTINGS, first_epoch, warn)


def read_back(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()  # 0 is all of them


class Options(BaseModel):
    """A program with trackers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    track: TrackConfig = TrackConfig()


@pytest.mark.parametrize(
    ("given", "to"),
    [
        ([], ("tensorboard",)),
        (["--track.to", "none"], ()),
        (["--track.to", "mlflow"], ("mlflow",)),
        (["--track.to", "tensorboard,mlflow"], ("tensorboard", "mlflow")),
        (["--track.to", "wandb", "--track.to", "wandb"], ("wandb",)),
    ],
)
def test_the_command_line_names_the_trackers(given: list[str], to: tuple[str, ...]) -> None:
    config = parse(Options, given, "train")
    assert config.track.to == to
    assert Options.model_validate(config.model_dump(mode="json")) == config


def test_a_file_may_name_them_as_a_word_or_a_list() -> None:
    assert TrackConfig.model_validate({"to": "none"}).to == ()
    assert TrackConfig.model_validate({"to": "mlflow,wandb"}).to == ("mlflow", "wandb")
    assert TrackConfig.model_validate({"to": ["mlflow"]}).to == ("mlflow",)
    with pytest.raises(ValidationError):
        TrackConfig.model_validate({"to": None})


@pytest.mark.parametrize("given", ["visdom", "none,mlflow", ""])
def test_an_unknown_tracker_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"track.to: must be 'tensorboard', 'mlflow' or 'wandb'"):
        parse(Options, ["--track.to", given], "train")


def test_tensorboard_shows_what_was_logged(tmp_path: Path) -> None:
    tracker = opened(tmp_path, "tensorboard")
    for epoch in (1, 2):
        tracker.log(epoch, {"train/loss": 0.5 / epoch, "lr": 1e-3}, {"reconstruction/0001": PICTURE})
    tracker.close()
    events = read_back(tmp_path)
    assert events.Tags()["scalars"] == ["train/loss", "lr"]
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 0.5), (2, 0.25)]
    assert [event.value for event in events.Scalars("lr")] == pytest.approx([1e-3, 1e-3])
    pictures = events.Images("reconstruction/0001")
    assert [(event.step, event.height, event.width) for event in pictures] == [(1, 6, 9), (2, 6, 9)]
    assert b"recipe: quickstart" in events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0]


@pytest.mark.parametrize("first_epoch", [1, 3, 4])
def test_a_resumed_run_has_each_epoch_once_in_tensorboard(tmp_path: Path, first_epoch: int) -> None:
    stopped = opened(tmp_path, "tensorboard")  # and never closed: its process is gone
    for epoch in range(1, 4):
        stopped.log(epoch, {"loss": 1.0}, {"picture": PICTURE})
    resumed = opened(tmp_path, "tensorboard", first_epoch)
    for epoch in range(first_epoch, 6):
        resumed.log(epoch, {"loss": 2.0}, {"picture": PICTURE})
    resumed.close()
    events = read_back(tmp_path)
    values = {event.step: event.value for event in events.Scalars("loss")}
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5]
    assert values == {epoch: 1.0 if epoch < first_epoch else 2.0 for epoch in range(1, 6)}
    assert [event.step for event in events.Images("picture")] == [1, 2, 3, 4, 5]
    assert len(events.Tensors("settings/text_summary")) == 1


class Server:
    """Stands for what MLflow and Weights & Biases send to: runs by identity, each a list of what was logged."""

    def __init__(self) -> None:
        self.runs: dict[str, list[Any]] = {}


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()

    class Client:
        def __init__(self, uri: str) -> None:
            self.uri = uri

        def get_experiment_by_name(self, name: str) -> None:
            assert name == "fbp-ray"

        def create_experiment(self, name: str, pictures: str | None) -> str:
            return name

        def create_run(self, experiment: str, run_name: str) -> Any:
            run = f"{run_name}-{len(server.runs)}"
            server.runs[run] = [(self.uri, experiment)]
            return SimpleNamespace(info=SimpleNamespace(run_id=run))

        def update_run(self, run: str, status: str) -> None:
            if run not in server.runs:
                raise errors.MlflowException(run)

        def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
            server.runs[run] += [*params, *((key, value, step) for key, value, _, step in metrics)]

        def log_image(self, run: str, pixels: np.ndarray, key: str, step: int) -> None:
            server.runs[run].append((key, pixels.shape, step))

        def set_terminated(self, run: str) -> None:
            server.runs[run].append("ended")

    package, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    errors: Any = ModuleType("mlflow.exceptions")
    errors.MlflowException = type("MlflowException", (Exception,), {})
    package.MlflowClient = Client  # type: ignore[attr-defined]
    entities.Metric = entities.Param = lambda *fields: fields  # type: ignore[attr-defined]
    for name, module in (("mlflow", package), ("mlflow.entities", entities), ("mlflow.exceptions", errors)):
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_LOGGING_LEVEL"):
        monkeypatch.setenv(name, "1")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return server


def test_mlflow_goes_on_with_the_same_run_and_logs_each_epoch_once(mlflow: Server, tmp_path: Path) -> None:
    tracker = opened(tmp_path, "mlflow")
    tracker.log(1, {"train/loss": 0.5}, {"window": PICTURE})
    tracker.log(2, {"train/loss": 0.4}, {})
    resumed = opened(tmp_path, "mlflow", 2)
    resumed.log(2, {"train/loss": 0.39}, {})
    resumed.log(3, {"train/loss": 0.3}, {})
    resumed.close()
    assert mlflow.runs == {
        "name-0": [
            (f"sqlite:///{tmp_path / 'mlflow.db'}", "fbp-ray"),
            ("optim.lr", "0.01"),
            ("recipe", "quickstart"),
            ("train/loss", 0.5, 1),
            ("window", (6, 9, 3), 1),
            ("train/loss", 0.4, 2),
            ("train/loss", 0.3, 3),
            "ended",
        ]
    }


def test_mlflow_uses_the_server_that_is_named(mlflow: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    opened(tmp_path, "mlflow").log(1, {"loss": 1.0}, {})
    mlflow.runs = {"other": [], **mlflow.runs}
    del mlflow.runs["name-0"]  # another server, which does not know the run
    opened(tmp_path, "mlflow", 2).log(2, {"loss": 0.5}, {})
    assert mlflow.runs["name-1"][0] == ("http://tracking:5000", "fbp-ray")
    assert mlflow.runs["name-1"][-1] == ("loss", 0.5, 2)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()

    def init(**given: Any) -> Any:
        server.runs.setdefault(given["id"], []).append((given["project"], given["name"], given["config"]))
        assert given["resume"] == "allow"
        return SimpleNamespace(
            log=lambda content, step, commit: server.runs[given["id"]].append((step, content)),
            finish=lambda: server.runs[given["id"]].append("ended"),
        )

    package: Any = ModuleType("wandb")
    package.init, package.Image, package.Settings = init, np.shape, dict
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return server


def test_weights_and_biases_goes_on_with_the_same_run_and_logs_each_epoch_once(wandb: Server, tmp_path: Path) -> None:
    tracker = opened(tmp_path, "wandb")
    tracker.log(1, {"train/loss": 0.5}, {"window": PICTURE})
    resumed = opened(tmp_path, "wandb", 1)
    resumed.log(1, {"train/loss": 0.49}, {})
    resumed.log(2, {"train/loss": 0.4}, {})
    resumed.close()
    assert list(wandb.runs.values()) == [
        [
            ("fbp-ray", "name", SETTINGS),
            (1, {"train/loss": 0.5, "window": (6, 9, 3)}),
            ("fbp-ray", "name", SETTINGS),
            (2, {"train/loss": 0.4}),
            "ended",
        ]
    ]


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr("fbp_ray.trackers.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=rf"pip install 'fbp-ray\[{name}\]'"):
        opened(tmp_path, name)
    check_trackers(TrackConfig(to=()))


class Failing:
    def __init__(self) -> None:
        self.calls = 0

    def log(self, *_: Any) -> None:
        self.calls += 1
        raise OSError("no space left on device")

    def close(self) -> None:
        raise AssertionError("it was left out")


def test_a_tracker_that_fails_is_named_once_and_the_others_go_on() -> None:
    failing, warned, kept = Failing(), list[str](), list[int]()
    working: Any = SimpleNamespace(log=lambda epoch, *_: kept.append(epoch), close=lambda: kept.append(0))
    tracker = TrackerGroup({"mlflow": failing, "tensorboard": working}, warned.append)
    for epoch in (1, 2):
        tracker.log(epoch, {}, {})
    tracker.close()
    tracker.close()
    assert (failing.calls, kept) == (1, [1, 2, 0])
    assert warned == ["mlflow failed: OSError: no space left on device; the training goes on without it"]


def test_a_tracker_that_cannot_be_opened_stops_a_new_run_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"tensorboard cannot be opened.*leave it out of --track.to"):
        opened(tmp_path / "file", "tensorboard")
    warned: list[str] = []
    resumed = opened(tmp_path / "file", "tensorboard", 2, warned.append)
    resumed.log(2, {"loss": 1.0}, {})
    assert len(warned) == 1


def test_without_trackers_nothing_is_written(tmp_path: Path) -> None:
    tracker = opened(tmp_path / "folder", "none")
    tracker.log(1, {"loss": 1.0}, {"picture": PICTURE})
    tracker.close()
    assert list(tmp_path.iterdir()) == []


def test_the_curves_have_their_names() -> None:
    row = {
        "event": "epoch",
        "epoch": 3,
        "lr": 1e-3,
        "train_loss": 0.5,
        "train_ms_ssim": 0.1,
        "validation_loss": 0.6,
        "validation_psnr": 28.5,
        "validation_ssim": 0.75,
        "samples_per_second": 40.0,
        "reading": 0.02,
        "seconds": 3.0,
    }
    baseline = Baseline(hann_psnr=28.0, hann_psnr_cutoff=0.6, hann_ssim=0.7, hann_ssim_cutoff=0.4)
    assert scalars(row, baseline) == {
        "lr": 1e-3,
        "samples_per_second": 40.0,
        "reading": 0.02,
        "seconds": 3.0,
        "train/loss": 0.5,
        "train/ms_ssim": 0.1,
        "validation/loss": 0.6,
        "validation/psnr": 28.5,
        "validation/ssim": 0.75,
        "classic/psnr_hann": 28.0,
        "gain/psnr": 0.5,
        "classic/ssim_hann": 0.7,
        "gain/ssim": pytest.approx(0.05),
    }


def test_a_strip_has_the_colours_of_the_evaluation() -> None:
    values = torch.linspace(-0.2, 0.7, 250)[:, None].expand(250, 250)  # (x, y): a column for each value
    pixels = strip(values, values, torch.full_like(values, 0.25))[HEADER + 100]
    for first, shown, (low, high, colours) in ((0, values, GREY), (3 * 256, values - 0.25, DIFFERENCE)):
        levels = (shown[:, 0].numpy() - low) / (high - low)
        assert np.array_equal(pixels[first : first + 250], matplotlib.colormaps[colours](levels, bytes=True)[:, :3])


def test_a_strip_shows_each_image_upright_on_its_scale() -> None:
    truth = torch.zeros(250, 260)  # (x, y), shown as 260 rows of 250
    truth[200, 10] = GREY.high
    learned = truth.clone()
    learned[30, 20] = DIFFERENCE.high
    pixels = strip(torch.full_like(truth, GREY.high), learned, truth)
    assert pixels.shape == (HEADER + 260, 4 * 250 + 3 * 6, 3)
    classic, shown, below, difference = (pixels[HEADER:, column * 256 : column * 256 + 250] for column in range(4))
    assert (classic == 255).all()
    assert shown[10, 200].tolist() == below[10, 200].tolist() == [255] * 3
    assert (below != 0).any(-1).sum() == 1
    assert difference[20, 30].tolist() == [0x67, 0x00, 0x1F]
    assert (difference != difference[0, 0]).any(-1).sum() == 1


@pytest.mark.parametrize("kind", ["frequency", "angle_frequency"])
def test_the_pictures_of_an_epoch_keep_their_names_and_ranges(tmp_path: Path, kind: str) -> None:
    dataset = LoDoPaB(write_scan(tmp_path / "data"), "validation", COARSE)
    window = WindowConfig.model_validate({"kind": kind, "init": "hann", "cutoff": 0.5})
    model = LearnableFBP(ModelConfig(geometry=COARSE, window=window))
    config, baseline = (
        TrackConfig(images=2, every=2),
        Baseline(hann_psnr=28.0, hann_psnr_cutoff=0.6, hann_ssim=0.7, hann_ssim_cutoff=0.5),
    )
    assert panels(model, dataset, baseline, config, 1) == {}
    first = panels(model, dataset, baseline, config, 2)
    assert list(first) == ["reconstruction/0001", "reconstruction/0003", "window"]
    sample = dataset[1]
    image = fbp(sample.observation, COARSE, "hann", 0.5)
    expected = strip(image, model(sample.observation), sample.ground_truth, "FBP, Hann 0.50")
    assert np.array_equal(first["reconstruction/0001"], expected)
    with torch.no_grad():
        model.filter.weight *= 2.5  # type: ignore[operator]
    second = panels(model, dataset, baseline, config, 4)
    for name, before in first.items():
        assert before.dtype == np.uint8
        assert second[name].shape == before.shape
        assert not np.array_equal(second[name], before)
    quarter = expected.shape[1] // 4  # the classic FBP is the same picture, whatever the others became
    assert np.array_equal(second["reconstruction/0001"][:, : quarter - 6], expected[:, : quarter - 6])
    assert list(panels(model, dataset, baseline, TrackConfig(images=0), 1)) == ["window"]


def test_the_chart_of_a_window_shows_all_of_it_below_its_legend() -> None:
    model = LearnableFBP(ModelConfig(geometry=COARSE, window=WindowConfig(kind="frequency", init="hann")))
    with torch.no_grad():
        model.filter.weight[..., 10] = -0.6  # type: ignore[index]
        model.filter.weight[..., 20] = 1.9  # type: ignore[index]
    axes = blank_figure(4, 3).subplots()
    window_charts(model.filter, COARSE.cells, [0.5])[0].draw(axes)
    low, high = axes.get_ylim()
    assert low < -0.6
    assert high > 1.4 * 1.9


def test_pictures_of_other_data_than_ct_show_their_highest_values(tmp_path: Path) -> None:
    dataset = LoDoPaB(write_scan(tmp_path / "data"), "validation", COARSE)
    model = LearnableFBP(ModelConfig(geometry=COARSE, window=WindowConfig(init="hann", cutoff=0.5, unit=1.0)))
    baseline = Baseline(hann_psnr=28.0, hann_psnr_cutoff=0.6, hann_ssim=0.7, hann_ssim_cutoff=0.5)
    (picture,) = (panels(model, dataset, baseline, TrackConfig(images=1), 1)[name] for name in ["reconstruction/0002"])
    sample = dataset[2]
    classic, high = fbp(sample.observation, COARSE, "hann", 0.5), float(f"{sample.ground_truth.quantile(0.998):.2g}")
    scales = scales_for(high)
    assert (scales[0].high, scales[1].high) == (high, pytest.approx(0.18 * high, rel=0.05))
    shown = strip(classic, model(sample.observation), sample.ground_truth, "FBP, Hann 0.50", *scales)
    assert np.array_equal(picture, shown)


@pytest.mark.filterwarnings("ignore")  # MLflow's own, about its own
def test_mlflow_itself_keeps_each_epoch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = pytest.importorskip("mlflow").MlflowClient
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    opened(tmp_path, "mlflow").log(1, {"train/loss": 0.5}, {"window": PICTURE})
    resumed = opened(tmp_path, "mlflow", 1)
    for epoch in (1, 2):
        resumed.log(epoch, {"train/loss": 0.5 / epoch}, {})
    resumed.close()
    store = client(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = store.search_runs([store.get_experiment_by_name("fbp-ray").experiment_id])
    history = store.get_metric_history(run.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.25)]
