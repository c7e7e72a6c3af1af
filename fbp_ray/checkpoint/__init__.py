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

from fbp_ray.checkpoint.loading import (
    load_model,
    load_training,
    load_weights,
    put_weights,
    read_checkpoint,
    read_last,
    unpack_training,
)
from fbp_ray.checkpoint.manifest import (
    MANIFEST,
    PREVIOUS,
    Manifest,
    check_geometry,
    find_checkpoint,
    read_manifest,
    versions,
)
from fbp_ray.checkpoint.saving import Checkpoint, pack, save_checkpoint, write_checkpoint

__all__ = [
    "MANIFEST",
    "PREVIOUS",
    "Checkpoint",
    "Manifest",
    "check_geometry",
    "find_checkpoint",
    "load_model",
    "load_training",
    "load_weights",
    "pack",
    "put_weights",
    "read_checkpoint",
    "read_last",
    "read_manifest",
    "save_checkpoint",
    "unpack_training",
    "versions",
    "write_checkpoint",
]
