"""The manifest of a checkpoint, and where to find one."""

from __future__ import annotations

import platform
from datetime import datetime
from importlib import metadata
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fbp_ray.errors import CheckpointError
from fbp_ray.geometry import ParallelBeam
from fbp_ray.model import ModelConfig
from fbp_ray.storage import Folder, Place, open_folder

MANIFEST = "manifest.json"
PREVIOUS = "previous.json"


class Manifest(BaseModel):
    """What a checkpoint is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = Field(default=1, ge=1, le=1)
    model: ModelConfig
    epoch: int
    metrics: dict[str, float]
    data: dict[str, Any]
    versions: dict[str, str]
    created: datetime
    files: dict[
        str, Annotated[str, Field(pattern=r"^[a-z]+-[0-9a-f]+\.[a-z]+$")]
    ]  # role (weights, training) -> file name
    sha256: dict[str, str]  # role -> checksum


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    names = ("fbp-ray", "torch", "numpy", "numba", "piq", "ray", "h5py", "pydantic", "safetensors")
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def find_checkpoint(place: Place) -> Folder:
    """The checkpoint folder that a place means: itself, or `best/`, else `last/`, of a run folder.

    Raises:
        CheckpointError: there is none, or the place cannot be read.
    """
    folder = open_folder(place)
    try:
        for candidate in (folder, folder / "best", folder / "last"):
            if candidate.has(MANIFEST):
                return candidate
        there = "does not exist" if not folder.exists() else f"has no {MANIFEST}, and neither has its best/ or last/"
    except OSError as error:
        there = f"cannot be read: {error}"
    raise CheckpointError(f"{place} is no checkpoint: it {there}; give a run folder (runs/NAME) or runs/NAME/best")


def read_manifest(place: Place, name: str = MANIFEST) -> Manifest:
    """The manifest of a run or checkpoint folder."""
    folder = find_checkpoint(place)
    try:
        return Manifest.model_validate_json(folder.read(name))
    except (OSError, ValidationError) as error:
        raise CheckpointError(f"{folder}/{name} cannot be read: {error}") from None


def check_geometry(place: Place, geometry: ParallelBeam) -> None:
    """Raises CheckpointError when the checkpoint was trained for another geometry than that of the data."""
    theirs = read_manifest(place).model.geometry
    if theirs != geometry:
        raise CheckpointError(
            f"{place} was trained for another geometry than that of the data:\n       checkpoint {theirs}\n"
            f"       data       {geometry}\n       use data, or a checkpoint, of the same geometry"
        )
