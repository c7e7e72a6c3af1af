"""Submissions to the LoDoPaB-CT challenge: written by `python -m fbp_ray.evaluate --submission FILE.zip`, checked here.

    python -m fbp_ray.evaluate.submission --file FILE.zip --data.dir DIR

A submission is a zip of reco_000.hdf5, reco_001.hdf5 .., each with `data` (128, H, W) float32: image n is row n % 128
of file n // 128. Rows of the last file that stand for no image are ignored. The folder with the challenge's
observations says how many images there are, and of what size.
"""

from __future__ import annotations

import io
import math
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from zipfile import BadZipFile, ZipFile

from pydantic import Field

from fbp_ray.cli import parse, run_program
from fbp_ray.errors import DataError, RunError
from fbp_ray.settings import Frozen, LocalPath

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROWS = 128
PART = "challenge"
MOST = 20  # problems that are named


class _Data(Frozen):
    """The challenge."""

    dir: LocalPath = Field(description="folder with observation_challenge_000.hdf5 ..")


class CheckConfig(Frozen):
    """Checks a submission to the LoDoPaB-CT challenge: says what is wrong with it, or that nothing is."""

    file: LocalPath = Field(description="the zip file")
    data: _Data


def main(argv: Sequence[str]) -> None:
    """Checks the submission that the options name."""
    config = parse(CheckConfig, argv, "python -m fbp_ray.evaluate.submission")
    from fbp_ray.data import LoDoPaB, geometry_of

    geometry = geometry_of(config.data.dir)
    count = len(LoDoPaB(config.data.dir, PART, geometry, truth=False))
    check_submission(config.file, count, geometry.image_shape)
    print(f"{config.file} is a whole submission: {count} images in {math.ceil(count / ROWS)} files")


def write_submission(
    path: Path, images: Iterator[NDArray[np.float32]], count: int, shape: tuple[int, int], overwrite: bool
) -> None:
    """Writes a submission, which is at `path` once it is whole.

    Args:
        path: of the zip file.
        images: (n, H, W) each, in order.
        count: how many images there are in all.
        shape: (H, W).
        overwrite: whether it may replace a file.

    Raises:
        RunError: there is a file already, or it cannot be written.
        DataError: an image has values that are not finite.
    """
    import h5py
    import numpy as np

    if path.exists() and not overwrite:
        raise RunError(f"{path} is there already; --overwrite replaces it, or choose another --submission")
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    file_rows = np.full((ROWS, *shape), np.nan, np.float32)  # as the challenge's own tool fills what is spare
    done = 0

    def put_file(archive: ZipFile) -> None:
        content = io.BytesIO()
        with h5py.File(content, "w") as file:
            file.create_dataset("data", data=file_rows)
        archive.writestr(_name((done - 1) // ROWS), content.getbuffer())
        file_rows.fill(np.nan)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with ZipFile(temporary, "w") as archive:
            for image in (image for batch in images for image in batch):
                if not np.isfinite(image).all():
                    raise DataError(
                        f"the model's image {done} has values that are NaN or infinite, which no submission may have; "
                        "nothing was written: look at the model with --split test first"
                    )
                file_rows[done % ROWS] = image
                done += 1
                if done % ROWS == 0 or done == count:
                    put_file(archive)
        temporary.replace(path)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error}; choose another --submission") from None
    finally:
        temporary.unlink(missing_ok=True)


def check_submission(path: Path, count: int, shape: tuple[int, int]) -> None:
    """Raises DataError that names what is wrong with a submission of `count` images (H, W)."""
    try:
        with ZipFile(path) as archive:
            problems = list(_problems(archive, count, shape))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}; name the zip file with --file") from None
    except BadZipFile as error:
        raise DataError(f"{path} is no zip file, or is cut short: {error}; write it again, or copy it again") from None
    if problems:
        more = [f"and {len(problems) - MOST} more"] if len(problems) > MOST else []
        raise DataError(
            f"{path} is no submission of {count} images:\n       " + "\n       ".join([*problems[:MOST], *more])
        )


def _name(number: int) -> str:
    return f"reco_{number:03d}.hdf5"


def _problems(archive: ZipFile, count: int, shape: tuple[int, int]) -> Iterator[str]:
    wanted = [_name(number) for number in range(math.ceil(count / ROWS))]
    names = f"{wanted[0]} to {wanted[-1]}" if len(wanted) > 1 else wanted[0]
    there = Counter(archive.namelist())
    for name, times in there.items():
        if name not in wanted:
            if "/" in name:
                hint = "take the files out of the folder: zip -j"
            else:
                hint = "leave it out, or give it the name that it should have"
            yield f"{name}: expected {names} and nothing else; {hint}"
        elif times > 1:
            yield f"{name}: is there {times} times, expected once; leave the others out"
    for number, name in enumerate(wanted):
        if name not in there:
            last = min((number + 1) * ROWS, count) - 1
            yield f"{name}: is missing; add it, with the images {number * ROWS} to {last}"
        elif there[name] == 1:
            yield from _problems_of(archive, name, number * ROWS, min(ROWS, count - number * ROWS), shape)


def _problems_of(archive: ZipFile, name: str, first: int, rows: int, shape: tuple[int, int]) -> Iterator[str]:
    """What is wrong with one file.

    Args:
        archive: has it.
        name: its.
        first: the number of its first image.
        rows: how many of its rows count.
        shape: (H, W).
    """
    import h5py
    import numpy as np

    expected = f"`data` ({ROWS}, {shape[0]}, {shape[1]}) float32"
    most = 16 * ROWS * shape[0] * shape[1] + 2**20  # float64, and as much again for what HDF5 adds
    if archive.getinfo(name).file_size > most:
        yield f"{name}: unpacks to {archive.getinfo(name).file_size} bytes, expected {expected}; write it again"
        return
    try:
        with h5py.File(io.BytesIO(archive.read(name)), "r") as file:
            data: Any = file.get("data")
            if not isinstance(data, h5py.Dataset):
                yield f"{name}: has {', '.join(map(repr, file)) or 'nothing'}, expected {expected}; call it `data`"
                return
            found = f"`data` {data.shape} {data.dtype}"
            if data.dtype != np.float32:
                yield f"{name}: {found}, expected {expected}; convert it: .astype(numpy.float32)"
                return
            if data.ndim != 3 or data.shape[1:] != shape:
                yield f"{name}: {found}, expected {expected}; give images of this size, unlike image.T of others"
                return
            if len(data) < rows:
                yield f"{name}: {found}, but {rows} of its rows count; add the images from {first + len(data)} on"
            if len(data) > ROWS:
                yield f"{name}: {found}, expected {expected}; {ROWS} images a file"
            images = data[:rows]
    except (OSError, RuntimeError, BadZipFile, zlib.error, NotImplementedError) as error:  # also where it is encrypted
        yield f"{name}: cannot be read as HDF5, it may be damaged or cut short ({error}); write it again"
        return
    for row, image in enumerate(images):
        if bad := int(np.count_nonzero(~np.isfinite(image))):
            yield f"{name}: image {first + row} (row {row}) has {bad} values that are NaN or infinite; reconstruct it"
        elif not image.any():
            yield f"{name}: image {first + row} (row {row}) is zero throughout; reconstruct it"


if __name__ == "__main__":
    run_program(main)
