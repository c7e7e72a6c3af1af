"""The training data: readable on every machine, and the same on all of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from fbp_ray.data import LoDoPaB, geometry_of
from fbp_ray.doctor.finding import Finding, some, usual
from fbp_ray.doctor.machines import Machines, answered, troubles

SECONDS = 120.0
PARTS = ("train", "validation")
SAME = (
    "every machine must have the same files under the same path (--data.dir): mount the folder there, or copy it whole"
)


class Opened(NamedTuple):
    """What a machine finds in a data folder."""

    samples: tuple[tuple[str, int], ...]
    """How many in each part."""

    sinogram: tuple[int, int]
    image: tuple[int, int]
    geometry: str
    """The digest that names the geometry."""

    def __str__(self) -> str:
        counts = " and ".join(f"{count} {part}" for part, count in self.samples)
        return f"{counts} samples, sinograms {self.sinogram}, images {self.image}, geometry {self.geometry}"


def open_data(folder: str) -> Opened:
    """Opens the parts that training reads, and reads the first and the last sample of each.

    Raises:
        DataError: the folder or a file is missing or damaged.
        GeometryError: the files hold arrays of another shape.
    """
    geometry = geometry_of(folder)
    parts = {part: LoDoPaB(folder, part, geometry) for part in PARTS}
    for dataset in parts.values():
        for index in {0, len(dataset) - 1}:
            dataset[index]
    counts = tuple((part, len(dataset)) for part, dataset in parts.items())
    return Opened(counts, geometry.sinogram_shape, geometry.image_shape, geometry.digest)


def check_data(machines: Machines, folder: Path) -> Iterator[Finding]:
    """Has every machine open the folder, and compares."""
    answers = machines.everywhere(functools.partial(open_data, str(folder.absolute())), SECONDS)
    yield from troubles("data", answers, SAME)
    yield from judge(answered(answers))


def judge(found: Mapping[str, Opened]) -> Iterator[Finding]:
    """A fault for each machine whose data are others than those of most."""
    if not found:
        return
    most = usual(found.values())
    like = [name for name, there in found.items() if there == most]
    for name, there in found.items():
        if there != most:
            yield Finding("data", name, "fault", f"{there}; but on {some(like)}: {most}", SAME)
    yield Finding("data", some(like), "ok", str(most))
