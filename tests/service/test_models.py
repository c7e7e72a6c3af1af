"""The models that serve: verified first, switched in one step, the same again after a restart."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
import torch
import yaml
from fastapi import FastAPI
from PIL import Image

from fbp_ray.config import TrainConfig
from fbp_ray.errors import CheckpointError
from fbp_ray.geometry import ParallelBeam
from fbp_ray.model import LearnableFBP, ModelConfig, fbp
from fbp_ray.projector import cpu
from fbp_ray.run import RunFolder
from service.app import create_app
from service.batching import classic
from service.verify import batch_sizes, verify
from tests.support.checkpoints import save_checkpoint
from tests.support.scans import COARSE, FAN
from tests.support.serving import as_npy, running, save_model, settings_for, sinograms


def reconstruct(client: httpx.Client, query: str = "") -> httpx.Response:
    return client.post(f"/reconstruct{query}", content=as_npy(sinograms(1)[0]))


def image_of(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return np.load(io.BytesIO(answer.content), allow_pickle=False)


def activate(client: httpx.Client, place: Path, name: str = "best") -> httpx.Response:
    return client.post(f"/models/{name}/activate", json={"source": str(place)})


def save_run(folder: Path, cutoff: float, state: str = "completed") -> None:
    """A run folder as a training leaves it."""
    save_model(folder / "best", cutoff)
    (folder / "config.yaml").write_text(yaml.safe_dump(TrainConfig().model_dump(mode="json")))
    (folder / "status.json").write_text(json.dumps({"state": state}))


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def looks(app: FastAPI, count: int = 3) -> None:
    """Returns when the service has looked for newer runs so many times more."""
    read, seen = app.state.database.read, 0

    def counted(statement: str, *values: Any) -> Any:
        nonlocal seen
        seen += statement == "SELECT * FROM models"
        return read(statement, *values)

    app.state.database.read = counted
    until(lambda: seen > count)
    app.state.database.read = read


def test_without_a_model_the_classic_fbp_serves_and_says_so(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    with running(settings) as client:
        answer = client.post("/reconstruct", content=as_npy(np.zeros((1000, 513), np.float32)))
        assert answer.status_code == 200
        assert (answer.headers["x-model"], answer.headers["x-model-version"]) == ("classic-fbp", "hann-1")
        assert client.get("/models").json() == {
            "models": [],
            "absent": {},
            "without_model": "classic-fbp: hann, cut-off 1",
        }
        assert "POST /models/best/activate" in reconstruct(client, "?method=learned").json()["detail"]


def test_activation_switches_and_a_broken_model_leaves_the_old_one(tmp_path: Path) -> None:
    first, second = save_model(tmp_path / "first", 0.5), save_model(tmp_path / "second", 0.9)
    save_model(tmp_path / "zero", 0.5, scale=0.0)
    save_model(tmp_path / "nan", 0.5, scale=float("nan"))
    save_model(tmp_path / "damaged", 0.7)
    weights = next((tmp_path / "damaged").glob("weights-*"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "manifest.json").write_text("{}")
    sinogram = sinograms(1)[0]
    with running(settings_for(tmp_path)) as client, torch.inference_mode():
        one = activate(client, tmp_path / "first")
        assert one.status_code == 200, one.text
        np.testing.assert_allclose(image_of(reconstruct(client)), first(sinogram).numpy(), atol=1e-6)
        for place, words in (
            ("zero", "phantom"),
            ("nan", "phantom"),
            ("damaged", "checksum"),
            ("odd", "cannot be read"),
        ):
            refused = activate(client, tmp_path / place)
            assert refused.status_code == 422, refused.text
            assert words in refused.json()["detail"]
            assert reconstruct(client).headers["x-model-version"] == one.json()["version"]
        assert activate(client, tmp_path / "nowhere").status_code == 422
        two = activate(client, tmp_path / "second")
        assert two.json()["version"] != one.json()["version"]
        np.testing.assert_allclose(image_of(reconstruct(client)), second(sinogram).numpy(), atol=1e-6)


def test_a_model_of_a_scan_is_tried_and_shown_in_its_own_scale(tmp_path: Path) -> None:
    """Values of some thousands, whose offset of 20 is little, and which are no Hounsfield units."""
    model = LearnableFBP(ModelConfig(geometry=FAN))
    data = {"description": {"unit": 2.0}, "brightest": 5000.0}
    save_checkpoint(tmp_path / "scan", model, data=data)
    engine = classic(FAN, "hann", 1.0, torch.device("cpu"))
    offset = replace(engine, run=lambda batch: engine.run(batch) + 20)
    assert verify(offset, "a scan", 5000.0) < 0.2
    with pytest.raises(CheckpointError, match="does not reconstruct"):
        verify(offset, "a scan")
    body = as_npy(1e3 * np.random.default_rng(0).random(FAN.sinogram_shape, dtype=np.float32))
    counts: list[int] = []
    counting = replace(engine, run=lambda batch: counts.append(len(batch)) or engine.run(batch))
    assert verify(counting, "a scan", 5000.0, batch_sizes(torch.device("cuda"), 12)) < 0.2
    assert counts == [1, 2, 3, 4, 8, 12]  # what is compiled for 12 is for 9 to 16
    assert batch_sizes(torch.device("cuda"), 1) == [1]
    with running(settings_for(tmp_path)) as client, torch.inference_mode():
        assert activate(client, tmp_path / "scan").json()["unit"] == "attenuation in 1/m, divided by 2"
        answer = client.post("/reconstruct", content=body)
        assert answer.headers["x-value-unit"] == "attenuation in 1/m, divided by 2"
        image = image_of(answer)
        own, given = (
            np.asarray(Image.open(io.BytesIO(client.post(f"/reconstruct?output=png{query}", content=body).content)))
            for query in ("", "&level=0&width=20000")
        )
        assert own.min() == 0
        assert own.max() == 255
        np.testing.assert_allclose(given, np.clip((image.T + 10000) / 20000 * 255, 0, 255), atol=0.51)
        for query in ("", "&method=fbp"):
            made = pydicom.dcmread(io.BytesIO(client.post(f"/reconstruct?output=dcm{query}", content=body).content))
            assert made.RescaleType == "US"
        stored = made.pixel_array * float(made.RescaleSlope) + float(made.RescaleIntercept)
        expected = fbp(torch.from_numpy(np.load(io.BytesIO(body))), FAN).numpy()
        np.testing.assert_allclose(stored.T, expected, atol=1e-4 * np.ptp(expected))


def test_a_model_that_serves_has_all_kernels_of_a_processor() -> None:
    def lanes(batches: Iterable[int]) -> set[int]:
        groups = (group for batch in batches for group in cpu._groups(batch, ParallelBeam.lodopab()))
        return {images * len(views.maps) for views, _, images in groups}

    assert lanes(batch_sizes(torch.device("cpu"), 32)) == lanes(range(1, 33))


def test_models_have_names(tmp_path: Path) -> None:
    save_model(tmp_path / "first", 0.5)
    with running(settings_for(tmp_path)) as client:
        assert activate(client, tmp_path / "first", "sharp").status_code == 200
        assert reconstruct(client, "?model=sharp").headers["x-model"] == "sharp"
        document = client.get("/models/sharp").json()
        assert document["epoch"] == 3
        assert document["metrics"] == {"psnr": 30.5}
        assert document["geometry"]["sinogram_shape"] == list(COARSE.sinogram_shape)
        assert [model["name"] for model in client.get("/models").json()["models"]] == ["sharp"]
        assert client.get("/models/dull").status_code == 404
        assert activate(client, tmp_path / "first", "classic-fbp").status_code == 422
        assert activate(client, tmp_path / "first", "..%2Fup").status_code in (404, 422)
        assert client.delete("/models/sharp").status_code == 204
        assert client.delete("/models/sharp").status_code == 404
        assert reconstruct(client, "?model=sharp").status_code == 404


def test_the_classic_fbp_takes_the_geometry_of_a_model(tmp_path: Path) -> None:
    save_model(tmp_path / "first", 0.5)
    with running(settings_for(tmp_path)) as client:
        activate(client, tmp_path / "first", "sharp")
        image = image_of(reconstruct(client, "?model=sharp&method=fbp"))
        np.testing.assert_allclose(image, fbp(sinograms(1), COARSE)[0].numpy(), atol=1e-6)


def test_a_restart_serves_the_same_weights_whatever_became_of_the_run(tmp_path: Path) -> None:
    model = save_model(tmp_path / "first", 0.5)
    settings = settings_for(tmp_path)
    with running(settings) as client:
        version = activate(client, tmp_path / "first").json()["version"]
    shutil.rmtree(tmp_path / "first")
    with running(settings) as client, torch.inference_mode():
        answer = reconstruct(client)
        assert answer.headers["x-model-version"] == version
        np.testing.assert_allclose(image_of(answer), model(sinograms(1)[0]).numpy(), atol=1e-6)
        assert client.get("/models/best").json()["source"] == str(tmp_path / "first")


def test_a_kept_copy_that_is_away_is_told_once_and_serves_again_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_model(tmp_path / "first", 0.5)
    settings = settings_for(tmp_path)
    with running(settings) as client:
        version = activate(client, tmp_path / "first", "chosen").json()["version"]
    (tmp_path / "state" / "models").rename(tmp_path / "away")
    app = create_app(settings)
    with running(settings, app) as client:
        assert client.get("/models/chosen").status_code == 503
        looks(app)
        told = [record.getMessage() for record in caplog.records if "taken up again" in record.getMessage()]
        assert len(told) == 1
        assert "the model chosen" in told[0]
        (tmp_path / "away").rename(tmp_path / "state" / "models")
        until(lambda: client.get("/models/chosen").status_code == 200)
        assert client.get("/models/chosen").json()["version"] == version


def test_best_is_the_newest_completed_run_unless_set(tmp_path: Path) -> None:
    save_run(tmp_path / "runs" / "old", 0.5)
    save_run(tmp_path / "runs" / "unfinished", 0.6, "running")
    app = create_app(settings_for(tmp_path))
    with running(settings_for(tmp_path), app) as client:

        def source() -> str:
            return str(client.get("/models/best").json().get("source"))

        assert source().endswith("runs/old")
        assert client.get("/models/best").json()["automatic"] is True
        save_run(tmp_path / "runs" / "new", 0.7)
        until(lambda: source().endswith("runs/new"))
        save_model(tmp_path / "runs" / "broken" / "best", 0.7, scale=0.0)
        save_run(tmp_path / "chosen", 0.9)
        activate(client, tmp_path / "chosen")
        save_run(tmp_path / "runs" / "newest", 0.8)
        looks(app)
        assert source().endswith("chosen")
        assert client.delete("/models/best").status_code == 204
        until(lambda: source().endswith("runs/newest"))


def test_a_run_stays_best_while_it_is_extended(tmp_path: Path) -> None:
    save_run(tmp_path / "runs" / "old", 0.5)
    save_run(tmp_path / "runs" / "new", 0.7)
    run = RunFolder(tmp_path / "runs" / "new")
    run.set_status("completed")
    with running(settings_for(tmp_path)) as client:
        assert client.get("/models/best").json()["source"].endswith("runs/new")
    run.begin(TrainConfig.model_validate({"run": {"extend": 2}}))
    assert run.status()["state"] == "running"
    with running(settings_for(tmp_path)) as client:
        assert client.get("/models/best").json()["source"].endswith("runs/new")


def test_an_extended_run_is_newest_again_only_when_it_is_complete(tmp_path: Path) -> None:
    save_run(tmp_path / "runs" / "first", 0.5)
    save_run(tmp_path / "runs" / "second", 0.7)
    first, second = (RunFolder(tmp_path / "runs" / name) for name in ("first", "second"))
    first.set_status("completed")
    second.set_status("completed")
    first.begin(TrainConfig.model_validate({"run": {"extend": 2}}))
    with running(settings_for(tmp_path)) as client:

        def source() -> str:
            return str(client.get("/models/best").json().get("source"))

        assert source().endswith("runs/second")
        first.set_status("completed")
        until(lambda: source().endswith("runs/first"))


def test_a_newest_run_that_cannot_serve_is_passed_over(tmp_path: Path) -> None:
    save_run(tmp_path / "runs" / "old", 0.5)
    save_run(tmp_path / "runs" / "new", 0.5)
    save_model(tmp_path / "runs" / "new" / "best", 0.5, scale=0.0)
    with running(settings_for(tmp_path)) as client:
        assert client.get("/models/best").json()["source"].endswith("runs/old")


def test_two_services_of_one_state_follow_each_other(tmp_path: Path) -> None:
    save_model(tmp_path / "first", 0.5)
    settings = settings_for(tmp_path)
    with running(settings) as one, running(settings) as other:
        version = activate(one, tmp_path / "first").json()["version"]
        until(lambda: reconstruct(other).headers.get("x-model-version") == version)


def test_models_come_from_object_stores_too(tmp_path: Path, object_store: str) -> None:
    from fbp_ray.storage import copy_folder, open_folder

    save_model(tmp_path / "first", 0.5)
    copy_folder(open_folder(tmp_path / "first"), open_folder(f"{object_store}/served/best"))
    with running(settings_for(tmp_path, places=[object_store])) as client:
        answer = client.post("/models/best/activate", json={"source": f"{object_store}/served"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["source"] == f"{object_store}/served"


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"source": 3}', b'{"source": "a", "x": 1}', b"{", b"\xff\xfe"])
def test_an_activation_says_where_from(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    with running(settings_for(tmp_path_factory.getbasetemp() / "activation")) as client:
        answer = client.post("/models/best/activate", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
