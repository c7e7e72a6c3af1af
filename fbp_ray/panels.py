"""The pictures of an epoch for trackers: cheap, and on ranges that stay, so that epochs and runs compare.

Dimensions: H, W the image's axes (x and y; shown as `image.T`).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fbp_ray.baseline import Baseline
from fbp_ray.data import LoDoPaB
from fbp_ray.filters import TableWindow
from fbp_ray.model import LearnableFBP, fbp
from fbp_ray.pictures import DIFFERENCE, GREY, evenly_spaced, window_pixels
from fbp_ray.trackers import Pixels, TrackConfig

# Blue for too little, red for too much: ColorBrewer's RdBu, the colours of matplotlib's RdBu_r.
COLOURS = (
    "053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7", "fddbc7", "f4a582", "d6604d", "b2182b", "67001f",
)  # fmt: skip
GAP = 6  # pixels between images
HEADER = 24  # pixels above them, for their names
SMALLEST = 240  # images of fewer pixels a side are enlarged, or their names would not fit


def panels(
    model: LearnableFBP, dataset: LoDoPaB, baseline: Baseline, config: TrackConfig, epoch: int
) -> dict[str, Pixels]:
    """The strips of evenly spaced samples and the window, by name; nothing in the epochs without pictures.

    Args:
        model: in the state to be shown; it stays in the mode that it is in.
        dataset: the validation part.
        baseline: has the classic FBP's cut-off, `hann_ssim_cutoff`.
        config: how many samples, and in which epochs.
        epoch: from 1.
    """
    if epoch % config.every != 0:
        return {}
    cutoff = baseline.hann_ssim_cutoff
    device = next(model.parameters()).device
    pictures = {}
    for index in evenly_spaced(len(dataset), config.images):
        sample = dataset[index]
        observation = sample.observation.to(device)
        with torch.no_grad():
            classic = fbp(observation, model.geometry, "hann", cutoff)
            learned = model(observation)
        pictures[f"reconstruction/{index:04d}"] = strip(
            classic, learned, sample.ground_truth, f"FBP, Hann {cutoff:.2f}"
        )
    if isinstance(model.filter, TableWindow):
        pictures["window"] = window_pixels(model.filter, model.geometry.cells)
    return pictures


def strip(classic: Tensor, learned: Tensor, truth: Tensor, classic_name: str = "classic FBP") -> Pixels:
    """[classic FBP | learned FBP | ground truth | learned - ground truth], with names above.

    Args:
        classic: (H, W), any device, as the others.
        learned: (H, W).
        truth: (H, W).
        classic_name: stands above the first.
    """
    classic, learned, truth = (image.detach().float().cpu() for image in (classic, learned, truth))
    named = {
        classic_name: grey(classic.T.numpy()),
        "learned FBP": grey(learned.T.numpy()),
        f"ground truth, {GREY[0]:g} to {GREY[1]:g}": grey(truth.T.numpy()),
        f"learned - truth, {DIFFERENCE[0]:g} to {DIFFERENCE[1]:g}": signed((learned - truth).T.numpy()),
    }
    times = -(-SMALLEST // min(truth.shape))
    tiles = [pixels.repeat(times, axis=0).repeat(times, axis=1) for pixels in named.values()]
    height, width = tiles[0].shape[:2]
    canvas = Image.new("RGB", (4 * width + 3 * GAP, HEADER + height), "white")
    draw = ImageDraw.Draw(canvas)
    for column, (name, tile) in enumerate(zip(named, tiles, strict=True)):
        left = column * (width + GAP)
        draw.text((left + width // 2, HEADER // 2), name, "black", ImageFont.load_default(14), anchor="mm")
        canvas.paste(Image.fromarray(tile), (left, HEADER))
    return np.array(canvas)


def grey(image: NDArray[np.float32]) -> Pixels:
    """Pixels (.., 3) of values in the window GREY; what lies outside is black or white."""
    levels = _share(image, GREY)
    return np.repeat(np.round(255 * levels).astype(np.uint8)[..., None], 3, axis=-1)


def signed(difference: NDArray[np.float32]) -> Pixels:
    """Pixels (.., 3) of differences on the scale DIFFERENCE: blue below 0, red above."""
    anchors = np.array([list(bytes.fromhex(colour)) for colour in COLOURS])
    position = _share(difference, DIFFERENCE) * (len(anchors) - 1)
    channels = [np.interp(position, np.arange(len(anchors)), channel) for channel in anchors.T]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def _share(values: NDArray[np.float32], window: tuple[float, float]) -> NDArray[np.float32]:
    low, high = window
    share: NDArray[np.float32] = np.clip((values - low) / (high - low), 0, 1)
    return share
