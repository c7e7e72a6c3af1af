"""Networks after the backprojection, and the published weights of one."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional as F

from fbp_ray.checkpoint import load_model, read_manifest
from fbp_ray.cli import parse
from fbp_ray.config import TrainConfig
from fbp_ray.convert import main as convert
from fbp_ray.convert import read_state
from fbp_ray.errors import CheckpointError, ConfigError, DataError, FbpRayError, GeometryError, RunError
from fbp_ray.evaluate import main as evaluate
from fbp_ray.export import main as export
from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.model import LearnableFBP, ModelConfig, fbp
from fbp_ray.networks import build_network
from fbp_ray.run import RunFolder
from fbp_ray.runs import list_runs
from fbp_ray.stage_settings import PostprocessingConfig, WindowConfig
from fbp_ray.train.events import Event, Step
from fbp_ray.train.loop import train
from fbp_ray.train.process import Process
from fbp_ray.train.program import check
from tests.support.checkpoints import save_checkpoint
from tests.support.scans import COARSE, smooth_images, write_scan
from tests.support.serving import as_npy, running, settings_for, sinograms

CHANNELS = (32, 32, 64, 64, 128)
TINY = ParallelBeam(
    angles=RegularAngles(count=16, first=0.05, step=np.pi / 16),
    cells=25,
    cell_size=0.0155,
    image_shape=(17, 17),
    pixel_size=0.26 / 17,
)


def unet(geometry: ParallelBeam = TINY, **settings: Any) -> LearnableFBP:
    network = PostprocessingConfig(kind="unet", **settings)
    window = WindowConfig(kind="fixed", init="hann")
    return LearnableFBP(ModelConfig(geometry=geometry, window=window, postprocessing=network))


def tiny(geometry: ParallelBeam = TINY, **settings: Any) -> LearnableFBP:
    network = PostprocessingConfig(kind="tiny", **settings)
    window = WindowConfig(kind="fixed", init="hann")
    return LearnableFBP(ModelConfig(geometry=geometry, window=window, postprocessing=network))


def published(seed: int = 0, channels: tuple[int, ...] = CHANNELS) -> dict[str, Tensor]:
    """Random weights under the names and in the shapes of the published ones, written down from their description."""
    random = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    def convolution(name: str, inputs: int, outputs: int, size: int) -> None:
        state[f"{name}.weight"] = draw(outputs, inputs, size, size) / (inputs * size**2) ** 0.5
        state[f"{name}.bias"] = 0.1 * draw(outputs)

    def norm(name: str, features: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = 1 + 0.1 * draw(features), 0.1 * draw(features)
        state[f"{name}.running_mean"], state[f"{name}.running_var"] = (
            0.1 * draw(features),
            1 + 0.5 * draw(features).abs(),
        )
        state[f"{name}.num_batches_tracked"] = torch.tensor(100)

    convolution("inc.conv.0", 1, channels[0], 3)
    norm("inc.conv.1", channels[0])
    for level, (fine, coarse) in enumerate(pairwise(channels)):
        convolution(f"down.{level}.conv.0", fine, coarse, 3)
        norm(f"down.{level}.conv.1", coarse)
        convolution(f"down.{level}.conv.3", coarse, coarse, 3)
        norm(f"down.{level}.conv.4", coarse)
    for level, (coarse, fine) in enumerate(pairwise(channels[::-1])):
        norm(f"up.{level}.conv.0", coarse + 4)
        convolution(f"up.{level}.conv.1", coarse + 4, fine, 3)
        norm(f"up.{level}.conv.2", fine)
        convolution(f"up.{level}.conv.4", fine, fine, 3)
        norm(f"up.{level}.conv.5", fine)
        convolution(f"up.{level}.skip_conv.0", fine, 4, 1)
        norm(f"up.{level}.skip_conv.1", 4)
    convolution("outc.conv", channels[0], 1, 1)
    return state


def forward(state: Mapping[str, Tensor], image: Tensor) -> Tensor:
    """The published network, (B, H, W) -> (B, H, W), in functions alone."""
    return F.conv2d(features(state, image), state["outc.conv.weight"], state["outc.conv.bias"])[:, 0]


def features(state: Mapping[str, Tensor], image: Tensor, levels: int = 4) -> Tensor:
    """What its last layer takes, (B, 32, H, W)."""

    def convolve(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state[f"{name}.bias"], stride, padding=(weight.shape[-1] - 1) // 2)

    def normalise(x: Tensor, name: str) -> Tensor:
        mean, variance = (state[f"{name}.{which}"][:, None, None] for which in ("running_mean", "running_var"))
        weight, bias = (state[f"{name}.{which}"][:, None, None] for which in ("weight", "bias"))
        return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias

    def block(x: Tensor, name: str, at: int, stride: int = 1) -> Tensor:
        return F.leaky_relu(normalise(convolve(x, f"{name}.{at}", stride), f"{name}.{at + 1}"), 0.2)

    def middle(x: Tensor, height: int, width: int) -> Tensor:
        top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
        return x[..., top : top + height, left : left + width]

    scales = [block(image[:, None], "inc.conv", 0)]
    for level in range(levels):
        half = block(scales[-1], f"down.{level}.conv", 0, stride=2)
        scales.append(block(half, f"down.{level}.conv", 3))
    x = scales[-1]
    for level in range(levels):
        skip = block(scales[-2 - level], f"up.{level}.skip_conv", 0)
        size = 2 * x.shape[-2], 2 * x.shape[-1]
        x = F.interpolate(x, size, mode="bilinear", align_corners=True)
        height, width = min(x.shape[-2], skip.shape[-2]), min(x.shape[-1], skip.shape[-1])
        x = torch.cat([middle(x, height, width), middle(skip, height, width)], dim=1)
        x = normalise(x, f"up.{level}.conv.0")
        x = block(block(x, f"up.{level}.conv", 1), f"up.{level}.conv", 4)
    return x


def fitted(geometry: ParallelBeam) -> dict[str, Tensor]:
    """As `published`, the last layer fitted, so that the network gives back smooth images of this geometry."""
    state = published(seed=3)
    images = torch.from_numpy(smooth_images(3, geometry, seed=8))
    columns = features(state, images).movedim(1, -1).reshape(-1, 32)
    table = torch.cat([columns, torch.ones(len(columns), 1)], dim=1).double()
    found = torch.linalg.lstsq(table, images.flatten().double()[:, None]).solution.float().flatten()
    return state | {"outc.conv.weight": found[:32].reshape(1, 32, 1, 1), "outc.conv.bias": found[32:]}


def test_the_unet_is_the_published_network() -> None:
    state, model = published(), unet(residual=False)
    assert sum(tensor.numel() for tensor in state.values()) == 613_322
    assert sum(parameter.numel() for parameter in model.postprocessing.parameters()) == 610_673
    for shape in ((17, 17), (23, 40), (1, 17), (33, 18)):
        network = build_network(model.config.postprocessing, TINY.model_copy(update={"image_shape": shape})).eval()
        network.load_state_dict(state)
        image = torch.rand(2, *shape)
        with torch.no_grad():
            expected = forward(state, image)
            torch.testing.assert_close(network(image), expected, rtol=1e-5, atol=1e-5)
            network.residual = True
            torch.testing.assert_close(network(image), image + expected, rtol=1e-5, atol=1e-5)


def test_a_residual_unet_starts_as_the_fbp_and_every_weight_is_learned() -> None:
    model = unet()
    sinogram = torch.rand(2, 3, *TINY.sinogram_shape)
    assert torch.equal(model(sinogram), fbp(sinogram, TINY))
    assert model.eval()(sinogram[:0]).shape == (0, 3, 17, 17)
    model = unet(residual=False)
    model(sinogram[0]).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("shape", [(17, 17), (24, 9), (1, 1)])
def test_a_tiny_network_is_convolutions_on_parts_of_two_by_two_pixels(shape: tuple[int, int]) -> None:
    geometry = TINY.model_copy(update={"image_shape": shape})
    model = tiny(geometry, channels=5, dilations=(1, 3))
    sinogram = torch.rand(2, *TINY.sinogram_shape)
    assert torch.equal(model(sinogram), fbp(sinogram, geometry))
    for parameter in model.postprocessing.parameters():
        torch.nn.init.normal_(parameter)
    state, image = dict(model.postprocessing.named_parameters()), torch.rand(3, *shape)
    padded = F.pad(image[:, None], (0, -shape[1] % 2, 0, -shape[0] % 2), mode="replicate")
    parts = torch.cat([padded[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=1)

    def convolve(x: Tensor, name: str, apart: int = 1) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=apart, dilation=apart)

    h = convolve(parts, "first").relu()
    for number, apart in enumerate((1, 3)):
        h = (h + convolve(h, f"blocks.{number}", apart)).relu()
    change = convolve(h, "last")
    expected = padded.clone()
    for number, (i, j) in enumerate((i, j) for i in (0, 1) for j in (0, 1)):
        expected[:, 0, i::2, j::2] += change[:, number]
    found = model.postprocessing(image)
    torch.testing.assert_close(found, expected[:, 0, : shape[0], : shape[1]], rtol=1e-5, atol=1e-3)


def test_the_recipe_has_fewer_than_10_000_parameters() -> None:
    config = parse(TrainConfig, ["--postprocessing.kind", "tiny"], "train").postprocessing
    assert sum(parameter.numel() for parameter in build_network(config, TINY).parameters()) == 8132


def test_a_tiny_network_trains_and_leaves_as_it_is(scan: Path, tmp_path: Path) -> None:
    network = {"kind": "tiny", "channels": 4, "dilations": [2]}
    for target in ("truth", "self"):
        made = run(tmp_path / target, settings(scan, postprocessing=network, target=target))
        model = load_model(made.best)
        assert model.postprocessing.last.weight.any()
        assert model.config.postprocessing.dilations == (2,)
    export(["--checkpoint", str(made), "--out", str(tmp_path / "export"), "--to", "torch"])
    program, sinogram = (
        torch.export.load(tmp_path / "export" / "model.pt2").module(),
        torch.rand(3, *TINY.sinogram_shape),
    )
    torch.testing.assert_close(program(sinogram), model(sinogram), rtol=1e-5, atol=1e-5)


def test_an_image_has_at_least_two_pixels_at_the_coarsest_scale() -> None:
    unet(TINY.model_copy(update={"image_shape": (3, 17)})).train()(torch.rand(1, *TINY.sinogram_shape))
    with pytest.raises(GeometryError, match=r"of \(16, 16\) no more than one pixel.*at least 17 pixels along one axis"):
        unet(TINY.model_copy(update={"image_shape": (16, 16)}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--no-postprocessing.residual",), "residual is a setting of unet, but kind is identity"),
        (
            ("--postprocessing.kind", "a:B", "--no-postprocessing.residual"),
            "residual is a setting of unet, but kind is a:B",
        ),
        (
            ("--postprocessing.kind", "unet", "--postprocessing.options", "size=5"),
            "options are those of a network of your",
        ),
        (
            ("--postprocessing.kind", "unet", "--postprocessing.channels", "8"),
            "channels is a setting of tiny, but kind is unet",
        ),
        (("--postprocessing.kind", "tiny", "--postprocessing.dilations", "0"), "postprocessing.dilations.* greater"),
        (("--postprocessing.kind", "vnet"), "must be 'identity', 'tiny', 'unet' or one of your own"),
    ],
)
def test_settings_that_a_network_does_not_take_are_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(TrainConfig, words, "train")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("networks") / "data", TINY, train=3, validation=2, test=1)


def settings(data: Path, **changes: Any) -> TrainConfig:
    tree: dict[str, Any] = {
        "data": {"dir": data},
        "window": {"kind": "frequency", "init": "hann"},
        "postprocessing": {"kind": "unet"},
        "loss": {"l1": 0, "ms_ssim": 0, "edge": 0, "mse": 1},
        "train": {"epochs": 2, "batch_size": 2},
        "track": {"to": "none"},
    }
    return TrainConfig.model_validate(tree | changes)


def run(folder: Path, config: TrainConfig, report: Any = lambda event: None) -> RunFolder:
    made = RunFolder(folder)
    train(made.begin(config), made, Process(0, 1, torch.device("cpu")), report)  # type: ignore[arg-type]
    return made


def test_an_interrupted_run_goes_on_to_the_same_weights_and_statistics(scan: Path, tmp_path: Path) -> None:
    config = settings(scan, target="self")
    whole = run(tmp_path / "whole", config)

    def interrupt(event: Event) -> None:
        if isinstance(event, Step) and event.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", config, interrupt)
    cut = run(tmp_path / "cut", config)
    states = [load_model(made.last).state_dict() for made in (whole, cut)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert states[0]["postprocessing.up.3.conv.5.num_batches_tracked"] == 2 * 2
    assert states[0]["postprocessing.outc.conv.weight"].any()


def test_a_network_after_a_window_that_is_not_learned_trains(scan: Path) -> None:
    fixed = {"kind": "fixed", "init": "hann"}
    check(settings(scan, window=fixed))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"learns nothing.*--postprocessing\.kind tiny"):
        check(settings(scan, window=fixed, postprocessing={}))  # type: ignore[arg-type]


def test_a_window_is_solved_before_a_network(scan: Path, tmp_path: Path) -> None:
    config = settings(
        scan,
        target="self",
        window={"kind": "spline", "init": "solve", "knots": 4},
        train={"epochs": 0, "batch_size": 2},
    )
    assert read_manifest(run(tmp_path / "run", config).best).epoch == 0


def test_published_weights_become_a_run_folder(tmp_path: Path) -> None:
    """The whole way: converted, listed, evaluated, served, exported."""
    data = write_scan(tmp_path / "data", train=1, validation=1, test=2)
    state, file, out = fitted(COARSE), tmp_path / "unet.pth", tmp_path / "runs" / "published"
    torch.save(state, file)
    options = ["--unet", str(file), "--window", "hann", "--cutoff", "0.9", "--out", str(out), "--data.dir", str(data)]
    convert(options)
    model, sinogram = load_model(out), sinograms(3)
    expected = forward(state, fbp(sinogram, COARSE, "hann", 0.9))
    torch.testing.assert_close(model(sinogram), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(RunError, match=r"published is there already; choose another --out"):
        convert(options)
    assert [path.name for path in out.parent.iterdir()] == ["published"]
    (listed,) = list_runs(out.parent)
    assert (listed.state, listed.reason, listed.psnr) == ("completed", "converted from unet.pth", None)
    hanns = ["--hann_psnr", "0.5", "--hann_ssim", "0.5", "--panels", "0"]
    with pytest.raises(DataError, match=r"was trained on is not known; name a data folder: --data\.dir DIR"):
        evaluate(["--checkpoint", str(out), *hanns])
    evaluate(["--checkpoint", str(out), "--data.dir", str(data), *hanns])
    assert json.loads((out / "evaluation-test" / "metrics.json").read_text())["learned"]["psnr"] > 10
    export(["--checkpoint", str(out), "--out", str(tmp_path / "export"), "--to", "torch"])
    program = torch.export.load(tmp_path / "export" / "model.pt2").module()
    torch.testing.assert_close(program(sinogram), expected, rtol=1e-5, atol=1e-5)
    with running(settings_for(tmp_path)) as client:
        answer = client.post("/reconstruct", content=as_npy(sinogram), headers={"Accept": "application/x-npy"})
    assert answer.headers["X-Model-Source"].endswith("published")
    torch.testing.assert_close(torch.from_numpy(np.load(io.BytesIO(answer.content))), expected, rtol=1e-4, atol=1e-5)


def test_weights_are_read_as_they_are_usually_kept(tmp_path: Path) -> None:
    state = published()
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "parallel.pth")
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {"state": {}, "lr": 1}}, tmp_path / "training.pt")
    np.savez(tmp_path / "unet.npz", **{name: tensor.numpy() for name, tensor in state.items()})
    safetensors.torch.save_file(state, tmp_path / "unet.safetensors")
    for name in ("parallel.pth", "training.pt", "unet.npz", "unet.safetensors"):
        found = read_state(tmp_path / name)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: {k: v for k, v in published().items() if k != "up.2.skip_conv.1.bias"},
         r"differs is up\.2\.skip_conv\.1\.bias, expected \(4,\) of floating point numbers, came nothing"),
        (lambda: published(channels=(32, 32, 64, 64)),
         r"differs is down\.3\.conv\.0\.weight, expected \(128, 64, 3, 3\) of floating point numbers, came nothing"),
        (lambda: published(channels=(16, 32, 64, 64, 128)),
         r"differs is inc\.conv\.0\.weight, expected \(32, 1, 3, 3\) .* came \(16, 1, 3, 3\)"),
        (lambda: published() | {"attention.weight": torch.zeros(3)},
         r"differs is attention\.weight, expected nothing, came \(3,\) of floating point"),
        (lambda: published() | {"outc.conv.bias": torch.zeros(1, dtype=torch.int64)},
         r"differs is outc\.conv\.bias, .* came \(1,\) of whole numbers"),
        (lambda: published() | {"outc.conv.bias": torch.tensor([torch.nan])}, r"outc\.conv\.bias that are not finite"),
        (lambda: published() | {"inc.conv.1.running_var": -torch.ones(32)}, r"negative variances in inc\.conv\.1"),
        (lambda: {"model": published(), "ema": published()}, "holds the state dicts model, ema; save one alone"),
        (lambda: {"epoch": 3}, "holds no state dict, which has a tensor for each name"),
        (lambda: [torch.zeros(3)], "holds no state dict"),
        (lambda: torch.nn.Linear(2, 2), r"cannot be read \(UnpicklingError\).*torch\.save\(model\.state_dict"),
    ],
)  # fmt: skip
def test_other_weights_are_refused_by_what_differs_first(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content(), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=message):
        convert(["--unet", str(tmp_path / "other.pth"), "--out", str(tmp_path / "runs" / "x")])
    assert not (tmp_path / "runs").exists()


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "run")]

    def refused(name: str, message: str, *more: str, kind: type[FbpRayError] = CheckpointError) -> None:
        with pytest.raises(kind, match=message):
            convert(["--unet", str(tmp_path / name), *out, *more])

    for suffix in ("pth", "npz", "safetensors"):
        (tmp_path / f"broken.{suffix}").write_bytes(b"PK\x03\x04 nothing")
        refused(f"broken.{suffix}", r"cannot be read \(\w+\): it is damaged or holds more than tensors")
    np.savez(tmp_path / "pickled.npz", **{"inc.conv.0.weight": np.array([{}], dtype=object)})
    refused("pickled.npz", r"cannot be read \(ValueError\)")
    refused("weights.txt", r"--unet: .*must end in \.pth, \.pt, \.npz or \.safetensors", kind=ConfigError)
    refused("none.pth", "there is no file .*none.pth")
    torch.save(published(), tmp_path / "unet.pth")
    refused("unet.pth", "there is no data folder", "--data.dir", str(tmp_path / "nowhere"), kind=DataError)
    small = write_scan(
        tmp_path / "small", TINY.model_copy(update={"image_shape": (16, 16)}), train=1, validation=1, test=1
    )
    refused("unet.pth", "at least 17 pixels", "--data.dir", str(small), kind=GeometryError)


def test_a_manifest_from_before_there_were_networks_loads(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, LearnableFBP(ModelConfig(geometry=TINY)))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["model"]["postprocessing"] = {"kind": "identity"}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert load_model(tmp_path).config == ModelConfig(geometry=TINY)
