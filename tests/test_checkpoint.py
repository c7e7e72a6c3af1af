from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fbp_ray.checkpoint import (
    find_checkpoint,
    load_model,
    load_training,
    load_weights,
    pack,
    read_last,
    read_manifest,
    write_checkpoint,
)
from fbp_ray.errors import CheckpointError
from fbp_ray.filters import WindowConfig
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.storage import open_folder
from tests.support.checkpoints import save_checkpoint
from tests.support.scans import COARSE


def model(kind: str = "frequency", seed: int = 0) -> LearnableFBP:
    made = LearnableFBP(ModelConfig(geometry=COARSE, window=WindowConfig(kind=kind)))  # type: ignore[arg-type]
    weight = made.filter.weight
    with torch.no_grad():
        weight.copy_(torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)))
    return made


def save(folder: Path, made: LearnableFBP, epoch: int = 3, training: dict[str, object] | None = None) -> None:
    save_checkpoint(folder, made, epoch=epoch, metrics={"psnr": 30.5}, data={"dir": "d"}, training=training)


@pytest.mark.parametrize("kind", ["frequency", "angle_frequency"])
def test_a_folder_gives_back_the_model_with_nothing_else_known(tmp_path: Path, kind: str) -> None:
    made = model(kind)
    save(tmp_path / "best", made)
    sinogram = torch.rand(2, *COARSE.sinogram_shape)
    for path in (tmp_path, tmp_path / "best"):
        loaded = load_model(path)
        assert loaded.config == made.config
        assert torch.equal(loaded(sinogram), made(sinogram))
        assert not loaded.training
    manifest = read_manifest(tmp_path)
    assert (manifest.epoch, manifest.metrics) == (3, {"psnr": 30.5})
    assert manifest.versions["torch"] == torch.__version__.split("+")[0]


def test_a_model_is_loaded_frozen_and_thawed_when_asked(tmp_path: Path) -> None:
    save(tmp_path, model())
    frozen, thawed = load_model(tmp_path), load_model(tmp_path, trainable=True)
    sinogram = torch.ones(COARSE.sinogram_shape)
    image = frozen(sinogram).numpy()  # as matplotlib takes it
    thawed(sinogram).square().sum().backward()
    weight = thawed.filter.weight
    assert weight.grad is not None
    assert weight.grad.any()
    assert (thawed(sinogram).detach().numpy() == image).all()


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "runs" / "mine" / "best", model())
    for place in ("~/runs/mine", Path("~/runs/mine")):
        assert torch.equal(load_model(place).filter.weight, model().filter.weight)


def test_a_run_folder_means_its_best_then_its_last(tmp_path: Path) -> None:
    save(tmp_path / "last", model())
    assert str(find_checkpoint(tmp_path)) == str(tmp_path / "last")
    save(tmp_path / "best", model())
    assert str(find_checkpoint(tmp_path)) == str(tmp_path / "best")


def test_the_training_state_comes_back(tmp_path: Path) -> None:
    made = model()
    optimizer = torch.optim.Adam(made.parameters())
    made.filter.weight.grad = torch.ones_like(made.filter.weight)
    optimizer.step()
    save(tmp_path, made, training={"optimizer": optimizer.state_dict(), "history": [{"epoch": 1, "loss": 0.5}]})
    state = load_training(tmp_path)
    assert state["history"] == [{"epoch": 1, "loss": 0.5}]
    torch.testing.assert_close(state["optimizer"]["state"], optimizer.state_dict()["state"])


def test_replacing_a_checkpoint_leaves_only_the_new_one(tmp_path: Path) -> None:
    save(tmp_path, model(seed=0), training={"a": 1})
    save(tmp_path, model(seed=1))
    assert torch.equal(load_model(tmp_path).filter.weight, model(seed=1).filter.weight)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("failing", ["weights-", "manifest.json"])
def test_a_crash_while_replacing_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    save(tmp_path, model(seed=0))
    replace = Path.replace

    def crash(self: Path, target: Path) -> Path:
        if target.name.startswith(failing):
            raise OSError("no space left on device")
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", crash)
        with pytest.raises(OSError, match="no space"):
            save(tmp_path, model(seed=1))
    assert torch.equal(load_model(tmp_path).filter.weight, model(seed=0).filter.weight)
    assert not list(tmp_path.glob(".*.tmp"))


def test_what_is_no_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"has no manifest.json"):
        load_model(tmp_path)


def test_a_damaged_file_is_recognised(tmp_path: Path) -> None:
    save(tmp_path, model())
    weights = next(tmp_path.glob("weights-*"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        load_model(tmp_path)
    weights.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(tmp_path)


def test_a_damaged_manifest_is_recognised(tmp_path: Path) -> None:
    save(tmp_path, model())
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text()[:-50])
    with pytest.raises(CheckpointError, match=r"manifest.json cannot be read"):
        load_model(tmp_path)


def test_a_file_name_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "c", model())
    manifest = tmp_path / "c" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"]["weights"] = "../stolen.safetensors"
    manifest.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="files"):
        load_model(tmp_path / "c")


def test_weights_of_another_model_are_refused_leaf_by_leaf(tmp_path: Path) -> None:
    save(tmp_path, model("frequency"))
    other = model("angle_frequency")
    before = other.filter.weight.clone()
    with pytest.raises(CheckpointError, match=r"filter.weight: the checkpoint has \(73,\).*the model \(60, 73\)"):
        load_weights(other, tmp_path, read_manifest(tmp_path))
    assert torch.equal(other.filter.weight, before)


def test_a_checkpoint_without_optimiser_says_where_there_is_one(tmp_path: Path) -> None:
    save(tmp_path, model())
    with pytest.raises(CheckpointError, match="last/"):
        load_training(tmp_path)


def test_a_checkpoint_in_an_object_store_gives_the_same_reconstruction(tmp_path: Path, object_store: str) -> None:
    made = model()
    save(tmp_path, made)
    save_checkpoint(f"{object_store}/here/best", made)
    sinogram = torch.rand(2, *COARSE.sinogram_shape)
    assert torch.equal(load_model(f"{object_store}/here")(sinogram), load_model(tmp_path)(sinogram))
    with pytest.raises(CheckpointError, match="does not exist"):
        load_model(f"{object_store}/nowhere")


def write_epochs(folder: Path, epochs: int) -> None:
    for epoch in range(1, epochs + 1):
        packed = pack(model(seed=epoch), epoch=epoch, metrics={}, data={}, training={"epoch": epoch})
        write_checkpoint(open_folder(folder), packed, keep_previous=True)


def test_the_last_checkpoint_and_the_one_before_are_kept(tmp_path: Path) -> None:
    write_epochs(tmp_path, 4)
    assert len(list(tmp_path.iterdir())) == 6
    found = read_last(open_folder(tmp_path), pytest.fail)
    assert found is not None
    assert found.manifest.epoch == 4
    assert read_manifest(tmp_path, "previous.json").epoch == 3


@pytest.mark.parametrize("damaged", ["manifest", "weights", "training"])
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before_with_a_warning(tmp_path: Path, damaged: str) -> None:
    write_epochs(tmp_path, 3)
    file = tmp_path / read_manifest(tmp_path).files.get(damaged, "manifest.json")
    file.write_bytes(file.read_bytes()[:-7])
    warnings: list[str] = []
    found = read_last(open_folder(tmp_path), warnings.append)
    assert found is not None
    assert found.manifest.epoch == 2
    assert len(warnings) == 1
    assert "damaged" in warnings[0]
    assert "epoch 2" in warnings[0]
    assert file.name in warnings[0]


def test_the_next_checkpoint_heals_a_damaged_one(tmp_path: Path) -> None:
    write_epochs(tmp_path, 3)
    (tmp_path / "manifest.json").write_text("{")
    packed = pack(model(seed=3), epoch=3, metrics={}, data={}, training={"epoch": 3})
    write_checkpoint(open_folder(tmp_path), packed, keep_previous=True)
    assert read_manifest(tmp_path).epoch == 3
    assert read_manifest(tmp_path, "previous.json").epoch == 2
    (tmp_path / "manifest.json").unlink()
    found = read_last(open_folder(tmp_path), lambda text: None)
    assert found is not None
    assert found.manifest.epoch == 2


def test_two_damaged_checkpoints_are_an_error_that_says_what_can_be_done(tmp_path: Path) -> None:
    write_epochs(tmp_path / "last", 2)
    for name in ("manifest.json", "previous.json"):
        (tmp_path / "last" / name).write_text("{")
    with pytest.raises(CheckpointError, match=r"(?s)neither.*manifest.json.*previous.json.*--init.checkpoint"):
        read_last(open_folder(tmp_path / "last"), pytest.fail)


def test_there_is_no_last_checkpoint_before_the_first(tmp_path: Path) -> None:
    assert read_last(open_folder(tmp_path / "last"), pytest.fail) is None
