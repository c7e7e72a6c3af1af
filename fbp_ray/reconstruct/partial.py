"""VOLUME.partial, the folder of a volume that is not complete: what was asked for, the file, and which slabs are there.

    plan.json       what was asked for (`plan.Plan`)
    volume.tif      the file, or .h5 or .zarr; it gets its name when all is there
    done/00003      an empty file for each slab that is on the disk
    lock            held by the process that is at it

A slab is named in `done` after the disk has it. So whatever is killed, and whenever, no slab is done twice, and half of
one is never taken for whole: it is written again, to the same place.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from fbp_ray.errors import FbpRayError, RunError
from fbp_ray.reconstruct.plan import Plan
from fbp_ray.reconstruct.volume import allocated, create, read_about, size
from fbp_ray.storage import write_atomically

PLAN, DONE = "plan.json", "done"
SPARE = 1 << 20  # bytes for what is not values


class Partial:
    """The folder beside a volume, and the volume.

    Args:
        out: the volume.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.with_name(f"{out.name}.partial")
        self.volume = self.folder / f"volume{out.suffix.lower()}"

    @contextlib.contextmanager
    def begun(self, plan: Plan) -> Iterator[bool]:
        """Makes the folder, or goes on with that of the same plan; nobody else can meanwhile.

        Gives False where the volume is complete already.

        Raises:
            RunError: the volume or the folder belongs to something else, another process is at it, or the disk has not
                enough room.
        """
        if self.check(plan):
            if self.folder.is_dir() and not self.volume.exists():  # killed when it was about to remove it
                shutil.rmtree(self.folder)
            yield False
            return
        try:
            (self.folder / DONE).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{self.folder} cannot be made: {error}; choose another --out") from None
        with self._locked():
            if (self.folder / PLAN).exists():
                self._check_same(plan)
            else:
                write_atomically(self.folder / PLAN, plan.model_dump_json())
            if not self.volume.exists():
                for name in self.done():  # of a volume that somebody has removed
                    self._mark_of(name).unlink()
                create(self.volume, plan.layout)
            try:
                yield True
            except FbpRayError:
                if not self.done():  # as where Ray cannot be joined
                    shutil.rmtree(self.folder)
                raise

    def check(self, plan: Plan) -> bool:
        """Checks what `begun` checks but the lock, changes nothing, and raises the same; whether all is there."""
        if self._is_complete(plan):
            return True
        self._check_folder()
        if (self.folder / PLAN).exists():
            self._check_same(plan)
        missing = 4 * math.prod(plan.shape) + SPARE - (allocated(self.volume) if self.volume.exists() else 0)
        _check_room(self.folder.parent, missing, self.out)
        return False

    def done(self) -> set[int]:
        """The slabs that are there."""
        return {int(file.name) for file in (self.folder / DONE).iterdir() if file.name.isdigit()}

    def mark(self, slab: int) -> None:
        """Names a slab as one that is on the disk."""
        self._mark_of(slab).touch()

    def finish(self) -> None:
        """Gives the volume its name, and removes the folder.

        Raises:
            RunError: a file of that name has appeared meanwhile.
        """
        if self.out.exists():
            raise RunError(
                f"{self.out} has appeared meanwhile, and is not replaced; move it away and give the same command again"
            )
        self.volume.rename(self.out)
        _sync(self.out.parent)
        shutil.rmtree(self.folder)

    def _is_complete(self, plan: Plan) -> bool:
        if not self.out.exists():
            return False
        about = read_about(self.out)
        if about is None or about.get("request") != plan.request:
            whose = "is no volume of this program" if about is None else "was made by another command"
            raise RunError(f"{self.out} exists and {whose}; choose another --out, or move it away; nothing was changed")
        return True

    def _check_folder(self) -> None:
        if self.folder.exists() and not (
            self.folder.is_dir() and {p.name for p in self.folder.iterdir()} <= self._ours
        ):
            raise RunError(f"{self.folder} holds something else than a volume in the making; choose another --out")

    @property
    def _ours(self) -> set[str]:
        new = f"new{self.volume.suffix}"
        temporary = {p.name for p in self.folder.glob(f".{PLAN}.*.tmp")}
        return {PLAN, DONE, "lock", self.volume.name, new, *temporary}

    def _check_same(self, plan: Plan) -> None:
        try:
            theirs = Plan.model_validate_json((self.folder / PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise RunError(f"{self.folder}/{PLAN} cannot be read; remove {self.folder} to begin again") from None
        if differs := plan.differs_from(theirs):
            raise RunError(
                f"{self.folder} is of another command: a volume {differs}; give that command to go on with it, choose "
                "another --out, or remove the folder to begin again"
            )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"another process is at {self.out}; wait for it, or choose another --out") from None
            except OSError:
                pass  # a disk that cannot lock: two that write the same slab write the same bytes to the same place
            yield

    def _mark_of(self, slab: int) -> Path:
        return self.folder / DONE / f"{slab:05d}"


def _check_room(folder: Path, needed: int, out: Path) -> None:
    """Raises RunError where the disk has not as many bytes left."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise RunError(
            f"{out} needs {size(needed)} more, and the disk has {size(free)} left; make room, choose "
            "another disk, or fewer rows: --rows FIRST:END"
        )


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
