"""Two processes and gloo, without Ray: what they tell each other, and that their number changes no step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fbp_ray.checkpoint import load_model, read_manifest
from fbp_ray.config import TrainConfig
from fbp_ray.errors import ConfigError, RunError
from fbp_ray.run import RunFolder
from fbp_ray.train.events import EpochEnd, Event
from fbp_ray.train.loop import train
from fbp_ray.train.parts import check_shares
from fbp_ray.train.process import Process, Sums
from tests.support.scans import write_scan

CPU = torch.device("cpu")


def in_two(work: Callable[..., None], folder: Path, *more: Any) -> None:
    """Runs work(process, *more) in two processes that share a group."""
    mp.spawn(_join, args=(work, str(folder / "meeting"), more), nprocs=2)  # type: ignore[no-untyped-call]


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


def test_processes_add_up_tell_and_agree(tmp_path: Path) -> None:
    in_two(_exchange, tmp_path)


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


def _train(process: Process, config: dict[str, Any], place: str, session: str) -> None:
    train(TrainConfig.model_validate(config), RunFolder(place, session), process, lambda event: None)


@pytest.mark.parametrize(("batch_size", "target"), [(5, "truth"), (5, "self")])
def test_a_step_is_the_same_however_many_share_it(tmp_path: Path, batch_size: int, target: str) -> None:
    """5 samples at once: unequal shares of one step. 4 and then 1: a step with nothing for one of the two."""
    data = write_scan(tmp_path / "data", train=5, validation=3)
    config = settings(data, batch_size, epochs=1).model_copy(update={"target": target})
    weights, losses = [], []
    for name in ("one", "two"):
        run = RunFolder(tmp_path / name)
        run.begin(config)
        if name == "one":
            train(config, run, Process(0, 1, CPU), lambda event: None)
        else:
            in_two(_train, tmp_path, config.model_dump(mode="json"), str(run), run.session)
        weights.append(load_model(run.last).filter.weight.detach())
        losses.append(run.read_history()[-1]["validation_loss"])
    cutoffs = {read_manifest(tmp_path / name).model.window.cutoff for name in ("one", "two")}
    figure = "psnr" if target == "truth" else "risk"
    assert cutoffs == {RunFolder(tmp_path / "two").read_json("baseline.json")[f"hann_{figure}_cutoff"]}
    if batch_size == 5:
        torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-5)
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert torch.isfinite(weights[1]).all()
    assert not torch.equal(weights[1], load_model_at_start(config).filter.weight)


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
