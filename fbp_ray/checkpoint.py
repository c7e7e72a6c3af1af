"""A checkpoint folder: weights, and a manifest that says what they are.

    manifest.json               what the model is, how good it was, what it was trained on and with; names the others
    weights-<hash>.safetensors  the learned weights
    training-<hash>.pt          optimiser, scheduler, epoch and history, where a run is to go on from here
    previous.json               in `last/`, the manifest of the checkpoint before, whose files stay too

The manifest is replaced last and in one step, and it names its files by their content: a crash leaves the checkpoint
that was there before. `load_model(place)` takes such a folder, or a run folder, and needs nothing else; a place is a
path, or a URI such as `s3://bucket/runs/NAME`.
"""

from __future__ import annotations

import hashlib
import io
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from typing import Annotated, Any, NamedTuple

import safetensors.torch
import torch
from pydantic import Field, ValidationError
from torch import Tensor

from fbp_ray.errors import CheckpointError
from fbp_ray.geometry import ParallelBeam
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.settings import Frozen
from fbp_ray.storage import Folder, Place, open_folder

MANIFEST = "manifest.json"
PREVIOUS = "previous.json"


class Manifest(Frozen):
    """What a checkpoint is."""

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


class Checkpoint(NamedTuple):
    """A checkpoint in memory, ready to be written."""

    manifest: Manifest
    contents: dict[str, bytes]  # by role


def pack(
    model: LearnableFBP,
    *,
    epoch: int,
    metrics: dict[str, float],
    data: dict[str, Any],
    training: dict[str, Any] | None = None,
) -> Checkpoint:
    """A checkpoint of the model as it is now; what is done to the model later does not change it.

    Args:
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
    manifest = Manifest(
        model=model.config,
        epoch=epoch,
        metrics=metrics,
        data=data,
        versions=versions(),
        created=datetime.now(UTC),
        files={role: f"{role}-{digest[:12]}.{ending[role]}" for role, digest in sha256.items()},
        sha256=sha256,
    )
    return Checkpoint(manifest, contents)


def write_checkpoint(folder: Folder, checkpoint: Checkpoint, keep_previous: bool = False) -> None:
    """Writes the checkpoint in place of the one in `folder`, which stays until the new one is complete.

    Args:
        folder: made when missing.
        checkpoint: what to write.
        keep_previous: the checkpoint that was there stays as the previous one, for `read_last` to fall back on.

    Raises:
        OSError: it could not be written; the checkpoint that was there is whole.
    """
    manifest, contents = checkpoint
    kept = {MANIFEST, *manifest.files.values()}
    for role, content in contents.items():
        folder.write(manifest.files[role], content)
    if keep_previous and folder.has(MANIFEST):
        before = folder.read(MANIFEST)
        try:
            kept |= {PREVIOUS, *Manifest.model_validate_json(before).files.values()}
            folder.write(PREVIOUS, before)
        except ValidationError:  # damaged: the one before it is worth more
            kept |= {PREVIOUS, *_files_named(folder, PREVIOUS)}
    folder.write(MANIFEST, manifest.model_dump_json(indent=2))
    for name in folder.names():
        if name not in kept:
            folder.remove(name)


def save_checkpoint(
    folder: Place,
    model: LearnableFBP,
    *,
    epoch: int,
    metrics: dict[str, float],
    data: dict[str, Any],
    training: dict[str, Any] | None = None,
) -> Manifest:
    """Packs and writes a checkpoint; arguments as for `pack`."""
    checkpoint = pack(model, epoch=epoch, metrics=metrics, data=data, training=training)
    write_checkpoint(open_folder(folder), checkpoint)
    return checkpoint.manifest


def _files_named(folder: Folder, name: str) -> list[str]:
    try:
        return list(Manifest.model_validate_json(folder.read(name)).files.values())
    except (OSError, ValidationError):
        return []


def load_model(place: Place, device: torch.device | str = "cpu") -> LearnableFBP:
    """The trained model of a run folder or a checkpoint folder, ready to reconstruct.

    Args:
        place: `runs/NAME` (its best checkpoint) or a checkpoint folder; a path, or a URI such as `s3://bucket/NAME`.
        device: where the model goes.

    Raises:
        CheckpointError: no checkpoint there, a damaged file, or weights that do not fit the manifest's model.
    """
    folder = find_checkpoint(place)
    manifest = read_manifest(folder)
    model = LearnableFBP(manifest.model)
    load_weights(model, folder, manifest)
    return model.eval().to(device)


def read_checkpoint(place: Place) -> Checkpoint:
    """The weights of a run folder or a checkpoint folder and what they are, to be written elsewhere.

    Raises:
        CheckpointError: no checkpoint there, or a damaged file.
    """
    folder = find_checkpoint(place)
    manifest = read_manifest(folder)
    weights = {name: {"weights": getattr(manifest, name)["weights"]} for name in ("files", "sha256")}
    return Checkpoint(manifest.model_copy(update=weights), {"weights": _read(folder, manifest, "weights")})


def load_weights(model: LearnableFBP, place: Place, manifest: Manifest) -> None:
    """Puts the checkpoint's weights into `model`; refuses leaf by leaf, and changes nothing when it refuses."""
    put_weights(model, _read(open_folder(place), manifest, "weights"), str(place))


def put_weights(model: LearnableFBP, content: bytes, source: str) -> None:
    """Puts the content of a weights file into `model`, as `load_weights` does."""
    weights = safetensors.torch.load(content)
    wanted: dict[str, Tensor] = model.state_dict()
    problems = [
        f"{name}: the checkpoint has {_shape(weights.get(name))}, the model {_shape(wanted.get(name))}"
        for name in sorted(weights.keys() | wanted.keys())
        if _shape(weights.get(name)) != _shape(wanted.get(name))
    ]
    if problems:
        raise CheckpointError(
            f"the weights in {source} do not fit the model:\n       "
            + "\n       ".join(problems)
            + "\n       use a checkpoint of the same window kind and geometry, or start without one"
        )
    model.load_state_dict(weights)


def load_training(place: Place) -> dict[str, Any]:
    """What resuming needs from a checkpoint that has it.

    Raises:
        CheckpointError: the checkpoint has none, or it is damaged.
    """
    folder = find_checkpoint(place)
    manifest = read_manifest(folder)
    if "training" not in manifest.files:
        raise CheckpointError(f"{folder} holds weights only, no optimiser state; use the last/ folder of its run")
    return unpack_training(_read(folder, manifest, "training"))


def unpack_training(content: bytes) -> dict[str, Any]:
    """The training state in the content of a training file."""
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def read_last(folder: Folder, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint with a training state in `folder`, None where none was ever written.

    Args:
        folder: the `last/` of a run.
        warn: is told when the newest one is damaged and the one before it is taken.

    Raises:
        CheckpointError: there are checkpoints, but none is whole.
    """
    problems = []
    for name in (MANIFEST, PREVIOUS):
        if not folder.has(name):
            continue
        try:
            manifest = Manifest.model_validate_json(folder.read(name))
            found = Checkpoint(manifest, {role: _read(folder, manifest, role) for role in manifest.files})
            unpack_training(found.contents["training"])
        except (CheckpointError, ValidationError, OSError, KeyError) as error:
            problems.append(f"{folder}/{name}: {error}")
            continue
        if problems:
            warn(f"the last checkpoint is damaged, going on from the one before, epoch {manifest.epoch}: {problems[0]}")
        return found
    if problems:
        raise CheckpointError(
            "neither the last checkpoint nor the one before it is whole:\n       "
            + "\n       ".join(problems)
            + f"\n       remove {folder} to start again, or start a new run from {folder.parent / 'best'} with "
            "--init.checkpoint"
        )
    return None


def _read(folder: Folder, manifest: Manifest, role: str) -> bytes:
    name = manifest.files[role]
    try:
        content = folder.read(name)
    except OSError as error:
        raise CheckpointError(f"{folder}/{name}, which the manifest beside it names, cannot be read: {error}") from None
    if hashlib.sha256(content).hexdigest() != manifest.sha256[role]:
        raise CheckpointError(f"{folder}/{name} is damaged: its checksum is not the manifest's; copy the folder again")
    return content


def _shape(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"{tuple(tensor.shape)} {tensor.dtype}"
