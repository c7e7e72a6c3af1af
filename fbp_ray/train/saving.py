"""What is written while a run trains: done by one thread behind the loop, in order, and never lost without a word."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from fbp_ray.checkpoint import Checkpoint, write_checkpoint
from fbp_ray.errors import RunError
from fbp_ray.run import RunFolder


class Saver:
    """Writes an epoch's files while the next epoch trains. Use it as a context manager: leaving it waits.

    Args:
        run: where to.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="saver")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for what is being written, whatever ended the loop; its failure is raised unless there is another."""
        try:
            self._wait()
        except Exception:
            if error is None:
                raise
        finally:
            self._thread.shutdown()

    def save(
        self, last: Checkpoint, best: bool, history: list[dict[str, float]], then: Callable[[], None] = lambda: None
    ) -> None:
        """Takes an epoch's files to be written, as soon as those of the epoch before are.

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

    def _write(self, last: Checkpoint, best: bool, history: list[dict[str, float]], then: Callable[[], None]) -> None:
        epoch = last.manifest.epoch
        try:
            self.run.check_owner()
            if best:
                write_checkpoint(self.run.best, _weights_alone(last))
            write_checkpoint(self.run.last, last, keep_previous=True)
            self.run.write_history(history)
        except OSError as error:
            raise RunError(
                f"the checkpoint of epoch {epoch} could not be written to {self.run}: {error}. That of the epoch "
                "before is whole: put the storage right and give the same command to go on from it"
            ) from None
        then()


def _weights_alone(checkpoint: Checkpoint) -> Checkpoint:
    manifest, contents = checkpoint
    alone = {"files": {"weights": manifest.files["weights"]}, "sha256": {"weights": manifest.sha256["weights"]}}
    return Checkpoint(manifest.model_copy(update=alone), {"weights": contents["weights"]})
