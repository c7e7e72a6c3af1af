"""What a simulation starts from: slices in Hounsfield units, whose they are, and which part each goes into.

Slices come from random thorax phantoms and from .npz files, both here, or from DICOM files (`fbp_ray.simulate.dicom`).

The phantoms have the shapes and contrasts of a chest, not its texture: good for trying things out and for tests, no
substitute for scans.

A folder of .npz files has an index.json beside them. Each .npz holds `hu`, (slices, rows, columns) in HU, and may hold
`patient`, a name for each slice. The index is a list:

    [{"file": "a.npz", "patient": "A-0001", "collection": "LIDC-IDRI", "licence": "CC BY 3.0", "split": "train"}]

`split` is train, validation or test, for all of the entries or for none.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fbp_ray.errors import ConfigError, DataError
from fbp_ray.settings import as_text, explain_json
from fbp_ray.simulate.protocol import AIR_HU, generator

INDEX = "index.json"
INDEX_EXAMPLE = '[{"file": "a.npz", "patient": "A", "collection": "LIDC-IDRI", "licence": "CC BY 3.0"}, ..]'
SPLIT = (0.8, 0.1, 0.1)
"""Parts of the patients for train, validation and test, where neither the source nor the user says otherwise."""

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Slice:
    """One axial slice."""

    name: str
    """Names it within its source; its noise is drawn from this name and the seed."""

    patient: str

    load: Callable[[], NDArray[np.generic]]
    """Gives (rows, columns) in HU, rows from front to back; may raise DataError."""

    part: Part | None = None
    """Where the source says that it belongs."""


@dataclass(frozen=True)
class Origin:
    """Where scans come from and on what terms; written beside the data, as the licences ask."""

    patient: str
    collection: str
    licence: str
    reference: str = ""


@dataclass(frozen=True)
class Source:
    """A set of slices in the order of the body, patient by patient."""

    kind: str
    """What they are, in a few words."""

    slices: tuple[Slice, ...]
    origins: tuple[Origin, ...] = ()

    split: str = ""
    """How the source itself divides them into parts, in a sentence; empty where it does not."""

    passed_over: Mapping[str, int] = field(default_factory=dict)
    """How many files there were besides, by their kind."""


def divide(
    source: Source, split: tuple[float, float, float] | None, limits: Mapping[Part, int | None], seed: int
) -> dict[Part, list[Slice]]:
    """The slices of each part that has any, in the order to write them.

    They are in a random order, as in LoDoPaB-CT, so that the first so many are a fair subset.

    Args:
        source: its own split is kept; otherwise whole patients are drawn for each part.
        split: parts of the patients for train, validation and test; None means SPLIT.
        limits: the most slices to take of a part, evenly spaced; None takes all.
        seed: of the split and the order.

    Raises:
        ConfigError: there are fewer patients than parts, or `--split` is given for a source that has its own.
        DataError: nothing is left.
    """
    if source.split and split:
        raise ConfigError(f"--split does not apply to this source, which has its own ({source.split}); leave it out")
    slices = source.slices if source.split else _by_patient(source.slices, split or SPLIT, seed)
    parts: dict[Part, list[Slice]] = {}
    for part in PARTS:
        there = [piece for piece in slices if piece.part == part]
        kept = _spaced(there, limits.get(part))
        if kept:
            parts[part] = [kept[k] for k in generator(seed, f"order of {part}").permutation(len(kept))]
    if not parts:
        raise DataError("no sample is left: raise --train, --validation or --test")
    return parts


def _spaced(slices: list[Slice], limit: int | None) -> list[Slice]:
    if limit is None or limit >= len(slices):
        return slices
    return [slices[k] for k in np.linspace(0, len(slices) - 1, limit).round().astype(int)]


def _by_patient(slices: tuple[Slice, ...], split: tuple[float, float, float], seed: int) -> list[Slice]:
    patients = sorted({piece.patient for piece in slices})
    counts = _patients_per_part(len(patients), np.asarray(split) / sum(split))
    drawn = generator(seed, "split").permutation(np.repeat(np.arange(len(PARTS)), counts))
    part = {patient: PARTS[number] for patient, number in zip(patients, drawn, strict=True)}
    return [replace(piece, part=part[piece.patient]) for piece in slices]


def _patients_per_part(patients: int, split: NDArray[np.float64]) -> NDArray[np.int64]:
    """The number of patients in each part: as near to the split as can be, one at least where it is not 0."""
    wanted = np.count_nonzero(split)
    if patients < wanted:
        raise ConfigError(
            f"the slices are of {patients} patient{'s'[: patients != 1]}, too few for {wanted} parts, which never "
            "share a patient; choose fewer parts, for example --split 1,0,0 to put all into train (or 0,0,1: into test)"
        )
    quota = split * patients
    counts = np.maximum(np.floor(quota), split > 0).astype(np.int64)
    while counts.sum() < patients:
        counts[np.argmax(np.where(split > 0, quota - counts, -np.inf))] += 1
    while counts.sum() > patients:
        counts[np.argmax(np.where(counts > 1, counts - quota, -np.inf))] -= 1
    return counts


class _Entry(BaseModel):
    """One line of the index; whatever else it says is of no use here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    file: str
    patient: str
    collection: str
    licence: str
    split: Part | None = None


def stack_folder(folder: Path) -> Source:
    """The slices that a folder's index.json lists.

    Raises:
        DataError: the index is damaged or mixes entries with and without `split`, or a file is missing, damaged, or
            without an array `hu` of slices.
    """
    path = folder / INDEX
    try:
        entries = TypeAdapter(list[_Entry]).validate_json(as_text(path.read_bytes()))
    except ValidationError as error:
        raise DataError(f"{path} should be {INDEX_EXAMPLE}, but is not: {explain_json(error)}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if len({entry.split is None for entry in entries}) > 1:
        raise DataError(f"{path}: give `split` (train, validation or test) in every entry, or in none")
    slices = [piece for entry in entries for piece in _stack(folder, entry)]
    if not slices:
        raise DataError(f"{path} lists no slices")
    divided = entries[0].split is not None
    return Source(
        "CT slices from .npz files",
        tuple(slices),
        tuple(Origin(entry.patient, entry.collection, entry.licence) for entry in entries),
        split=f"as {INDEX} says" if divided else "",
    )


def _stack(folder: Path, entry: _Entry) -> list[Slice]:
    path = folder / entry.file
    if not path.is_file():
        raise DataError(f"{folder / INDEX} names {entry.file}, which is not there; add it, or take out its entry")
    try:
        with path.open("rb") as file, NpzFile(file, allow_pickle=False) as arrays:
            if "hu" not in arrays:
                raise DataError(f"{path} should have an array `hu` (slices, rows, columns), but has {sorted(arrays)}")
            stack: NDArray[np.generic] = arrays["hu"]
            patients = arrays["patient"] if "patient" in arrays else np.full(stack.shape[:1], entry.patient)
    except (OSError, ValueError, BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if stack.ndim != 3 or stack.dtype.kind not in "iuf" or patients.shape != stack.shape[:1]:
        raise DataError(
            f"{path}: `hu` should be numbers of shape (slices, rows, columns) and `patient`, where there is one, a "
            f"name for each slice; got {stack.dtype} {stack.shape} and {patients.shape}"
        )
    return [
        Slice(f"{entry.file}[{number}]", str(patients[number]), partial(stack.__getitem__, number), entry.split)
        for number in range(len(stack))
    ]


class Ellipse(NamedTuple):
    """Sizes and places in halves of the image: x to the right, y downwards, both -1 to 1; the angle in radians."""

    x: float
    y: float
    a: float
    b: float
    angle: float
    hounsfield: float


def phantoms(counts: dict[Part | None, int], shape: tuple[int, int], seed: int) -> Source:
    """As many phantoms for each part, each its own patient; part None leaves it to the split.

    Args:
        counts: the number for each part.
        shape: (H, W) of the image that will be made of them.
        seed: of their anatomy.
    """
    slices = []
    for part, count in counts.items():
        for number in range(count):
            name = f"phantom {number}" if part is None else f"{part} phantom {number}"
            slices.append(Slice(name, name, partial(_draw_phantom, name, shape, seed), part))
    return Source("phantoms", tuple(slices), split="each part has its own phantoms" if None not in counts else "")


def _draw_phantom(name: str, shape: tuple[int, int], seed: int) -> NDArray[np.float32]:
    return draw(thorax(generator(seed, f"anatomy of {name}")), (shape[1], shape[0]))


def thorax(random: np.random.Generator) -> list[Ellipse]:
    """The ellipses of one chest, each drawn over those before it."""

    def around(value: float, spread: float = 0.08) -> float:
        return value * random.uniform(1 - spread, 1 + spread)

    width, depth = around(0.86), around(0.62)
    lung = random.uniform(-900, -780)
    body = [
        Ellipse(0, 0, width, depth, 0, around(-100)),  # fat
        Ellipse(0, 0, width - around(0.06, 0.5), depth - around(0.06, 0.5), 0, around(50, 0.3)),  # muscle
    ]
    lungs = [
        Ellipse(
            side * around(0.48) * width,
            around(-0.02, 1),
            around(0.36) * width,
            around(0.66) * depth,
            side * around(0.12),
            lung,
        )
        for side in (-1, 1)
    ]
    vessels = []
    for chosen in random.integers(0, 2, size=random.integers(20, 50)):
        size = random.exponential(0.012) + 0.005
        vessels.append(_within(lungs[chosen], size, size * random.uniform(0.4, 1), random, random.uniform(-50, 80)))
    for chosen in random.integers(0, 2, size=random.integers(0, 4)):
        size = random.uniform(0.015, 0.06)
        vessels.append(_within(lungs[chosen], size, size, random, random.uniform(-100, 100)))
    middle = [
        Ellipse(0, around(-0.05, 1), around(0.16), around(0.62) * depth, 0, around(30, 0.4)),  # mediastinum
        Ellipse(
            around(0.12, 0.6), around(-0.2) * depth, around(0.26), around(0.22), around(0.5), around(45, 0.3)
        ),  # heart
        Ellipse(around(0.1), around(0.42) * depth, around(0.05), around(0.05), 0, around(150, 0.7)),  # aorta
        Ellipse(0, around(0.1, 1), 0.03, 0.03, 0, AIR_HU),  # trachea
    ]
    spine = around(0.62) * depth
    bones = [
        Ellipse(0, spine, around(0.13), around(0.1), 0, around(600)),
        Ellipse(0, spine, around(0.11), around(0.08), 0, around(250)),
        Ellipse(0, spine + 0.13, around(0.08), around(0.05), 0, around(500)),
        Ellipse(0, spine + 0.11, 0.035, 0.035, 0, around(30)),  # spinal canal
        Ellipse(0, -0.84 * depth, around(0.1), 0.025, 0, around(350)),  # sternum
    ]
    start = random.uniform(0, 2 * np.pi)
    for turn in start + np.linspace(0, 2 * np.pi, random.integers(10, 17), endpoint=False):
        x, y = 0.87 * width * np.cos(turn), 0.87 * depth * np.sin(turn)
        tangent = float(np.arctan2(depth * np.cos(turn), -width * np.sin(turn)))
        bones.append(Ellipse(x, y, around(0.07, 0.4), around(0.022), tangent, around(700)))
        bones.append(Ellipse(x, y, around(0.05, 0.4), around(0.011), tangent, around(200)))
    return [*body, *lungs, *vessels, *middle, *bones]


def _within(lung: Ellipse, a: float, b: float, random: np.random.Generator, hounsfield: float) -> Ellipse:
    turn, reach = random.uniform(0, 2 * np.pi), 0.85 * np.sqrt(random.random())
    x = lung.x + reach * lung.a * np.cos(turn)
    y = lung.y + reach * lung.b * np.sin(turn)
    return Ellipse(x, y, a, b, random.uniform(0, np.pi), hounsfield)


def draw(ellipses: list[Ellipse], shape: tuple[int, int]) -> NDArray[np.float32]:
    """(rows, columns) float32 in HU, air around; edges are about a pixel wide, as a scanner's are."""
    rows, columns = shape
    y = ((np.arange(rows) + 0.5) / rows * 2 - 1)[:, None]
    x = ((np.arange(columns) + 0.5) / columns * 2 - 1)[None, :]
    edge = 2 / min(shape)
    image = np.full(shape, AIR_HU, np.float32)
    for ellipse in ellipses:
        reach = max(ellipse.a, ellipse.b) + 2 * edge
        box = np.s_[
            slice(*np.searchsorted(y[:, 0], (ellipse.y - reach, ellipse.y + reach))),
            slice(*np.searchsorted(x[0], (ellipse.x - reach, ellipse.x + reach))),
        ]
        dx, dy = x[:, box[1]] - ellipse.x, y[box[0]] - ellipse.y
        along = dx * np.cos(ellipse.angle) + dy * np.sin(ellipse.angle)
        across = dy * np.cos(ellipse.angle) - dx * np.sin(ellipse.angle)
        inwards = (1 - np.hypot(along / ellipse.a, across / ellipse.b)) * min(ellipse.a, ellipse.b)
        covered = np.clip(inwards / edge + 0.5, 0, 1)
        image[box] += (covered * (ellipse.hounsfield - image[box])).astype(np.float32)
    return image
