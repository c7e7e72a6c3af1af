"""Checkpoints: a folder of the model's weights, and a manifest that says what they are.

    manifest.json               what the model is and how good, what it was trained on and with; names the other files
    weights-<hash>.safetensors  the learned weights
    training-<hash>.pt          the state of the optimiser and the scheduler, the epoch and the history, for resuming
    previous.json               in `last/`: the manifest of the checkpoint before, whose files are kept too

The manifest is replaced last, in one step, and names its files by their content. A crash therefore leaves the old
checkpoint whole. `load_model(place)` takes such a folder or a run folder, and needs nothing else. A place is a path,
a URI such as `s3://bucket/runs/NAME`, or the name of a model that comes with the package (`fbp_ray.shipped`).
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import safetensors.torch
import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from fbp_ray.errors import CheckpointError
from fbp_ray.geometry import Geometry
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.settings import Frozen, as_text, what_is_wrong
from fbp_ray.shipped import open_place, shipped_models
from fbp_ray.storage import Folder, Place
from fbp_ray.versions import versions

MANIFEST = "manifest.json"
PREVIOUS = "previous.json"
MOST_OF_A_MANIFEST = 1 << 23  # bytes; one that lists 100 000 angles has a quarter
MOST_OF_A_HEADER = 1 << 20  # bytes of a weights file beside the weights
SUFFIXES = {"weights": "safetensors", "training": "pt"}


def _finite_alone(metrics: Any) -> Any:
    """JSON has no number that is not finite, and null is none: such a figure is left out."""
    if not isinstance(metrics, dict):
        return metrics
    return {
        name: value
        for name, value in metrics.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }


class Manifest(Frozen):
    """What a checkpoint is: the content of manifest.json. A role is `weights` or `training`."""

    format: int = Field(default=1, ge=1, le=1)
    model: ModelConfig
    epoch: int
    metrics: Annotated[dict[str, float], BeforeValidator(_finite_alone)]
    data: dict[str, Any]
    versions: dict[str, str]
    created: datetime
    files: dict[str, Annotated[str, Field(pattern=r"^[a-z]+-[0-9a-f]+\.[a-z]+$")]]  # by role
    sha256: dict[str, str]  # by role


class Checkpoint(NamedTuple):
    """A checkpoint in memory."""

    manifest: Manifest
    contents: dict[str, bytes]  # of the files, by role


def load_model(place: Place, device: torch.device | str = "cpu", *, trainable: bool = False) -> LearnableFBP:
    """The trained model of a run folder or a checkpoint folder, ready to reconstruct.

    Its weights are frozen, so that its images are plain tensors: `model(sinogram).numpy()`.

    Args:
        place: `runs/NAME` (its best checkpoint) or a checkpoint folder; a path, or a URI such as `s3://bucket/NAME`;
            or the name of a model that comes with the package: `chest-low-dose`.
        device: where the model goes.
        trainable: the weights take gradients, to train on.

    Raises:
        CheckpointError: there is no checkpoint, a file is damaged, or the weights do not fit the manifest's model.
    """
    model, _ = read_model(place)
    return (model if trainable else model.eval().requires_grad_(False)).to(device)


def pack(
    model: LearnableFBP,
    *,
    epoch: int,
    metrics: dict[str, float],
    data: dict[str, Any],
    training: dict[str, Any] | None = None,
) -> Checkpoint:
    """A checkpoint of the model as it is now. Later changes to the model do not change it.

    Args:
        model: its configuration and its weights are kept.
        epoch: how many epochs it has been trained for.
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
    manifest = Manifest(
        model=model.config,
        epoch=epoch,
        metrics=metrics,
        data=data,
        versions=versions(),
        created=datetime.now(UTC),
        files={role: f"{role}-{digest[:12]}.{SUFFIXES[role]}" for role, digest in sha256.items()},
        sha256=sha256,
    )
    return Checkpoint(manifest, contents)


def write_checkpoint(folder: Folder, checkpoint: Checkpoint, keep_previous: bool = False) -> None:
    """Replaces the checkpoint in `folder`. The old one stays until the new one is complete.

    Args:
        folder: made when missing.
        checkpoint: what to write.
        keep_previous: keep the old checkpoint as the previous one, for `read_last` to fall back on.

    Raises:
        OSError: it could not be written. The old checkpoint is still whole.
    """
    manifest, contents = checkpoint
    kept = {MANIFEST, *manifest.files.values()}
    for role, content in contents.items():
        folder.write(manifest.files[role], content)
    if keep_previous and folder.has(MANIFEST):
        before = folder.read(MANIFEST)
        try:
            kept |= {PREVIOUS, *Manifest.model_validate_json(as_text(before)).files.values()}
            folder.write(PREVIOUS, before)
        except ValueError:  # the newest manifest is damaged, so the one before it is worth more
            kept |= {PREVIOUS, *_files_named_in(folder, PREVIOUS)}
    folder.write(MANIFEST, manifest.model_dump_json(indent=2))
    for name in folder.names():
        if name not in kept:
            folder.remove(name)


def read_model(
    place: Place, check: Callable[[Manifest], object] = lambda manifest: None
) -> tuple[LearnableFBP, Checkpoint]:
    """The model of a run folder or a checkpoint folder, and its weights and manifest, to be written elsewhere.

    Args:
        place: as `load_model` takes it.
        check: called with the manifest before the model is made; may raise.

    Raises:
        CheckpointError: there is no checkpoint, a file is damaged, or the weights do not fit the manifest's model.
    """
    folder = find_checkpoint(place)
    manifest = read_manifest(folder)
    check(manifest)
    model = LearnableFBP(manifest.model)
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    content = _read(folder, manifest, "weights", size + MOST_OF_A_HEADER)
    put_weights(model, content, str(place))
    alone = {name: {"weights": getattr(manifest, name)["weights"]} for name in ("files", "sha256")}
    return model, Checkpoint(manifest.model_copy(update=alone), {"weights": content})


def read_last(folder: Folder, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint with a training state in `folder`, or None where none was ever written.

    Args:
        folder: the `last/` of a run.
        warn: called with a message when the newest checkpoint is damaged and the one before it is used.

    Raises:
        CheckpointError: there are checkpoints, but none is whole.
    """
    problems = []
    for name in (MANIFEST, PREVIOUS):
        if not folder.has(name):
            continue
        try:
            manifest = _manifest(folder, name)
            found = Checkpoint(manifest, {role: _read(folder, manifest, role) for role in manifest.files})
            unpack_training(found.contents["training"])
        except (CheckpointError, OSError, KeyError) as error:
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


def find_checkpoint(place: Place) -> Folder:
    """The checkpoint folder that a place means: the place itself, or `best/`, else `last/`, of a run folder.

    Raises:
        CheckpointError: there is none, or the place cannot be read.
    """
    folder = open_place(place)
    try:
        for candidate in (folder, folder / "best", folder / "last"):
            if candidate.has(MANIFEST):
                return candidate
        there = "does not exist" if not folder.exists() else f"has no {MANIFEST}, and neither has its best/ or last/"
    except OSError as error:
        there = f"cannot be read: {error}"
    raise CheckpointError(
        f"{place} is no checkpoint: it {there}; give a run folder (runs/NAME) or runs/NAME/best, or the name of a "
        f"model that comes with fbp-ray: {', '.join(shipped_models())}"
    )


def read_manifest(place: Place, name: str = MANIFEST) -> Manifest:
    """The manifest of a run folder or a checkpoint folder; raises CheckpointError when it is missing or damaged."""
    folder = find_checkpoint(place)
    return _manifest(folder, name)


def check_geometry(place: Place, manifest: Manifest, geometry: Geometry) -> None:
    """Raises CheckpointError when the checkpoint at a place was trained for another geometry than that of the data."""
    theirs = manifest.model.geometry
    if theirs != geometry:
        raise CheckpointError(
            f"{place} was trained for another geometry than that of the data:\n       checkpoint {theirs}\n"
            f"       data       {geometry}\n       use data, or a checkpoint, of the same geometry"
        )


def load_weights(model: LearnableFBP, place: Place, manifest: Manifest) -> None:
    """Puts the checkpoint's weights into `model`.

    Raises:
        CheckpointError: the file is damaged, or tensors, which it names, do not fit. The model is unchanged.
    """
    put_weights(model, _read(open_place(place), manifest, "weights"), str(place))


def load_start(model: LearnableFBP, place: Place, manifest: Manifest) -> bool:
    """As `load_weights`; a checkpoint without a network gives its window, and the model's network stays as it is.

    Returns:
        Whether the checkpoint had no network for the model's.
    """
    anew = manifest.model.postprocessing.kind == "identity" != model.config.postprocessing.kind
    own = {f"postprocessing.{name}": value for name, value in model.postprocessing.state_dict().items()}
    put_weights(model, _read(open_place(place), manifest, "weights"), str(place), own if anew else None)
    return anew


def put_weights(model: LearnableFBP, content: bytes, source: str, more: dict[str, Tensor] | None = None) -> None:
    """Puts the content of a weights file into `model`, as `load_weights` does.

    Args:
        model: gets them.
        content: of the file.
        source: the file, for the error message.
        more: weights that the file lacks.
    """
    weights = safetensors.torch.load(content) | (more or {})
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
    """The training state in a checkpoint; raises CheckpointError when there is none, or it is damaged."""
    folder = find_checkpoint(place)
    manifest = read_manifest(folder)
    if "training" not in manifest.files:
        raise CheckpointError(f"{folder} holds weights only, no optimiser state; use the last/ folder of its run")
    return unpack_training(_read(folder, manifest, "training"))


def unpack_training(content: bytes) -> dict[str, Any]:
    """The training state in the content of a training file."""
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


def _manifest(folder: Folder, name: str) -> Manifest:
    try:
        return Manifest.model_validate_json(as_text(folder.read(name, MOST_OF_A_MANIFEST)))
    except (OSError, ValueError) as error:
        why = what_is_wrong(error, Manifest)
        raise CheckpointError(
            f"{folder}/{name} cannot be read: {why}; copy the checkpoint again, or use another"
        ) from None


def _read(folder: Folder, manifest: Manifest, role: str, most: int | None = None) -> bytes:
    name = manifest.files[role]
    try:
        content = folder.read(name, most)
    except OSError as error:
        raise CheckpointError(f"{folder}/{name}, which the manifest beside it names, cannot be read: {error}") from None
    if hashlib.sha256(content).hexdigest() != manifest.sha256[role]:
        raise CheckpointError(f"{folder}/{name} is damaged: its checksum is not the manifest's; copy the folder again")
    return content


def _files_named_in(folder: Folder, name: str) -> list[str]:
    """The files that a manifest names; none when it is missing or damaged."""
    try:
        return list(_manifest(folder, name).files.values())
    except CheckpointError:
        return []


def _shape(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"{tuple(tensor.shape)} {tensor.dtype}"
