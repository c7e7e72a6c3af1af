"""Reading a checkpoint: its model, its weights, its training state."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any

import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor

from fbp_ray.checkpoint.manifest import MANIFEST, PREVIOUS, Manifest, find_checkpoint, read_manifest
from fbp_ray.checkpoint.saving import Checkpoint
from fbp_ray.errors import CheckpointError
from fbp_ray.model import LearnableFBP
from fbp_ray.storage import Folder, Place, open_folder


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
