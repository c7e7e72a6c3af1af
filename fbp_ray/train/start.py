"""Where a run starts: from the last finished epoch, from another run's checkpoint, or from nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from fbp_ray.checkpoint import (
    Checkpoint,
    check_geometry,
    find_checkpoint,
    load_training,
    load_weights,
    put_weights,
    read_last,
    read_manifest,
    unpack_training,
)
from fbp_ray.config import TrainConfig
from fbp_ray.model import LearnableFBP
from fbp_ray.run import RunFolder
from fbp_ray.train.process import Process


def start(
    config: TrainConfig,
    run: RunFolder,
    model: LearnableFBP,
    optimizer: Adam,
    scheduler: ReduceLROnPlateau,
    process: Process,
    report: Callable[[dict[str, Any]], None],
) -> list[dict[str, float]]:
    """Puts the model, the optimiser and the scheduler where the run is to go on; the history so far, a row an epoch.

    The first process reads, the others get what it read, so that all go on from the same epoch.

    Raises:
        CheckpointError: the checkpoint is damaged or of another model, and there is none to fall back on.
    """

    def read() -> Checkpoint | None:
        run.clear()
        return read_last(run.last, lambda text: report({"event": "warning", "text": text}))

    last = process.from_first(read)
    if last is not None:
        put_weights(model, last.contents["weights"], str(run.last))
        state = unpack_training(last.contents["training"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        history: list[dict[str, float]] = state["history"]
        if process.rank == 0:
            run.write_history(history)  # a crash may have come between the checkpoint and the table
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
