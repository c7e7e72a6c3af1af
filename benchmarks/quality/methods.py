"""What is compared: the classic FBPs, the fixed windows, and one trained model of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from fbp_ray.baseline import BestCutoffs
from fbp_ray.checkpoint import load_model
from fbp_ray.geometry import Geometry
from fbp_ray.model import LearnableFBP, ModelConfig, fbp
from fbp_ray.run import RunFolder
from fbp_ray.stage_settings import WindowConfig
from fbp_ray.train import train
from fbp_ray.train.cluster import cluster

KINDS: dict[str, dict[str, Any]] = {
    "solve": {"window": {"kind": "spline", "knots": 48, "init": "solve"}, "train": {"epochs": 0}},
    "solve-self": {
        "window": {"kind": "spline", "knots": 48, "init": "solve"},
        "train": {"epochs": 0},
        "target": "self",
    },
    "solve-adaptive": {
        "window": {"kind": "adaptive", "init": "solve"},
        "train": {"epochs": 0},
        "data": {"train_samples": 60},
    },
    "solve-adaptive-self": {
        "window": {"kind": "adaptive", "init": "solve"},
        "train": {"epochs": 0},
        "data": {"train_samples": 60},
        "target": "self",
    },
    "spline": {"window": {"kind": "spline"}},
    "fourier_series": {"window": {"kind": "fourier_series"}},
    "frequency": {"window": {"kind": "frequency"}},
    "low_rank": {"window": {"kind": "low_rank"}},
    "angle_frequency": {"window": {"kind": "angle_frequency"}},
    "ray_noise": {"window": {"kind": "ray_noise"}},
    "adaptive": {"window": {"kind": "adaptive"}},
    "adaptive-self": {"window": {"kind": "adaptive"}, "target": "self"},
    "tiny": {"recipe": "lodopab-tiny"},
    "tiny-32": {"recipe": "lodopab-tiny", "postprocessing": {"channels": 32}},
    "tiny-self": {"recipe": "lodopab-tiny", "target": "self"},
    "unet": {"recipe": "lodopab-unet"},
}
"""The settings of each training, beside those of the recipe."""

LONGER = {"lodopab-tiny": 3.0, "lodopab-unet": 1.2}
"""Times the epochs of a window, for a window with a network."""


@dataclass(frozen=True)
class Method:
    """One way from a sinogram to an image."""

    name: str
    reconstruct: Callable[[Tensor], Tensor]
    """(B, A, D) -> (B, H, W)."""

    parameters: int


def classic(geometry: Geometry, cutoffs: BestCutoffs, photons: float | None) -> Iterator[Method]:
    """The FBP with the bare ramp and with the two best Hanns, and Zeng and Zamyatin's windows by the noise of a ray."""
    yield Method("ramp", partial(fbp, geometry=geometry, window="none"), 0)
    yield Method(f"Hann {cutoffs.psnr:.2f}", partial(fbp, geometry=geometry, cutoff=cutoffs.psnr), 0)
    if cutoffs.ssim != cutoffs.psnr:
        yield Method(f"Hann {cutoffs.ssim:.2f}", partial(fbp, geometry=geometry, cutoff=cutoffs.ssim), 0)
    window = WindowConfig(kind="zeng", init="hann", cutoff=cutoffs.psnr, photons=photons or "estimate")
    yield Method(
        f"zeng, Hann {cutoffs.psnr:.2f}", LearnableFBP(ModelConfig(geometry=geometry, window=window)).eval(), 0
    )


def train_all(kinds: Sequence[str], data: Path, storage: Path, epochs: int) -> dict[str, str]:
    """Trains what is not trained yet; gives the run folders by kind."""
    runs = {kind: str(storage / f"{kind}-{epochs}") for kind in kinds}
    missing = [kind for kind in kinds if RunFolder(runs[kind]).status().get("state") != "completed"]
    if missing:
        with cluster():
            for kind in missing:
                print(f"training {kind}", flush=True)
                train(**_settings(kind, data, storage, epochs))
    return runs


def _settings(kind: str, data: Path, storage: Path, epochs: int) -> dict[str, Any]:
    own = KINDS[kind]
    times = LONGER.get(own.get("recipe", ""), 1)
    return {
        "recipe": "lodopab-window",
        **own,
        "data": {"dir": str(data), "cache": "memory", **own.get("data", {})},
        "train": {"epochs": round(times * epochs), "patience": 0, **own.get("train", {})},
        "run": {"name": f"{kind}-{epochs}", "storage": str(storage)},
        "track": {"to": "none"},
    }


def learned(runs: Mapping[str, str]) -> Iterator[Method]:
    """The model of each run."""
    for kind, run in runs.items():
        model = load_model(run)
        yield Method(kind, model, sum(parameter.numel() for parameter in model.parameters()))
