"""The training loop, written out. It runs in every training process and knows nothing of Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset

from fbp_ray.baseline import best_hann
from fbp_ray.checkpoint import (
    check_geometry,
    find_checkpoint,
    load_training,
    load_weights,
    read_manifest,
    save_checkpoint,
)
from fbp_ray.config import TrainConfig
from fbp_ray.data import LoDoPaB, Sample, describe, geometry_of
from fbp_ray.errors import ConfigError, RunError
from fbp_ray.geometry import ParallelBeam
from fbp_ray.losses import composite_loss
from fbp_ray.metrics import psnr, ssim
from fbp_ray.model import LearnableFBP, ModelConfig, fbp
from fbp_ray.run import RunFolder

CUTOFF_SAMPLES = 32  # the baseline's cut-off is chosen on so many validation samples at most


class Process(NamedTuple):
    """One of the processes that train together."""

    rank: int
    world_size: int
    device: torch.device


Report = Callable[[dict[str, Any]], None]


def train(config: TrainConfig, run: RunFolder, process: Process, report: Report) -> None:
    """Trains a `LearnableFBP` for `config.train.epochs` epochs, from the last finished one of `run` on.

    Every process calls this; with more than one, a default process group must stand. The first writes the run folder.

    Args:
        config: the run, with `data.dir` set.
        run: its folder, begun.
        process: which of the processes this is, and its device.
        report: is called in every process, with {"event": "start" | "step" | "epoch", ...}.

    Raises:
        DataError, GeometryError, ConfigError, CheckpointError: the run cannot start.
        RunError: the loss or a weight stopped being finite. The checkpoints of earlier epochs stay.
    """
    rank, world_size, device = process
    torch.manual_seed(config.train.seed)
    assert config.data.dir is not None

    geometry = geometry_of(config.data.dir)
    training_set = LoDoPaB(config.data.dir, "train", geometry, config.data.train_samples)
    validation_set = LoDoPaB(config.data.dir, "validation", geometry, config.data.validation_samples)
    sampler: DistributedSampler[Any] = DistributedSampler(
        training_set, num_replicas=world_size, rank=rank, seed=config.train.seed
    )
    training_data = DataLoader(training_set, config.train.batch_size, sampler=sampler)
    validation_data = DataLoader(_share(validation_set, process), config.train.batch_size)

    model = LearnableFBP(ModelConfig(geometry=geometry, window=config.window, postprocessing=config.postprocessing)).to(
        device
    )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"a {config.window.kind} window learns nothing; use --window.kind frequency")
    optimizer = Adam(model.parameters(), lr=config.optim.lr)
    scheduler = ReduceLROnPlateau(optimizer, factor=config.optim.plateau_factor, patience=config.optim.plateau_patience)
    history = _start(config, run, model, optimizer, scheduler)
    parallel = DistributedDataParallel(model) if world_size > 1 else model

    baseline = _baseline(run, validation_set, validation_data, geometry, process)
    steps = len(training_data)
    about_data = _about_data(config, training_set, validation_set)
    report({"event": "start", "epoch": len(history), "epochs": config.train.epochs, "steps": steps, **baseline})

    for epoch in range(len(history) + 1, config.train.epochs + 1):
        began = time.perf_counter()
        sampler.set_epoch(epoch)
        parallel.train()
        sums = _Sums(device)
        for step, batch in enumerate(training_data, start=1):
            prediction = parallel(batch.observation.to(device))
            loss = composite_loss(prediction, batch.ground_truth.to(device), config.loss)
            if not torch.isfinite(loss.total):
                raise RunError(_not_finite(epoch, step, batch, training_set, config))
            optimizer.zero_grad()
            loss.total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            sums.add(len(prediction), {"loss": loss.total.detach(), **loss.parts})
            report({"event": "step", "epoch": epoch, "step": step, "steps": steps, "loss": loss.total.item()})
        trained = sums.mean(process)
        training_seconds = time.perf_counter() - began

        validated = _validate(parallel, validation_data, config, process)
        row = {
            "epoch": epoch,
            "lr": optimizer.param_groups[0]["lr"],
            **{f"train_{name}": value for name, value in trained.items()},
            **{f"validation_{name}": value for name, value in validated.items()},
            "samples_per_second": len(sampler) * world_size / training_seconds,
            "seconds": time.perf_counter() - began,
        }
        scheduler.step(validated["loss"])
        if not all(torch.isfinite(parameter).all() for parameter in model.parameters()):
            raise RunError(f"a weight stopped being finite in epoch {epoch}; try a smaller --optim.lr")
        best_so_far = min((past["validation_loss"] for past in history), default=float("inf"))
        history.append(row)
        if rank == 0:
            about: dict[str, Any] = {"epoch": epoch, "metrics": _metrics(row), "data": about_data}
            if row["validation_loss"] < best_so_far:
                save_checkpoint(run.best, model, **about)
            state = {
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "history": history,
            }
            save_checkpoint(run.last, model, **about, training=state)
            run.write_history(history)
        report({"event": "epoch", **row})


def _start(
    config: TrainConfig, run: RunFolder, model: LearnableFBP, optimizer: Adam, scheduler: ReduceLROnPlateau
) -> list[dict[str, float]]:
    """Takes up the run where it stopped, or starts it, warm or cold; the history so far."""
    if run.resumable():
        load_weights(model, run.last, read_manifest(run.last))
        state = load_training(run.last)
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        history: list[dict[str, float]] = state["history"]
        return history
    if config.init.checkpoint is not None:
        folder = find_checkpoint(config.init.checkpoint)
        check_geometry(folder, model.geometry)
        load_weights(model, folder, read_manifest(folder))
        if config.init.optimizer:
            optimizer.load_state_dict(load_training(folder)["optimizer"])
            for group in optimizer.param_groups:
                group["lr"] = config.optim.lr
    return []


def _validate(model: nn.Module, data: DataLoader[Sample], config: TrainConfig, process: Process) -> dict[str, float]:
    """The loss, its parts, PSNR and SSIM over the whole validation part, the same in every process."""
    model.eval()
    sums = _Sums(process.device)
    with torch.no_grad():
        for batch in data:
            target = batch.ground_truth.to(process.device)
            prediction = model(batch.observation.to(process.device))
            loss = composite_loss(prediction, target, config.loss)
            figures = {"psnr": psnr(prediction, target).mean(), "ssim": ssim(prediction, target).mean()}
            sums.add(len(prediction), {"loss": loss.total, **loss.parts, **figures})
    return sums.mean(process)


def _baseline(
    run: RunFolder, dataset: LoDoPaB, data: DataLoader[Sample], geometry: ParallelBeam, process: Process
) -> dict[str, float]:
    """PSNR and SSIM of the classic FBP on the validation part: the Hann best for each, with its cut-off."""
    known = run.read_json("baseline.json")
    if known is not None:
        return known
    mine = range(process.rank, min(CUTOFF_SAMPLES, len(dataset)), process.world_size)
    chosen = DataLoader(Subset(dataset, mine), data.batch_size)

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in chosen:
            yield batch.observation.to(process.device), batch.ground_truth.to(process.device)

    def over_processes(sums: Tensor) -> Tensor:
        if process.world_size > 1:
            dist.all_reduce(sums)
        return sums

    cutoffs = best_hann(pairs, geometry, over_processes)
    sums = _Sums(process.device)
    with torch.no_grad():
        for batch in data:
            observation, target = batch.observation.to(process.device), batch.ground_truth.to(process.device)
            figures = {
                "hann_psnr": psnr(fbp(observation, geometry, "hann", cutoffs.psnr), target).mean(),
                "hann_ssim": ssim(fbp(observation, geometry, "hann", cutoffs.ssim), target).mean(),
            }
            sums.add(len(target), figures)
    baseline = {**sums.mean(process), "hann_psnr_cutoff": cutoffs.psnr, "hann_ssim_cutoff": cutoffs.ssim}
    if process.rank == 0:
        run.write_json("baseline.json", baseline)
    return baseline


class _Sums:
    """Sums of named figures over samples, then their means over all processes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.names: list[str] = []
        self.total = torch.zeros(0)
        self.count = 0

    def add(self, count: int, figures: dict[str, Tensor]) -> None:
        values = torch.stack([figure.double() for figure in figures.values()]) * count
        self.total = values if self.count == 0 else self.total + values
        self.names = list(figures)
        self.count += count

    def mean(self, process: Process) -> dict[str, float]:
        packed = torch.cat([self.total, torch.tensor([self.count], dtype=torch.float64, device=self.device)])
        if process.world_size > 1:
            dist.all_reduce(packed)
        return dict(zip(self.names, (packed[:-1] / packed[-1]).tolist(), strict=True))


def _share(dataset: LoDoPaB, process: Process) -> Dataset[Sample]:
    """This process's part of the validation samples: each sample once, unlike `DistributedSampler`, which repeats."""
    if len(dataset) < process.world_size:
        raise ConfigError(
            f"{len(dataset)} validation samples are fewer than the {process.world_size} processes; "
            "use more samples or a smaller --scaling.num_workers"
        )
    return Subset(dataset, range(process.rank, len(dataset), process.world_size))


def _metrics(row: dict[str, float]) -> dict[str, float]:
    return {name.removeprefix("validation_"): value for name, value in row.items() if name.startswith("validation_")}


def _about_data(config: TrainConfig, training_set: LoDoPaB, validation_set: LoDoPaB) -> dict[str, Any]:
    return {
        "dir": str(config.data.dir),
        "train_samples": len(training_set),
        "validation_samples": len(validation_set),
        "description": describe(config.data.dir) if config.data.dir else None,
    }


def _not_finite(epoch: int, step: int, batch: Sample, dataset: LoDoPaB, config: TrainConfig) -> str:
    names = ", ".join(dataset.name(int(index)) for index in batch.index)  # type: ignore[attr-defined]
    return (
        f"the loss is not finite in epoch {epoch}, step {step}; its samples are {names}. Look at these samples, or try "
        f"a smaller learning rate than --optim.lr {config.optim.lr}. The checkpoints of earlier epochs are kept."
    )
