"""Two processes and gloo, without Ray: what they tell each other, and that their number changes no step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fbp_ray.checkpoint import load_model, read_manifest
from fbp_ray.config import TrainConfig
from fbp_ray.errors import ConfigError, RunError
from fbp_ray.run import RunFolder
from fbp_ray.stage_settings import PostprocessingConfig
from fbp_ray.train.events import EpochEnd, Event
from fbp_ray.train.loop import train
from fbp_ray.train.parts import check_shares
from fbp_ray.train.process import Process, Sums
from tests.support.scans import COARSE, write_scan

CPU = torch.device("cpu")


def _join(rank: int, work: Callable[..., None], meeting: str, more: tuple[Any, ...]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    try:
        work(Process(rank, 2, CPU), *more)
    finally:
        dist.destroy_process_group()


def _exchange(process: Process) -> None:
    assert process.add_up(torch.tensor(float(process.rank + 1))) == 3
    assert process.from_first(lambda: {"rank": process.rank}) == {"rank": 0}
    process.check_same("a number", 7)
    with pytest.raises(RunError, match=r"agree on a number: 0 in worker 0, 1 in worker 1"):
        process.check_same("a number", process.rank)
    sums = Sums(process)
    sums.add(process.rank + 1, {"loss": torch.tensor(float(process.rank))})
    assert sums.means() == {"loss": pytest.approx(2 / 3)}


def settings(data: Path, batch_size: int, epochs: int) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "data": {"dir": data},
            "window": {"kind": "frequency", "init": "hann"},
            "loss": {"l1": 1, "ms_ssim": 0, "edge": 0, "mse": 1},
            "optim": {"lr": 0.02},
            "train": {"epochs": epochs, "batch_size": batch_size},
            "track": {"to": "none"},
        }
    )


def _exchange_and_train(process: Process, runs: list[tuple[dict[str, Any], str, str]]) -> None:
    _exchange(process)
    for config, place, session in runs:
        train(TrainConfig.model_validate(config), RunFolder(place, session), process, lambda event: None)


class InTwo(NamedTuple):
    """The runs that two processes made, by what they were made for, and the configuration of each."""

    runs: dict[str, RunFolder]
    configs: dict[str, TrainConfig]


@pytest.fixture(scope="module")
def in_two(tmp_path_factory: pytest.TempPathFactory) -> InTwo:
    """Starts two processes that share a group, once for all: they exchange, then train."""
    folder = tmp_path_factory.mktemp("in_two")
    config = settings(write_scan(folder / "data", train=5, validation=3), batch_size=5, epochs=1)
    small = COARSE.model_copy(update={"image_shape": (17, 17), "pixel_size": 0.26 / 17})
    unet = settings(write_scan(folder / "small", small, train=3, validation=2), batch_size=2, epochs=2)
    configs = {target: config.model_copy(update={"target": target}) for target in ("truth", "self")}
    configs["unet"] = unet.model_copy(update={"postprocessing": PostprocessingConfig(kind="unet")})
    runs = {name: RunFolder(folder / name) for name in configs}
    for name, run in runs.items():
        run.begin(configs[name])
    words = [(configs[name].model_dump(mode="json"), str(run), run.session) for name, run in runs.items()]
    mp.spawn(_join, args=(_exchange_and_train, str(folder / "meeting"), (words,)), nprocs=2)  # type: ignore[no-untyped-call]
    return InTwo(runs, configs)


@pytest.mark.parametrize("target", ["truth", "self"])
def test_a_step_is_the_same_however_many_share_it(in_two: InTwo, tmp_path: Path, target: str) -> None:
    """5 samples at once: unequal shares of one step."""
    config, two, one = in_two.configs[target], in_two.runs[target], RunFolder(tmp_path / "one")
    one.begin(config)
    train(config, one, Process(0, 1, CPU), lambda event: None)
    figure = "psnr" if target == "truth" else "risk"
    cutoffs = {read_manifest(run.folder).model.window.cutoff for run in (one, two)}
    assert cutoffs == {two.read_json("baseline.json")[f"hann_{figure}_cutoff"]}
    weights, others = (load_model(run.last).filter.weight.detach() for run in (one, two))
    torch.testing.assert_close(weights, others, rtol=0, atol=1e-5)
    losses = [run.read_history()[-1]["validation_loss"] for run in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert torch.isfinite(others).all()
    assert not torch.equal(others, load_model_at_start(config).filter.weight)


def test_two_workers_validate_with_the_statistics_that_are_saved(in_two: InTwo) -> None:
    """Batches of 2 and 1: in the second step one of the two has nothing."""
    made, data = in_two.runs["unet"], in_two.configs["unet"].data.dir
    assert data is not None
    model = load_model(made.last)
    with h5py.File(data / "observation_validation_000.hdf5") as file:
        images = model(torch.from_numpy(file["data"][:]))
    with h5py.File(data / "ground_truth_validation_000.hdf5") as file:
        error = (images - torch.from_numpy(file["data"][:])).square().mean().item()
    assert made.read_history()[-1]["validation_mse"] == pytest.approx(error, rel=1e-4)


def load_model_at_start(config: TrainConfig) -> Any:
    from fbp_ray.data import geometry_of
    from fbp_ray.model import LearnableFBP, ModelConfig

    assert config.data.dir is not None
    return LearnableFBP(ModelConfig(geometry=geometry_of(config.data.dir), window=config.window.with_best(1.0)))


@pytest.mark.parametrize("cache", ["memory", "half"])
def test_a_run_with_a_cache_goes_on_to_the_same_weights(tmp_path: Path, cache: str) -> None:
    data = write_scan(tmp_path / "data", train=8, validation=3)
    tree = settings(data, 4, epochs=4).model_dump(mode="json")
    tree["data"]["cache"] = cache
    config = TrainConfig.model_validate(tree)
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")

    def interrupt(event: Event) -> None:
        if isinstance(event, EpochEnd) and event.row["epoch"] == 3:
            raise KeyboardInterrupt

    alone = Process(0, 1, CPU)
    whole.begin(config)
    train(config, whole, alone, lambda event: None)
    cut.begin(config)
    with pytest.raises(KeyboardInterrupt):
        train(config, cut, alone, interrupt)
    cut.begin(config)
    train(config, cut, alone, lambda event: None)
    assert torch.equal(load_model(whole.last).filter.weight, load_model(cut.last).filter.weight)


@pytest.mark.parametrize(
    ("batch", "training", "validation", "workers", "problem"),
    [
        (9, 8, 8, 1, r"--train\.batch_size 9 is more than the 8 training samples"),
        (2, 8, 8, 3, r"--train\.batch_size 2 leaves some of the 3 workers without a sample"),
        (8, 8, 2, 3, r"2 validation samples are fewer than the 3 workers"),
    ],
)
def test_a_step_that_cannot_be_shared_is_refused(
    batch: int, training: int, validation: int, workers: int, problem: str
) -> None:
    config = TrainConfig.model_validate({"train": {"batch_size": batch}})
    with pytest.raises(ConfigError, match=problem):
        check_shares(config, training, validation, workers)
    check_shares(TrainConfig(), 8, 8, 3)
