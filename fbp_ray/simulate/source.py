"""What a simulation starts from: slices in Hounsfield units, whose they are and where they come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

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
