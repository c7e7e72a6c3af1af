"""The training loop, written out. It runs in every training process and knows nothing of Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import ReduceLROnPlateau

from fbp_ray.checkpoint import pack
from fbp_ray.data import Batches, Sample, SharedCache
from fbp_ray.data.loader import on_device
from fbp_ray.data.sampler import samples_for_rank
from fbp_ray.errors import RunError
from fbp_ray.least_squares import solve
from fbp_ray.losses import Loss, composite_loss
from fbp_ray.metrics import psnr, ssim, where_ranged
from fbp_ray.own import own_metrics
from fbp_ray.run import ResolvedConfig, RunFolder, epochs_of
from fbp_ray.self_target import self_loss, self_risk
from fbp_ray.split import ByAngles, ByPhotons, Split
from fbp_ray.train.average import Average
from fbp_ray.train.events import Doing, EpochEnd, Event, Started, Step, Warned
from fbp_ray.train.monitor import BETTER, is_best, is_stalled
from fbp_ray.train.optimiser import learned, make_optimiser, set_rates
from fbp_ray.train.parts import (
    batches_of,
    build_model,
    check_shares,
    describe_parts,
    kept_in_memory,
    open_parts,
    split_of,
)
from fbp_ray.train.process import Process, Sums
from fbp_ray.train.record import BASELINE, CheckpointWriter, measure_baseline, resume, tracking

Report = Callable[[Event], None]
FIGURES = {"psnr": psnr, "ssim": ssim}
FEW_ANGLES = 1.5  # a cell, below which angles that are held out say little; LoDoPaB-CT has 1.9
STEP_SECONDS = 1.0  # a step is shown, and a GPU waited for, no more often than this


def train(
    config: ResolvedConfig,
    run: RunFolder,
    process: Process,
    report: Report,
    caches: tuple[SharedCache, SharedCache] | None = None,
) -> None:
    """Trains a `LearnableFBP` for `config.train.epochs` epochs, or until nothing improves (`config.train.patience`).

    It goes on from the last finished epoch of `run`.

    Every process calls this; with more than one, a default process group must stand. The first writes the run folder.
    A step takes `config.train.batch_size` samples, shared among the processes in proportion, so that their number
    changes neither the steps nor what the learning rate means.

    Args:
        config: the run.
        run: its folder, begun.
        process: which of the processes this is, and its device.
        report: is called in every process: with Started once, with EpochEnd after each epoch, and in between with
            Doing, Step and Warned.
        caches: of the training and the validation part, where others made them; without them as `config.data.cache`
            says.

    Raises:
        DataError, GeometryError, ConfigError, CheckpointError: the run cannot start.
        RunError: the loss or a weight stopped being finite, or a checkpoint could not be written. The checkpoints of
            earlier epochs stay.
    """
    device = process.device
    training_set, validation_set = open_parts(config)
    geometry = training_set.geometry
    process.check_same("the number of samples", (len(training_set), len(validation_set)))
    check_shares(config, len(training_set), len(validation_set), process.world_size)
    training, validation = (
        batches_of(config, training_set, process, True, caches and caches[0]),
        batches_of(config, validation_set, process, False, caches and caches[1]),
    )

    if process.rank == 0 and not run.folder.has(BASELINE):
        report(Doing("measuring the classic FBP on the validation part"))
    split = split_of(config, geometry)
    baseline = measure_baseline(run, validation_set, validation, process, split)
    torch.manual_seed(config.train.seed)  # whatever was drawn for the baseline, which may be known already
    model = build_model(config, geometry, baseline.start_cutoff).to(device)
    average = Average(model, config.train.ema)
    optimizer = make_optimiser(model, config.optim)
    scheduler = ReduceLROnPlateau(optimizer, factor=config.optim.plateau_factor, patience=config.optim.plateau_patience)

    def warn(text: str) -> None:
        report(Warned(text))

    if isinstance(split, ByAngles) and geometry.num_angles < FEW_ANGLES * geometry.cells:
        warn(
            f"{geometry.num_angles} angles are few for {geometry.cells} cells: what they do not show is taken for "
            "noise, and --target self may prefer too smooth or too sharp a window; --split photons holds out none"
        )
    if isinstance(split, ByPhotons) and (doubt := split.doubt(training_set[0].observation[None])):
        warn(doubt)
    if config.train.precision == "bfloat16":
        if device.type == "cuda":
            model.network_dtype = torch.bfloat16
        else:
            warn("--train.precision bfloat16 is for GPUs: here the network trains in float32")
    history = resume(config, run, average, optimizer, scheduler, process, warn)
    parallel = DistributedDataParallel(model) if process.world_size > 1 else model

    data = describe_parts(config, training_set, validation_set)
    steps = len(training)
    world = process.world_size
    shares = tuple(samples_for_rank(config.train.batch_size, rank, world) for rank in range(world))
    cached = kept_in_memory(training.cache, training_set)
    report(Started(epochs_of(history), config.train.epochs, steps, world, shares, cached, baseline, config.train))
    with (
        tracking(config, run, process, validation_set, baseline, epochs_of(history), warn) as log_epoch,
        CheckpointWriter(run) as writer,
    ):

        def conclude(epoch: int, trained: dict[str, float], training_seconds: float, began: float) -> None:
            """Validates the model as it is after an epoch, saves it and reports its row."""
            average.agree(process)
            validated = _validate(average.model, validation, epoch, config, process, split)
            row = {
                "epoch": epoch,
                "lr": optimizer.param_groups[0]["lr"],
                **(
                    {"network_lr": optimizer.param_groups[-1]["lr"]}
                    if config.optim.network_lr and learned(model.postprocessing)
                    else {}
                ),
                **{f"train_{name}": value for name, value in trained.items()},
                **{f"validation_{name}": value for name, value in validated.items()},
                "samples_per_second": len(training_set) / training_seconds,
                "reading": training.waited / training_seconds,
                "workers": process.world_size,
                "seconds": time.perf_counter() - began,
                "time": time.time(),
            }
            if not math.isfinite(validated["loss"]):
                raise RunError(
                    f"the loss on the validation part is not finite after epoch {epoch}; try a smaller learning rate "
                    f"than --optim.lr {config.optim.lr}. The checkpoints of earlier epochs are kept."
                )
            if config.optim.schedule == "plateau":
                scheduler.threshold = math.copysign(BETTER, scheduler.best)  # so that better is lower below 0 too
                scheduler.step(config.train.judge(row))
            if not all(torch.isfinite(parameter).all() for parameter in model.parameters()):
                raise RunError(f"a weight stopped being finite in epoch {epoch}; try a smaller --optim.lr")
            best = is_best(config.train, history, row)
            history.append(row)
            if process.rank == 0:
                state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(), "history": history}
                state |= average.state()
                last = pack(average.model, epoch=epoch, metrics=_metrics(row), data=data, training=state)
                writer.write(last, best, history, log_epoch(average.model, row))
            report(EpochEnd(row))

        if config.window.init == "solve" and not history:
            began = time.perf_counter()
            report(Doing("solving for the window"))
            if said := solve(model, training.epoch(0), process.add_up, split):
                warn(said)
            average.start()
            seconds = time.perf_counter() - began
            conclude(0, _losses(model, training, config, process, split), seconds, began)

        for epoch in range(epochs_of(history) + 1, config.train.epochs + 1):
            if is_stalled(config, history):
                break
            began = shown = time.perf_counter()
            _seed(config.train.seed, epoch, process.rank)
            parallel.train()
            sums = Sums(process)
            finite = _FirstNotFinite(device)
            for step, batch in enumerate(on_device(training.epoch(epoch), device), start=1):
                weight = len(batch.observation) * process.world_size / training.size(step)
                progress = ((epoch - 1) * steps + step - 1) / (config.train.epochs * steps)
                set_rates(optimizer, model, config.optim, progress)
                batch = batch if weight else _stand_in(batch)
                loss = _loss(parallel, batch, (epoch, step), config, split)
                optimizer.zero_grad()
                (loss.total * weight).backward()  # type: ignore[no-untyped-call]
                if config.optim.clip is not None:
                    clip_grad_norm_(learned(model), config.optim.clip)
                optimizer.step()
                average.step()
                finite.record(step, loss.total.detach())
                if weight:
                    sums.add(len(batch.observation), {"loss": loss.total, **loss.parts})
                due = time.perf_counter() - shown >= STEP_SECONDS or step == steps
                if (due or device.type == "cpu") and (bad := finite.step()) is not None:
                    raise RunError(_not_finite(epoch, bad, training.names(epoch, bad), config))
                if due:
                    report(Step(epoch, step, steps, loss.total.item()))
                    shown = time.perf_counter()
            trained = sums.means()
            training_seconds = time.perf_counter() - began
            conclude(epoch, trained, training_seconds, began)


def _loss(model: nn.Module, batch: Sample, when: tuple[int, int], config: ResolvedConfig, split: Split | None) -> Loss:
    """The loss of a batch, which is where the model is; `when` is its epoch and step."""
    observation = batch.observation
    if split is not None:
        parts = split.drawn(observation, torch.as_tensor(batch.index), config.train.seed, *when)
        return Loss(self_loss(model(parts.seen, some=parts.seen_scan), parts), {})
    return composite_loss(model(observation), batch.ground_truth, config.loss)


def _losses(
    model: nn.Module, data: Batches, config: ResolvedConfig, process: Process, split: Split | None
) -> dict[str, float]:
    """The loss and its parts over the training part, as it is before the first epoch."""
    model.eval()
    sums = Sums(process)
    with torch.no_grad():
        for step, batch in enumerate(on_device(data.epoch(0), process.device), start=1):
            if len(batch.observation):
                loss = _loss(model, batch, (0, step), config, split)
                sums.add(len(batch.observation), {"loss": loss.total, **loss.parts})
    return sums.means()


def _validate(
    model: nn.Module, data: Batches, epoch: int, config: ResolvedConfig, process: Process, split: Split | None
) -> dict[str, float]:
    """The loss, its parts, PSNR, SSIM and metrics of one's own over a whole part, the same in every process.

    Without ground truth there is none of them but the loss. A run that learns so is judged so: its loss is `self_risk`.
    """
    model.eval()
    sums = Sums(process)
    metrics = own_metrics(config.metrics)
    with torch.no_grad():
        for batch in on_device(data.epoch(epoch), process.device):
            if len(batch.observation) == 0:
                continue
            observation, target = batch.observation, batch.ground_truth
            figures: dict[str, Tensor] = {}
            if data.dataset.truth:
                prediction = model(observation)
                found = {name: of(prediction, target) for name, of in FIGURES.items()}
                figures = {name: where_ranged(values, target) for name, values in found.items()}
                figures |= {name: of(prediction, target) for name, of in metrics.items()}
            if split is not None:
                risk = self_risk(
                    lambda rays, some: model(rays, some=some), observation, torch.as_tensor(batch.index), split
                )
                figures = {"loss": risk, **figures}
            else:
                loss = composite_loss(prediction, target, config.loss, found)
                figures = {"loss": loss.total, **loss.parts, **figures}
            sums.add(len(observation), figures)
    return sums.means()


class _FirstNotFinite:
    """The first step whose loss is not finite, found without waiting for the device at every step."""

    def __init__(self, device: torch.device) -> None:
        self._first = torch.zeros((), dtype=torch.int64, device=device)

    def record(self, step: int, loss: Tensor) -> None:
        """Notes whether the loss of a step, a scalar on the device, is finite."""
        fine = torch.isfinite(loss) | (self._first > 0)
        self._first = torch.where(fine, self._first, step)

    def step(self) -> int | None:
        """The step, None where all have been finite; waits for the device."""
        return int(self._first) or None


def _stand_in(batch: Sample) -> Sample:
    """A dummy batch of weight 0 for a process with no samples in the last step: it still has to exchange gradients."""
    observation, ground_truth, _ = batch
    return Sample(
        observation.new_zeros(1, *observation.shape[1:]),
        ground_truth.new_zeros(1, *ground_truth.shape[1:]),
        torch.zeros(1, dtype=torch.int64),  # type: ignore[arg-type]
    )


def _seed(seed: int, epoch: int, rank: int) -> None:
    """Makes what is random in an epoch depend on the epoch alone, not on those before it in the same process."""
    state = np.random.SeedSequence([seed, epoch, rank]).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(state) % 2**63)


def _metrics(row: dict[str, float]) -> dict[str, float]:
    return {name.removeprefix("validation_"): value for name, value in row.items() if name.startswith("validation_")}


def _not_finite(epoch: int, step: int, names: list[str], config: ResolvedConfig) -> str:
    return (
        f"the loss is not finite in epoch {epoch}, step {step}; its samples are {', '.join(names)}. Look at these "
        f"samples, or try a smaller learning rate than --optim.lr {config.optim.lr}. The checkpoints of earlier epochs "
        "are kept."
    )
