"""A run in its trackers: what the first process shows of each epoch, drawn behind the loop."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from fbp_ray.baseline import Baseline
from fbp_ray.config import TrainConfig
from fbp_ray.data import LoDoPaB
from fbp_ray.model import LearnableFBP
from fbp_ray.pictures import panels
from fbp_ray.run import RunFolder
from fbp_ray.storage import LocalFolder, copy_folder
from fbp_ray.trackers import TrackerGroup, open_tracker, scalars
from fbp_ray.train.process import Process

FOLDER = "tensorboard"


class Watcher:
    """Shows epochs in the run's trackers, from the first process alone. Use it as a context manager.

    Args:
        config: has the trackers.
        run: its folder keeps what they write; where that is an object store, a copy of it after each epoch.
        process: which of the processes this is.
        dataset: the validation part.
        baseline: the figures of the classic FBP on it.
        done: epochs that were finished before.
        report: is told of a tracker that fails.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: RunFolder,
        process: Process,
        dataset: LoDoPaB,
        baseline: Baseline,
        done: int,
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        self.config = config
        self.dataset = dataset
        self.baseline = baseline
        self.folder = run.folder / FOLDER
        self._temporary: Path | None = None
        self._copy_failed = False
        self._warn: Callable[[str], None] = lambda text: report({"event": "warning", "text": text})
        self._tracker = TrackerGroup({}, self._warn)
        if process.rank == 0 and config.track.to:
            self._tracker = open_tracker(
                config.track,
                self._local(),
                run.folder.name,
                config.model_dump(mode="json"),
                done + 1,
                self._warn,
            )

    def _local(self) -> Path:
        if isinstance(self.folder, LocalFolder):
            return self.folder.path
        self._temporary = Path(tempfile.mkdtemp(prefix="fbp-ray-"))
        copy_folder(self.folder, LocalFolder(self._temporary))
        return self._temporary

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tracker.close()
        if self._temporary is not None:
            self._copy()
            shutil.rmtree(self._temporary, ignore_errors=True)

    def look(self, model: LearnableFBP, row: dict[str, float]) -> Callable[[], None]:
        """Takes the model as it is now; calling the result draws it and logs the epoch."""
        if not self._tracker.trackers:
            return lambda: None
        epoch = int(row["epoch"])
        as_it_is = copy.deepcopy(model)

        def log() -> None:
            pictures = panels(as_it_is, self.dataset, self.baseline, self.config.track, epoch)
            self._tracker.log(epoch, scalars(row, self.baseline), pictures)
            self._copy()

        return log

    def _copy(self) -> None:
        if self._temporary is None or self._copy_failed:
            return
        try:
            copy_folder(LocalFolder(self._temporary), self.folder)
        except OSError as error:  # the curves are worth less than the training
            self._copy_failed = True
            self._warn(f"the trackers' files cannot be copied to {self.folder}: {error}")
