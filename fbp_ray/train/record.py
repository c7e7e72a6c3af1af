"""Resuming a run, measuring its baseline, and saving each epoch's results behind the loop."""

from __future__ import annotations

import copy
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, Subset

from fbp_ray.baseline import (
    CUTOFF_SAMPLES,
    Baseline,
    BestCutoffs,
    best_hann,
    best_hann_alone,
    content_key,
    hann,
    keep_cutoffs,
    known_cutoffs,
)
from fbp_ray.checkpoint import (
    Checkpoint,
    check_geometry,
    find_checkpoint,
    load_start,
    load_training,
    put_weights,
    read_last,
    read_manifest,
    unpack_training,
    write_checkpoint,
)
from fbp_ray.config import TrainConfig
from fbp_ray.data import Batches, LoDoPaB
from fbp_ray.errors import DataError, RunError
from fbp_ray.metrics import has_range, psnr, ssim, where_ranged
from fbp_ray.model import LearnableFBP, fbp
from fbp_ray.pictures import as_png, panels
from fbp_ray.run import NEWEST, RunFolder
from fbp_ray.self_target import self_risk
from fbp_ray.split import Split
from fbp_ray.storage import Folder, LocalFolder, copy_folder
from fbp_ray.trackers import Pixels, open_tracker, scalars
from fbp_ray.train.average import Average
from fbp_ray.train.optimiser import load_moments
from fbp_ray.train.process import Process, Sums

TRACKERS = "tensorboard"
"""The folder of the run folder that the trackers write to."""

BASELINE = "baseline.json"

Row = dict[str, float]
Warn = Callable[[str], None]


def resume(
    config: TrainConfig,
    run: RunFolder,
    average: Average,
    optimizer: Adam,
    scheduler: ReduceLROnPlateau,
    process: Process,
    warn: Warn,
) -> list[Row]:
    """Sets the model, the optimiser and the scheduler to the last finished epoch, or to the checkpoint to start from.

    The first process reads, and sends what it has read to the others, so that all go on from the same epoch.

    Returns:
        The history so far, a row an epoch.

    Raises:
        CheckpointError: the checkpoint is damaged or of another model, and there is none to fall back on.
    """

    def read() -> Checkpoint | None:
        run.clear()
        return read_last(run.last, warn)

    model = average.learning
    last = process.from_first(read)
    if last is not None:
        put_weights(model, last.contents["weights"], str(run.last))
        state = unpack_training(last.contents["training"])
        average.resume(state)
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        history: list[Row] = state["history"]
        if process.rank == 0:
            run.write_history(history)  # a crash may have come between the checkpoint and the table
        return history

    if config.init.checkpoint is not None:
        folder = find_checkpoint(config.init.checkpoint)
        manifest = read_manifest(folder)
        check_geometry(folder, manifest, model.geometry)
        if load_start(model, folder, manifest) and process.rank == 0:
            warn(
                f"{config.init.checkpoint} has no network: the window starts from it, and "
                f"{config.postprocessing.kind} anew"
            )
        average.start()
        if config.init.optimizer:
            load_moments(optimizer, load_training(folder)["optimizer"], str(folder))
    return []


def measure_baseline(
    run: RunFolder, dataset: LoDoPaB, batches: Batches, process: Process, split: Split | None = None
) -> Baseline:
    """The figures of the Hann that is best for each, with its cut-off; from the run folder where they are known.

    Args:
        run: keeps them in baseline.json.
        dataset: the validation part; PSNR and SSIM need its ground truth.
        batches: this process's share of it.
        process: which of the processes this is.
        split: of the scans of a run that learns, and is judged, without ground truth.
    """
    known = process.from_first(lambda: run.read_json(BASELINE))
    if known is not None and _is_whole(known):
        return Baseline.model_validate(known)
    geometry = dataset.geometry

    def share(samples: int) -> Iterator[Sequence[Tensor]]:
        mine = range(process.rank, min(samples, len(dataset)), process.world_size)
        for batch in DataLoader(Subset(dataset, mine), 4):
            yield batch.observation.to(process.device), batch.ground_truth.to(process.device), batch.index

    def search(samples: int) -> dict[str, float]:
        found: dict[str, float] = {}
        if split is not None:
            cutoff = best_hann_alone(lambda: ((one[0], one[2]) for one in share(samples)), split, process.add_up)
            found = dict.fromkeys(("hann_risk_cutoff", "hann_psnr_cutoff", "hann_ssim_cutoff"), cutoff)
        if dataset.truth:
            best = _best_hann(dataset, share, samples, process)
            found |= {"hann_psnr_cutoff": best.psnr, "hann_ssim_cutoff": best.ssim}
        return found

    try:
        cutoffs = search(max(CUTOFF_SAMPLES, process.world_size))
    except DataError:  # blank images come first
        cutoffs = search(len(dataset))
    sums = Sums(process)
    with torch.no_grad():
        for batch in batches.epoch(0):
            observation, truth = batch.observation.to(process.device), batch.ground_truth.to(process.device)
            if not len(observation):
                continue
            figures: dict[str, Tensor] = {}
            if split is not None:
                figures["hann_risk"] = self_risk(
                    hann(cutoffs["hann_risk_cutoff"]), observation, torch.as_tensor(batch.index), split
                )
            if dataset.truth:
                by_psnr = psnr(fbp(observation, geometry, "hann", cutoffs["hann_psnr_cutoff"]), truth)
                by_ssim = ssim(fbp(observation, geometry, "hann", cutoffs["hann_ssim_cutoff"]), truth)
                figures |= {"hann_psnr": where_ranged(by_psnr, truth), "hann_ssim": where_ranged(by_ssim, truth)}
                figures["without_range"] = (~has_range(truth)).float().mean()
            sums.add(len(observation), figures)
    means = sums.means()
    without_range = round(means.pop("without_range", 0.0) * len(dataset))
    found = Baseline.model_validate({**cutoffs, **means, "without_range": without_range})
    if process.rank == 0:
        run.write_json(BASELINE, found.model_dump())
    return found


def _best_hann(
    dataset: LoDoPaB, share: Callable[[int], Iterator[Sequence[Tensor]]], samples: int, process: Process
) -> BestCutoffs:
    """As `best_hann`, on the first samples of the validation part, where it is not known of these already."""

    def look_up() -> tuple[str, BestCutoffs | None]:
        first = (dataset[index] for index in range(min(samples, len(dataset))))
        key = content_key(((one.observation[None], one.ground_truth[None]) for one in first), dataset.geometry)
        return key, known_cutoffs(key)

    key, kept = process.from_first(look_up)
    if kept is not None:
        return BestCutoffs(*kept)
    best = best_hann(lambda: ((pair[0], pair[1]) for pair in share(samples)), dataset.geometry, process.add_up)
    if process.rank == 0:
        keep_cutoffs(key, best)
    return best


def _is_whole(known: dict[str, float | None]) -> bool:
    """Whether a baseline.json has what a run needs; an earlier version wrote some without a figure."""
    there = [value for value in known.values() if value is not None]
    some = known.get("hann_psnr") is not None or known.get("hann_risk") is not None
    return some and all(isinstance(value, int | float) and math.isfinite(value) for value in there)


class CheckpointWriter:
    """Writes an epoch's files in a thread while the next epoch trains. Use it as a context manager: leaving it waits.

    Whatever ends the loop, the epoch that is being written is finished first. A failure is raised by the next `write`,
    or on leaving unless another error is under way.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._pending: Future[None] | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._wait()
        except Exception:
            if error is None:
                raise
        finally:
            self._thread.shutdown()

    def write(self, last: Checkpoint, best: bool, history: list[Row], then: Callable[[], None] = lambda: None) -> None:
        """Hands over an epoch's files to be written, once those of the epoch before are.

        Args:
            last: the checkpoint of the epoch, with its training state.
            best: whether its weights are the best so far.
            history: a row an epoch.
            then: is called when all is written.

        Raises:
            RunError: the files of the epoch before could not be written.
        """
        self._wait()
        self._pending = self._thread.submit(self._write, last, best, list(history), then)

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, last: Checkpoint, best: bool, history: list[Row], then: Callable[[], None]) -> None:
        try:
            self.run.check_owner()
            if best:
                write_checkpoint(self.run.best, _weights_alone(last))
            write_checkpoint(self.run.last, last, keep_previous=True)
            self.run.write_history(history)
        except OSError as error:
            raise RunError(
                f"the checkpoint of epoch {last.manifest.epoch} could not be written to {self.run}: {error}. That of "
                "the epoch before is whole: put the storage right and give the same command to go on from it"
            ) from None
        then()


def _weights_alone(checkpoint: Checkpoint) -> Checkpoint:
    manifest, contents = checkpoint
    alone = {"files": {"weights": manifest.files["weights"]}, "sha256": {"weights": manifest.sha256["weights"]}}
    return Checkpoint(manifest.model_copy(update=alone), {"weights": contents["weights"]})


LogEpoch = Callable[[LearnableFBP, Row], Callable[[], None]]


@contextmanager
def tracking(
    config: TrainConfig, run: RunFolder, process: Process, dataset: LoDoPaB, baseline: Baseline, done: int, warn: Warn
) -> Iterator[LogEpoch]:
    """Opens the run's trackers, in the first process alone, and closes them at the end.

    Args:
        config: has the trackers.
        run: keeps what they write; an object store gets a copy of it after each epoch.
        process: which of the processes this is.
        dataset: the validation part, of which some samples are drawn.
        baseline: the figures of the classic FBP on it.
        done: epochs that were finished before.
        warn: is told of a tracker that fails.

    Yields:
        A function that takes the model as it is after an epoch, and the epoch's row; calling its result draws the
        pictures and logs the epoch.
    """
    if process.rank > 0 or not config.track.to:
        yield lambda model, row: lambda: None
        return
    with _local(run.folder / TRACKERS, warn) as (place, publish):
        settings = config.model_dump(mode="json")
        tracker = open_tracker(config.track, place, run.folder.name, settings, done + 1, warn)

        def log_epoch(model: LearnableFBP, row: Row) -> Callable[[], None]:
            epoch, as_it_is = int(row["epoch"]), copy.deepcopy(model)

            def log() -> None:
                pictures = panels(as_it_is, dataset, baseline, config.track, epoch)
                _keep_newest(run, pictures, warn)
                tracker.log(epoch, scalars(row, baseline), pictures)
                publish()

            return log

        try:
            yield log_epoch
        finally:
            tracker.close()


def _keep_newest(run: RunFolder, pictures: dict[str, Pixels], warn: Warn) -> None:
    """Keeps the epoch's first reconstruction as a file of its own, for those who watch the run."""
    newest = next((pixels for name, pixels in pictures.items() if name.startswith("reconstruction/")), None)
    if newest is None:
        return
    try:
        run.folder.write(NEWEST, as_png(newest))
    except OSError as error:
        warn(f"{NEWEST} cannot be written: {error}")


@contextmanager
def _local(folder: Folder, warn: Warn) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder on a disk for one that may be in an object store, and a function that copies it there."""
    if isinstance(folder, LocalFolder):
        yield folder.path, lambda: None
        return
    failed = False

    def publish() -> None:
        nonlocal failed
        if failed:
            return
        try:
            copy_folder(LocalFolder(place), folder)
        except OSError as error:  # the curves are worth less than the training
            failed = True
            warn(f"the trackers' files cannot be copied to {folder}: {error}")

    place = Path(tempfile.mkdtemp(prefix="fbp-ray-"))
    copy_folder(folder, LocalFolder(place))
    try:
        yield place, publish
    finally:
        publish()
        shutil.rmtree(place, ignore_errors=True)
