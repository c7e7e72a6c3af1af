"""Writing a checkpoint, in two steps: `pack` takes the model as it is, `write_checkpoint` may take its time."""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime
from typing import Any, NamedTuple

import safetensors.torch
import torch
from pydantic import ValidationError

from fbp_ray.checkpoint.manifest import MANIFEST, PREVIOUS, Manifest, versions
from fbp_ray.model import LearnableFBP
from fbp_ray.storage import Folder, Place, open_folder


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
