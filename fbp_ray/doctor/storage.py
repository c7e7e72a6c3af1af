"""One folder for the runs, which every machine reads and writes: each leaves a file there, and each sees them all."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal
from uuid import uuid4

from fbp_ray.doctor.finding import Finding, some
from fbp_ray.doctor.machines import Machines, Trouble, answered, troubles
from fbp_ray.storage import LocalFolder, open_folder

SECONDS = 60.0
SETTLE_SECONDS = 5.0  # in which a file that one machine wrote appears on another
ONE_FOR_ALL = (
    "every machine must read and write the same folder: use one that all of them mount under the same path, or an "
    "object store (s3://bucket/runs), for --run.storage"
)
USABLE = "name a folder, or the URI of one, that can be read and written: --run.storage"

Sight = Literal["seen", "another folder", "no folder"]


def begin(place: str, probe: str) -> list[str]:
    """Writes the first file, reads it and lists what is there.

    Returns:
        The folders that had to be made for it, innermost first.

    Raises:
        OSError: that cannot be done.
        ConfigError: there is no such kind of storage, or it does not answer.
    """
    folder = open_folder(place)
    made = []
    if isinstance(folder, LocalFolder):
        made = [str(path) for path in (folder.path, *folder.path.parents) if not path.exists()]
    try:
        folder.write(probe, probe)
        if folder.read(probe).decode() != probe or probe not in folder.names():
            raise OSError(f"a file that was written to {folder} is not there, or has another content")
        folder.folders()
    except BaseException:
        with contextlib.suppress(OSError):
            clear(place, [probe], made)
        raise
    return made


def join(place: str, first: str, probe: str) -> Sight:
    """Looks for the first machine's file, and writes one of this machine if it is there: nothing, if it is not."""
    folder = open_folder(place)
    if not _appears(place, [first]):
        return "another folder" if folder.exists() else "no folder"
    if folder.read(first).decode() != first:
        raise OSError(f"{folder}/{first} has another content than was written")
    folder.write(probe, probe)
    return "seen"


def unseen(place: str, probes: Sequence[str]) -> list[str]:
    """The files that this machine does not see, even after a while."""
    return [probe for probe in probes if not _appears(place, [probe])]


def _appears(place: str, probes: Sequence[str]) -> bool:
    folder = open_folder(place)
    until = time.monotonic() + SETTLE_SECONDS
    while not all(folder.has(probe) for probe in probes):
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def clear(place: str, probes: Sequence[str], made: Sequence[str] = ()) -> None:
    """Removes the files, and the folders that were made for them."""
    folder = open_folder(place)
    for probe in probes:
        folder.remove(probe)
    for path in made:
        with contextlib.suppress(OSError):
            Path(path).rmdir()


def check_storage(machines: Machines, place: str) -> Iterator[Finding]:
    """Has the first machine write a file, the others look for it and write their own, and all look for all.

    Args:
        machines: which.
        place: an absolute path, or a URI.
    """
    token = uuid4().hex
    probes = {name: f"probe-{token}-{number}" for number, name in enumerate(machines.names)}
    first, *others = machines.names
    made = machines.ask({first: functools.partial(begin, place, probes[first])}, SECONDS)[first]
    if isinstance(made, Trouble):
        yield Finding("storage", first, "fault", f"{place} cannot be used: {made.text}", USABLE)
        return
    written = [first]
    try:
        calls = {name: functools.partial(join, place, probes[first], probes[name]) for name in others}
        answers: dict[str, Sight | Trouble] = machines.ask(calls, SECONDS)
        yield from troubles("storage", answers, ONE_FOR_ALL)
        sights: dict[str, Sight] = answered(answers)
        yield from judge(first, sights, place)
        written += [name for name, sight in sights.items() if sight == "seen"]
        whole = machines.ask(
            {name: functools.partial(unseen, place, [probes[one] for one in written]) for name in written},
            SECONDS + SETTLE_SECONDS * len(written),
        )
        yield from troubles("storage", whole, ONE_FOR_ALL)
        writers = {probe: name for name, probe in probes.items()}
        blind = {name: [writers[probe] for probe in missing] for name, missing in answered(whole).items() if missing}
        for name, missed in blind.items():
            text = f"{place} does not show what {some(missed)} wrote"
            yield Finding("storage", name, "fault", text, ONE_FOR_ALL)
        if len(written) == len(probes) == len(answered(whole)) and not blind:
            text = f"{place} can be read and written"
            if others:
                text = f"what each writes to {place}, all others see"
            yield Finding("storage", some(list(probes)), "ok", text)
    finally:
        machines.ask({name: functools.partial(clear, place, [probes[name]]) for name in written[1:]}, SECONDS)
        machines.ask({first: functools.partial(clear, place, list(probes.values()), made)}, SECONDS)


def judge(first: str, sights: dict[str, Sight], folder: str) -> Iterator[Finding]:
    """A fault for each machine that does not see what the first one wrote."""
    for name, sight in sights.items():
        if sight == "no folder":
            text = f"there is no folder {folder}, which {first} wrote to"
            yield Finding("storage", name, "fault", text, ONE_FOR_ALL)
        elif sight == "another folder":
            text = f"{folder} is a folder of this machine's own: it does not show what {first} wrote to {folder}"
            yield Finding("storage", name, "fault", text, ONE_FOR_ALL)
