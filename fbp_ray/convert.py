"""`python -m fbp_ray.convert --unet FILE --window hann --cutoff 1.0 --out RUN`: published weights as a run folder.

FILE holds the state dict of the U-Net that LoDoPaB-CT's authors published (`fbp_ray.networks.unet`), which takes the
image of a classic FBP. The run folder evaluates and serves like one that was trained here.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from fbp_ray.cli import parse, run_program
from fbp_ray.config import Count
from fbp_ray.data.layout import geometry_of
from fbp_ray.errors import CheckpointError, DataError, RunError
from fbp_ray.geometry import Geometry, ParallelBeam
from fbp_ray.settings import Frozen, LocalPath
from fbp_ray.stage_settings import WindowName

if TYPE_CHECKING:
    from torch import Tensor

    from fbp_ray.model import LearnableFBP

SUFFIXES = (".pth", ".pt", ".npz", ".safetensors")


def _known(file: Path) -> Path:
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, which says how it is read")
    return file


class ConvertData(Frozen):
    """The scans that the network is for."""

    dir: LocalPath | None = Field(default=None, description="data folder whose geometry it is; without it LoDoPaB-CT's")
    every: Count = Field(default=1, description="each so many of its angles")


class ConvertConfig(Frozen):
    """Makes a run folder of the published weights of a U-Net after a classic FBP, strictly: every name and shape."""

    unet: Annotated[LocalPath, AfterValidator(_known)] = Field(
        description="its state dict: .pth of torch.save, .npz or .safetensors"
    )
    out: LocalPath = Field(description="new run folder")
    window: WindowName = Field(default="hann", description="window of the FBP that it was trained after")
    cutoff: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=1.0, description="the window's cut-off, a fraction of the Nyquist frequency"
    )
    data: ConvertData = ConvertData()


def main(argv: Sequence[str]) -> None:
    """Converts the weights that the options name."""
    config = parse(ConvertConfig, argv, "python -m fbp_ray.convert")
    if not config.unet.is_file():
        raise CheckpointError(f"there is no file {config.unet}; --unet names a state dict")
    if config.data.dir is not None and not config.data.dir.is_dir():
        raise DataError(f"there is no data folder {config.data.dir}; leave out --data.dir for LoDoPaB-CT's geometry")
    geometry = geometry_of(config.data.dir) if config.data.dir else ParallelBeam.lodopab()
    _check_new(config.out)
    model = converted(config, geometry.every(config.data.every))
    _write(config, model)
    print(
        f"Wrote {config.out}; to try it: python -m fbp_ray.evaluate --checkpoint {config.out} --data.dir "
        f"{config.data.dir or 'DIR'}"
    )


def converted(config: ConvertConfig, geometry: Geometry) -> LearnableFBP:
    """The model with the weights of the file.

    Raises:
        CheckpointError: the file cannot be read, holds no single state dict, or one of another architecture.
        GeometryError: the geometry's images are too small for the network.
    """
    from fbp_ray.model import LearnableFBP, ModelConfig
    from fbp_ray.stage_settings import PostprocessingConfig, WindowConfig

    window = WindowConfig(kind="fixed", init=config.window, cutoff=config.cutoff)
    network = PostprocessingConfig(kind="unet", residual=False)
    model = LearnableFBP(ModelConfig(geometry=geometry, window=window, postprocessing=network))
    weights = read_state(config.unet)
    check_same(weights, model.postprocessing.state_dict(), config.unet)
    model.postprocessing.load_state_dict(weights)
    return model.eval()


def read_state(file: Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name.

    One that stands in a dictionary beside other things is found if it is the only one; `module.`, which
    `torch.nn.DataParallel` puts before every name, is taken off.

    Raises:
        CheckpointError: the file cannot be read without running code in it, or holds none or several.
    """
    try:
        content = _content(file)
    except Exception as error:  # the libraries raise almost anything for a damaged file
        raise CheckpointError(
            f"{file} cannot be read ({type(error).__name__}): it is damaged or holds more than tensors; save the state "
            "dict alone, for example torch.save(model.state_dict(), FILE)"
        ) from None
    inside = content.items() if isinstance(content, Mapping) else ()
    states = {"": content} if _is_state(content) else {str(name): part for name, part in inside if _is_state(part)}
    if len(states) != 1:
        there = f"the state dicts {', '.join(states)}" if states else "no state dict, which has a tensor for each name"
        raise CheckpointError(f"{file} holds {there}; save one alone: torch.save(model.state_dict(), FILE)")
    (state,) = states.values()
    prefix = "module." if all(name.startswith("module.") for name in state) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _content(file: Path) -> Any:
    import numpy as np
    import safetensors.torch
    import torch

    with file.open("rb") as opened:
        match file.suffix.lower():
            case ".safetensors":
                return safetensors.torch.load(opened.read())
            case ".npz":
                archive = np.load(opened, allow_pickle=False)
                return {name: torch.from_numpy(archive[name]) for name in archive.files}
        return torch.load(opened, map_location="cpu", weights_only=True)


def _is_state(content: Any) -> bool:
    from torch import Tensor

    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )


def check_same(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], file: Path) -> None:
    """Raises CheckpointError, which names the first tensor that differs, where weights are not those of a network."""
    for name in dict.fromkeys([*wanted, *weights]):
        expected, came = _described(wanted.get(name)), _described(weights.get(name))
        if expected != came:
            raise CheckpointError(
                f"{file} is not of the published U-Net: the first tensor that differs is {name}, expected {expected}, "
                f"came {came}"
            )
        if not bool(weights[name].isfinite().all()):
            raise CheckpointError(f"{file} has values in {name} that are not finite; use another copy")
        if name.endswith("running_var") and bool((weights[name] < 0).any()):
            raise CheckpointError(f"{file} has negative variances in {name}; use another copy")


def _described(tensor: Tensor | None) -> str:
    if tensor is None:
        return "nothing"
    kind = "floating point" if tensor.is_floating_point() else "complex" if tensor.is_complex() else "whole"
    return f"{tuple(tensor.shape)} of {kind} numbers"


def _check_new(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        raise RunError(f"{out} is there already; choose another --out, nothing was changed")


def _write(config: ConvertConfig, model: LearnableFBP) -> None:
    """Writes the run folder beside its place and moves it there, so that it is whole or not there."""
    from fbp_ray.checkpoint import pack, write_checkpoint
    from fbp_ray.run import RunFolder
    from fbp_ray.versions import versions

    about = {
        "converted": config.unet.name,
        "sha256": hashlib.sha256(config.unet.read_bytes()).hexdigest(),
        "every": config.data.every,
    }
    try:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=config.out.parent) as place:
            run = RunFolder(Path(place) / config.out.name)
            write_checkpoint(run.best, pack(model, epoch=0, metrics={}, data=about))
            run.write_json("versions.json", versions())
            run.set_status("completed", f"converted from {config.unet.name}")
            (Path(place) / config.out.name).rename(config.out)
    except OSError as error:
        raise RunError(f"the run folder {config.out} cannot be written: {error}; choose another --out") from None


if __name__ == "__main__":
    run_program(main)
