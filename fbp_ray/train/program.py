"""What a training does: checks, the run folder, how the run ended."""

from __future__ import annotations

import math
import sys
from datetime import datetime

import torch
from torch import Tensor

from fbp_ray.baseline import Baseline
from fbp_ray.checkpoint import check_geometry, find_checkpoint, load_start, load_training, read_manifest
from fbp_ray.config import TrainConfig
from fbp_ray.data import LoDoPaB, unit_of
from fbp_ray.data.layout import MU_MAX
from fbp_ray.errors import ConfigError, DataError, FbpRayError, RunError
from fbp_ray.filters import noise
from fbp_ray.least_squares import SOLVABLE
from fbp_ray.losses import composite_loss
from fbp_ray.metrics import has_range
from fbp_ray.model import LearnableFBP
from fbp_ray.own import own_metrics, typed_options
from fbp_ray.run import ResolvedConfig as ResolvedConfig
from fbp_ray.run import RunFolder, State, epochs_of
from fbp_ray.shipped import absolute_place
from fbp_ray.simulate import sample_data
from fbp_ray.storage import open_folder
from fbp_ray.trackers import check_trackers
from fbp_ray.train.cluster import allocate, check_interface, starting_ray, this_machine
from fbp_ray.train.display import TrainingDisplay
from fbp_ray.train.events import Doing
from fbp_ray.train.parts import build_model, check_shares, drawing, open_parts, split_of
from fbp_ray.train.record import BASELINE

MOST = 1e3
"""No value of data in LoDoPaB-CT's scale comes near it."""


def train(config: TrainConfig) -> RunFolder:
    """Checks a configuration, begins its run and trains it; raises FbpRayError."""
    check_settings(config)
    check_start(config)
    here = this_machine(config.ray.address)
    workers = allocate(config.scaling, here).workers if here else None
    if here and config.scaling.interface is not None:
        check_interface(config.scaling.interface, here[0].address)
    resolved = resolve(config)
    check(resolved, workers)
    run = RunFolder(open_folder(resolved.run.storage) / resolved.run.name)
    resolved = run.begin(resolved)
    print(f"run {run}", flush=True)
    train_run(resolved, run)
    return run


def train_run(config: ResolvedConfig, run: RunFolder) -> None:
    """Trains a run that has been begun, shows its progress, and writes to its folder how it ended."""
    try:
        with TrainingDisplay() as display:
            display.show(Doing(starting_ray(config.ray.address)))
            from fbp_ray.train.launch import launch  # after the options are known to hold: Ray takes seconds to import

            launch(config, run, display.show)
        run.check_owner()
    except FbpRayError as error:
        _set_ended(run, "failed", str(error))
        raise
    except KeyboardInterrupt:
        _set_ended(run, "stopped", "interrupted; the same command goes on with it")
        raise KeyboardInterrupt(
            "interrupted; the epochs that were finished are kept: the same command, with --run.name "
            f"{run.folder.name}, goes on"
        ) from None
    run.set_status("completed")
    print(ended_early(config, epochs_of(run.read_history())), end="")
    print(f"best and last checkpoint: {run.best}, {run.last}")
    print(beside_hann(run))


def ended_early(config: TrainConfig, epochs: int) -> str:
    """A line that says why so many epochs were enough; empty where all were trained."""
    if epochs >= config.train.epochs:
        return ""
    return (
        f"ended after epoch {epochs} of {config.train.epochs}: {config.train.patience} epochs without a better "
        f"{'validation loss' if config.train.monitor == 'loss' else config.train.monitor} (--train.patience)\n"
    )


def beside_hann(run: RunFolder) -> str:
    """Whether the best weights of a run are better than the best Hann windows on the validation part, in a line."""
    baseline = Baseline.model_validate(run.read_json(BASELINE))
    manifest = read_manifest(run.folder)
    if "psnr" not in manifest.metrics:
        risk, classic = manifest.metrics.get("loss", math.nan), baseline.hann_risk or math.nan
        return (
            f"{'better' if risk < classic else 'no better'} than the best Hann on the validation part (epoch "
            f"{manifest.epoch}), judged by what is held out: estimated squared error {risk:.4g} "
            f"beside {classic:.4g} of Hann {baseline.start_cutoff:.2f}"
        )
    psnr, ssim = (manifest.metrics.get(figure, math.nan) for figure in ("psnr", "ssim"))
    gains = baseline.gain("psnr", psnr), baseline.gain("ssim", ssim)
    better = [name for name, gain in zip(("PSNR", "SSIM"), gains, strict=True) if gain > 0]
    verdict = {0: "no better", 1: f"better in {better[0]} alone" if better else "", 2: "better"}[len(better)]
    return (
        f"{verdict} than the best Hann on the validation part (epoch {manifest.epoch}): PSNR {psnr:.3f} dB, "
        f"{gains[0]:+.3f} beside Hann {baseline.hann_psnr_cutoff:.2f}; SSIM {ssim:.4f}, {gains[1]:+.4f} beside Hann "
        f"{baseline.hann_ssim_cutoff:.2f}"
    )


def _set_ended(run: RunFolder, state: State, reason: str) -> None:
    """Writes to the run folder how the run ended, unless another process has it or it cannot be written any more."""
    try:
        run.check_owner()
        run.set_status(state, reason)
    except (OSError, RunError) as error:
        print(f"the run's status could not be written: {error}", file=sys.stderr)


def check(config: ResolvedConfig, workers: int | None = None) -> None:
    """Finds out now, on this machine, what would otherwise stop every worker later.

    Args:
        config: the run.
        workers: how many there will be, where it is known.
    """
    training, validation = open_parts(config)
    check_shares(config, len(training), len(validation), workers or config.scaling.num_workers or 1)
    model = build_model(config, training.geometry)
    drawing(config, training.geometry)
    check_values(training, validation)
    check_photons(model, training)
    try:
        _try_out(config, model, training)
    except FbpRayError:
        raise
    except Exception as error:
        if not config.own_code:
            raise
        raise ConfigError(
            f"{' or '.join(config.own_code)} failed on the first training sample: {type(error).__name__}: {error}; "
            "see docs/your-own-code.md"
        ) from error
    check_settings(config)
    if config.init.checkpoint is not None:
        check_geometry(config.init.checkpoint, read_manifest(config.init.checkpoint), training.geometry)
        check_start(config)


def _try_out(config: TrainConfig, model: LearnableFBP, training: LoDoPaB) -> None:
    """Uses what a step and a validation use, once."""
    split = split_of(config, training.geometry)
    image = torch.zeros(1, *training.geometry.image_shape, requires_grad=True)
    if model.config.own_code:  # what it gives is not known
        observation = training[0].observation[None]
        image = model(observation)
        if split is not None:
            parts = split.drawn(observation, [0], config.train.seed, 0, 1)
            model(parts.seen, some=parts.seen_scan)
        _refuse_not_finite(image, " or ".join(model.config.own_code))
    if config.target == "truth":
        loss = composite_loss(image, image.detach(), config.loss).total
        if config.loss.own:
            _refuse_not_finite(loss, " or ".join(config.loss.own))
        if not loss.requires_grad:
            raise ConfigError(
                f"the loss has no gradient: {' or '.join(config.loss.own)} takes the prediction out of the graph "
                "(detach, numpy, no_grad); compute it in torch's operations"
            )
    image = image.detach()
    for metric in own_metrics(config.metrics).values():
        metric(image, image)


def _refuse_not_finite(made: Tensor, by: str) -> None:
    if not made.isfinite().all():
        raise ConfigError(f"{by} makes values of the first training sample that are not finite; look at its code")


def check_photons(model: LearnableFBP, training: LoDoPaB) -> None:
    """Raises ConfigError where a window by noise has to estimate the photons of a ray, and the data show no noise."""
    window = model.config.window
    if window.kind not in ("ray_noise", "adaptive") or window.photons != "estimate":
        return
    seen = {0, len(training) // 2, len(training) - 1}
    found = [float(noise.estimated_photons(training[index].observation[None], window.unit)) for index in sorted(seen)]
    if all(not noise.FEWEST < photons < noise.MOST for photons in found):
        raise ConfigError(
            f"the photons of a ray, by which {window.kind} knows its noise, cannot be estimated from the sinograms in "
            f"{training.folder}: they seem to be {found[0]:.3g}. Say how many there were, --window.photons N, and what "
            f"attenuation (1/m) the value 1 stands for, --window.unit, now {window.unit:g}; or use --window.kind spline"
        )


def check_values(training: LoDoPaB, validation: LoDoPaB) -> None:
    """Raises DataError where the values are of another scale, or no validation image shows anything.

    Both are seen on a sample or two; only of blank images are all read.
    """
    sample, unit = training[0], unit_of(training.folder)
    for kind, values, expected in (
        ("observation", sample.observation, "line integrals of attenuation divided by MU_MAX, about 0 to 0.13"),
        ("ground truth", sample.ground_truth, "attenuation divided by MU_MAX, 0 to 1"),
    ):
        largest = float(values.abs().amax()) if values.numel() else 0.0
        if largest * unit > MOST * MU_MAX:
            raise DataError(
                f"the {kind} of the first training sample in {training.folder} has values up to {largest:g}; expected "
                f"are {expected} (MU_MAX = {MU_MAX:.5f} /m), or multiples of the `unit` in dataset.json: convert the "
                "data, or say there what attenuation (1/m) the value 1 stands for"
            )
    if validation.truth and not any(has_range(validation[index].ground_truth) for index in range(len(validation))):
        raise DataError(
            f"each of the {len(validation)} validation images in {validation.folder} has one value throughout; give "
            "validation samples that show something"
        )


def check_start(config: TrainConfig) -> None:
    """Raises CheckpointError where the checkpoint to start from is missing, damaged or of another model."""
    if config.init.checkpoint is None:
        return
    folder = find_checkpoint(config.init.checkpoint)
    manifest = read_manifest(folder)
    load_start(build_model(config, manifest.model.geometry), folder, manifest)
    if config.init.optimizer:
        load_training(folder)


def check_settings(config: TrainConfig) -> None:
    """The part of `check` that needs neither data nor a checkpoint."""
    check_trackers(config.track)
    if config.run.extend is not None and config.run.name is None:
        raise ConfigError("--run.extend needs the name of the run to extend: --run.name NAME")
    if config.train.epochs == 0 and config.window.init != "solve":
        raise ConfigError("--train.epochs 0 trains nothing; give 1 or more, or solve the window: --window.init solve")
    if config.window.init == "solve":
        if config.window.kind not in SOLVABLE:
            raise ConfigError(
                "to be solved, a window has to be linear in what is learned, in some hundred coefficients at most, and "
                f"{config.window.kind} is not: use --window.kind {', '.join(SOLVABLE[:-1])} or {SOLVABLE[-1]}"
            )
        if config.init.checkpoint is not None:
            raise ConfigError("--window.init solve and --init.checkpoint are two starts; leave one out")
    if config.window.kind in ("fixed", "zeng") and config.postprocessing.kind == "identity":
        raise ConfigError(
            f"a {config.window.kind} window learns nothing; use --window.kind spline or adaptive, or a network after "
            "it: --postprocessing.kind tiny"
        )


def resolve(config: TrainConfig) -> ResolvedConfig:
    """Fills in what is open: the sample data, a name; and makes places absolute, so that every worker finds them."""
    folder = config.data.dir
    if folder is None:
        folder = sample_data()
    tree = config.model_dump()
    tree["data"]["dir"] = folder.absolute()
    tree["run"]["name"] = config.run.name or f"{config.recipe}-{datetime.now():%Y%m%d-%H%M%S}"
    for part in ("window", "postprocessing"):
        if tree[part]["options"]:
            tree[part]["options"] = typed_options(tree[part]["kind"], tree[part]["options"])
    for part in ("loss", "metrics"):
        given = tree[part]["options"]
        tree[part]["options"] = {name: typed_options(name, options) for name, options in given.items()}
    tree["init"]["checkpoint"] = config.init.checkpoint and absolute_place(config.init.checkpoint)
    return ResolvedConfig.model_validate(tree)
