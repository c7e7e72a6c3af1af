"""A checkpoint folder: weights, and a manifest that says what they are.

    manifest.json               what the model is, how good it was, what it was trained on and with; names the others
    weights-<hash>.safetensors  the learned weights
    training-<hash>.pt          optimiser, scheduler, epoch and history, where a run is to go on from here

The manifest is replaced last and in one step, and it names its files by their content: a crash leaves the checkpoint
that was there before. `load_model(path)` takes such a folder, or a run folder, and needs nothing else.
"""

from __future__ import annotations

import hashlib
import io
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from fbp_ray.errors import CheckpointError
from fbp_ray.geometry import ParallelBeam
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.storage import write_atomically

MANIFEST = "manifest.json"


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


def save_checkpoint(
    folder: Path,
    model: LearnableFBP,
    *,
    epoch: int,
    metrics: dict[str, float],
    data: dict[str, Any],
    training: dict[str, Any] | None = None,
) -> Manifest:
    """Writes the checkpoint into `folder`, in place of the one there, which stays until the new one is complete.

    Args:
        folder: made when missing.
        model: its configuration and its weights are kept.
        epoch: the epochs that it has been trained for.
        metrics: figures on the validation part.
        data: what it was trained on.
        training: tensors, numbers, strings, lists and dictionaries that resuming needs, or None.
    """
    contents = {"weights": safetensors.torch.save({k: v.contiguous() for k, v in model.state_dict().items()})}
    if training is not None:
        buffer = io.BytesIO()
        torch.save(training, buffer)
        contents["training"] = buffer.getvalue()
    sha256 = {role: hashlib.sha256(content).hexdigest() for role, content in contents.items()}
    ending = {"weights": "safetensors", "training": "pt"}
    files = {role: f"{role}-{digest[:12]}.{ending[role]}" for role, digest in sha256.items()}
    manifest = Manifest(
        model=model.config,
        epoch=epoch,
        metrics=metrics,
        data=data,
        versions=versions(),
        created=datetime.now(UTC),
        files=files,
        sha256=sha256,
    )
    for role, content in contents.items():
        write_atomically(folder / files[role], content)
    write_atomically(folder / MANIFEST, manifest.model_dump_json(indent=2))
    for file in folder.iterdir():
        if file.name not in {MANIFEST, *files.values()}:
            file.unlink()
    return manifest


def find_checkpoint(path: Path | str) -> Path:
    """The checkpoint folder that `path` means: itself, or `best/`, else `last/`, of a run folder.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    for folder in (path, path / "best", path / "last"):
        if (folder / MANIFEST).is_file():
            return folder
    there = "does not exist" if not path.exists() else f"has no {MANIFEST}, and neither has its best/ or last/"
    raise CheckpointError(f"{path} is no checkpoint: it {there}; give a run folder (runs/NAME) or runs/NAME/best")


def read_manifest(path: Path | str) -> Manifest:
    """The manifest of a run or checkpoint folder."""
    file = find_checkpoint(path) / MANIFEST
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from None


def check_geometry(path: Path | str, geometry: ParallelBeam) -> None:
    """Raises CheckpointError when the checkpoint was trained for another geometry than that of the data."""
    theirs = read_manifest(path).model.geometry
    if theirs != geometry:
        raise CheckpointError(
            f"{path} was trained for another geometry than that of the data:\n       checkpoint {theirs}\n"
            f"       data       {geometry}\n       use data, or a checkpoint, of the same geometry"
        )


def load_model(path: Path | str, device: torch.device | str = "cpu") -> LearnableFBP:
    """The trained model of a run folder or a checkpoint folder, ready to reconstruct.

    Args:
        path: `runs/NAME` (its best checkpoint) or a checkpoint folder.
        device: where the model goes.

    Raises:
        CheckpointError: no checkpoint there, a damaged file, or weights that do not fit the manifest's model.
    """
    folder = find_checkpoint(path)
    manifest = read_manifest(folder)
    model = LearnableFBP(manifest.model)
    load_weights(model, folder, manifest)
    return model.eval().to(device)


def load_weights(model: LearnableFBP, folder: Path, manifest: Manifest) -> None:
    """Puts the checkpoint's weights into `model`; refuses leaf by leaf, and changes nothing when it refuses."""
    weights = safetensors.torch.load(_read(folder, manifest, "weights"))
    wanted: dict[str, Tensor] = model.state_dict()
    problems = [
        f"{name}: the checkpoint has {_shape(weights.get(name))}, the model {_shape(wanted.get(name))}"
        for name in sorted(weights.keys() | wanted.keys())
        if _shape(weights.get(name)) != _shape(wanted.get(name))
    ]
    if problems:
        raise CheckpointError(
            f"the weights in {folder} do not fit the model:\n       "
            + "\n       ".join(problems)
            + "\n       use a checkpoint of the same window kind and geometry, or start without one"
        )
    model.load_state_dict(weights)


def load_training(path: Path | str) -> dict[str, Any]:
    """What resuming needs from a checkpoint that has it.

    Raises:
        CheckpointError: the checkpoint has none, or it is damaged.
    """
    folder = find_checkpoint(path)
    manifest = read_manifest(folder)
    if "training" not in manifest.files:
        raise CheckpointError(f"{folder} holds weights only, no optimiser state; use the last/ folder of its run")
    state: dict[str, Any] = torch.load(
        io.BytesIO(_read(folder, manifest, "training")), map_location="cpu", weights_only=True
    )
    return state


def _read(folder: Path, manifest: Manifest, role: str) -> bytes:
    file = folder / manifest.files[role]
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}, which the manifest beside it names, cannot be read: {error}") from None
    if hashlib.sha256(content).hexdigest() != manifest.sha256[role]:
        raise CheckpointError(f"{file} is damaged: its checksum is not the manifest's; copy the folder again")
    return content


def _shape(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"{tuple(tensor.shape)} {tensor.dtype}"
