from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fbp_ray.errors import CheckpointError, RunError
from fbp_ray.export import filter_values, main
from fbp_ray.filters import WindowConfig
from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.projector import project
from tests.support.checkpoints import save_checkpoint
from tests.support.scans import COARSE, smooth_images

PLAIN = ("fixed", "frequency", "spline", "fourier_series")
FINE = ParallelBeam(
    angles=RegularAngles(count=120, first=0.01, step=math.pi / 120),
    cells=131,
    cell_size=1e-3,
    image_shape=(80, 80),
    pixel_size=1e-3,
)


def a_model(kind: Any, geometry: ParallelBeam = COARSE) -> LearnableFBP:
    """As if trained: no longer what it was at first."""
    torch.manual_seed(3)
    model = LearnableFBP(ModelConfig(geometry=geometry, window=WindowConfig(kind=kind, init="hann", cutoff=0.3)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


def export(model: LearnableFBP, folder: Path, *options: str) -> Path:
    save_checkpoint(folder / "run", model)
    main(["--checkpoint", str(folder / "run"), "--out", str(folder / "out"), *options])
    return folder / "out"


def lines_for(name: str, out: Path) -> str:
    """The lines of USE.md, as they stand there."""
    section = (out / "USE.md").read_text().split(f"## {name}\n")[1].split("\n## ")[0]
    return "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))


def as_documented(sinogram: np.ndarray[Any, Any], values: np.ndarray[Any, Any], scan: ParallelBeam) -> Any:
    """The filtered backprojection of these packages: pad, filter, interpolate, weigh with pi / A."""
    length = 2 * (values.shape[-1] - 1)
    filtered = np.fft.irfft(np.fft.rfft(sinogram, length) * values)[:, : scan.cells] / (2 * scan.cell_size)
    image = np.zeros(scan.image_shape)
    for theta, row in zip(scan.theta, filtered, strict=True):
        s = scan.x[:, None] * np.cos(theta) + scan.y * np.sin(theta)
        image += np.interp(s.ravel(), scan.detector, row, 0, 0).reshape(s.shape)
    return image * np.pi / scan.num_angles


@pytest.mark.parametrize("kind", [*PLAIN, "angle_frequency", "low_rank"])
def test_an_exported_filter_gives_the_models_image(kind: str) -> None:
    model = a_model(kind)
    sinogram = project(torch.from_numpy(smooth_images(1, COARSE, 5)), COARSE)
    wanted = model(sinogram)[0].numpy()
    image = as_documented(sinogram[0].double().numpy(), filter_values(model), COARSE)
    assert np.abs(image - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_a_bare_ramp_is_1_at_the_nyquist_frequency() -> None:
    model = LearnableFBP(ModelConfig(geometry=COARSE, window=WindowConfig(kind="fixed")))
    assert filter_values(model)[-1] == pytest.approx(1, abs=2e-2)
    assert filter_values(model).shape == (129,)


@pytest.mark.parametrize("kind", ["spline", "low_rank"])
def test_astra_gives_the_models_image_with_the_lines_of_the_text_file(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("astra")
    model = a_model(kind, FINE)
    sinogram = project(torch.from_numpy(smooth_images(1, FINE, 5)), FINE)
    monkeypatch.chdir(export(model, tmp_path, "--to", "astra"))
    names: dict[str, Any] = {"angles": FINE.theta, "sinogram": sinogram[0].numpy()}
    exec(lines_for("ASTRA", Path()), names)
    wanted = model(sinogram)[0].numpy()
    assert np.linalg.norm(names["image"] - wanted) < 1e-3 * np.linalg.norm(wanted)


@pytest.mark.parametrize("kind", ["frequency", "ray_noise", "adaptive"])
def test_the_exported_program_is_the_model(kind: str, tmp_path: Path) -> None:
    model = a_model(kind)
    program = torch.export.load(export(model, tmp_path, "--to", "torch") / "model.pt2").module()
    for count in (1, 3):
        sinograms = project(torch.from_numpy(smooth_images(count, COARSE, 5)), COARSE)
        torch.testing.assert_close(program(sinograms), model(sinograms))


def test_angles_that_are_even_but_for_the_last_digits_have_one_filter(tmp_path: Path) -> None:
    typed = RegularAngles(count=60, first=0.0262, step=0.0523599)
    export(a_model("spline", COARSE.model_copy(update={"angles": typed})), tmp_path, "--to", "cil")
    assert np.load(tmp_path / "out" / "filter.npy").ndim == 1


def test_all_is_what_can_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = export(a_model("low_rank"), tmp_path)
    said = capsys.readouterr().out
    assert re.findall("not for (.*?):", said) == ["cil", "tigre"]
    assert re.findall("## (.*)", (out / "USE.md").read_text()) == ["ASTRA", "tomopy", "torch"]
    for name in ("ASTRA", "tomopy", "torch"):
        compile(lines_for(name, out), name, "exec")
    with pytest.raises(RunError, match="not empty"):
        main(["--checkpoint", str(tmp_path / "run"), "--out", str(out)])


@pytest.mark.parametrize(("kind", "to"), [("adaptive", "astra"), ("zeng", "tomopy"), ("low_rank", "cil")])
def test_what_a_package_cannot_take_is_refused_with_a_way_out(kind: str, to: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{to} cannot take .* --to torch"):
        export(a_model(kind), tmp_path, "--to", to)
    assert not (tmp_path / "out").exists()
