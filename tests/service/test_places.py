"""Models and jobs come from the places that the settings name, and nothing elsewhere is reached, read or repeated."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import h5py
import httpx
import numpy as np
import pytest

from fbp_ray.config import TrainConfig
from fbp_ray.errors import ConfigError, RunError
from fbp_ray.run import RunFolder
from service.jobs.documents import read_progress
from service.places import Places, without_secrets
from tests.support.job_service import FakeCluster, JobService
from tests.support.scans import COARSE, write_scan
from tests.support.serving import running, save_model, settings_for

SECRET = "sEcReT"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the service may use; its parent is beyond."""
    root = tmp_path_factory.mktemp("places") / "in"
    save_model(root / "model")
    save_model(root.parent / "beyond")
    (root.parent / "secret").write_text(SECRET)
    (root / "out").symlink_to(root.parent / "beyond")
    (root / "inner").symlink_to(root / "model")
    return root


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[httpx.Client]:
    with running(settings_for(root, places=[str(root), "s3://ct/models"])) as client:
        yield client


@pytest.mark.parametrize(
    "place",
    [
        "s3://ct/models?endpoint_override=127.0.0.1:PORT&scheme=http",
        f"s3://KEY:{SECRET}@ct/models/a",
        f"s3://ct/models/a#{SECRET}",
        "s3://ct/models/../other",
        "s3://ct/models/%2e%2e/other",
        "s3://ct/modelsandmore",
        "s3://ct2/models/a",
        "s3://ct@127.0.0.1:PORT/models",
        "gs://ct/models",
        "http://127.0.0.1:PORT/models",
        "ftp://127.0.0.1:PORT/models",
        "hdfs://127.0.0.1:PORT/models",
        "file:///etc",
        "file://localhost/etc",
        "memory://models",
        "simplecache::http://127.0.0.1:PORT/x",
        "/etc",
        "~root",
        "/proc/self/root/etc",
        "ROOT/../beyond",
        "ROOT/model/../../beyond",
        "ROOT//../beyond",
        "ROOT/out",
        "ROOT/inner/../../beyond",
        "ROOT/model\x00",
        "ROOT/model\n",
        "ROOT/\ud800",
        "ROOT" + "/x" * 3000,
    ],
)
def test_nothing_beyond_is_asked_or_repeated(client: httpx.Client, root: Path, place: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        source = place.replace("ROOT", str(root)).replace("PORT", str(listening.getsockname()[1]))
        content = json.dumps({"source": source})
        answer = client.post("/models/a/activate", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, answer.text
        assert SECRET not in answer.text
        listening.settimeout(0)
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_what_is_in_them_serves_by_any_name(client: httpx.Client, root: Path) -> None:
    for source in (f"{root}/model", f"{root}//./inner/../model/", f"file://{root}/model", f"{root}/inner"):
        answer = client.post("/models/a/activate", json={"source": source})
        assert answer.status_code == 200, answer.text
        assert answer.json()["source"] == f"{root}/model"


@pytest.mark.parametrize(("name", "why"), [("manifest.json", "has no manifest"), ("weights", "is no file, but a pipe")])
def test_a_pipe_keeps_nobody_waiting(client: httpx.Client, root: Path, name: str, why: str) -> None:
    folder = root / f"pipe-{name}"
    save_model(folder)
    known = json.loads((folder / "manifest.json").read_text())["files"]
    file = folder / known.get(name, name)
    file.unlink()
    os.mkfifo(file)
    answer = client.post("/models/a/activate", json={"source": str(folder)})
    assert (answer.status_code, why in answer.json()["detail"]) == (422, True), answer.text


@pytest.mark.parametrize("name", ["manifest.json", "weights"])
def test_no_more_is_read_than_a_model_needs(client: httpx.Client, root: Path, name: str) -> None:
    folder = root / f"large-{name}"
    save_model(folder)
    known = json.loads((folder / "manifest.json").read_text())["files"]
    os.truncate(folder / known.get(name, name), 1 << 36)
    answer = client.post("/models/a/activate", json={"source": str(folder)})
    assert (answer.status_code, "more than the" in answer.json()["detail"]) == (422, True), answer.text


@pytest.mark.parametrize("kind", ["link", "folder", "weights", "text", "value", "key", "nested"])
def test_no_file_is_quoted(client: httpx.Client, root: Path, kind: str) -> None:
    folder = root / f"bad-{kind}"
    if kind == "folder":
        folder.mkdir()
        (folder / "best").symlink_to(root.parent / "beyond")
    else:
        save_model(folder)
    file = folder / "manifest.json"
    good = None if kind == "folder" else json.loads(file.read_text())
    if kind == "link":
        file.unlink()
        file.symlink_to(root.parent / "secret")
    elif kind == "weights":
        weights = folder / good["files"]["weights"]
        weights.rename(root.parent / "weights")
        weights.symlink_to(root.parent / "weights")
    elif kind == "text":
        file.write_text(SECRET)
    elif kind == "value":
        file.write_text(json.dumps(good | {"epoch": SECRET}))
    elif kind == "key":
        file.write_text(json.dumps(good | {SECRET: 1}))
    elif kind == "nested":
        file.write_text(json.dumps(good | {"metrics": {SECRET: SECRET}}))
    answer = client.post("/models/a/activate", json={"source": str(folder)})
    assert answer.status_code == 422
    assert SECRET not in answer.text
    words = {"link": "is a link", "folder": "is a link", "weights": "is a link", "value": "epoch", "nested": "metrics"}
    assert words.get(kind, "manifest.json cannot be read") in answer.json()["detail"]


def test_the_source_of_a_model_carries_no_keys(tmp_path: Path) -> None:
    save_model(tmp_path / "model")
    with running(settings_for(tmp_path)) as client:
        client.post("/models/a/activate", json={"source": str(tmp_path / "model")}).raise_for_status()
    with sqlite3.connect(tmp_path / "state" / "service.sqlite") as database:  # of a version that took them
        database.execute(f"UPDATE models SET source = 's3://KEY:{SECRET}@ct/a?access_key={SECRET}'")
    database.close()
    with running(settings_for(tmp_path)) as client:
        assert client.get("/models/a").json()["source"] == "s3://ct/a"


def test_options_in_a_setting_hold_for_what_is_in_it(object_store: str) -> None:
    from fbp_ray.storage import open_folder

    (open_folder(object_store) / "x").write("a", "b")
    places = Places([f"{object_store}?region=us-east-1"])
    assert places.open(f"{object_store}/x").read("a") == b"b"
    assert str(places.resolve(f"{object_store}//x/./")) == f"{object_store}/x"
    assert without_secrets(f"s3://a:b@{object_store.removeprefix('s3://')}?c#d") == object_store


@pytest.fixture
def service(tmp_path: Path) -> Iterator[JobService]:
    service = JobService(tmp_path / "in", FakeCluster(local=False))
    service.jobs._places = Places([str(tmp_path / "in"), "s3://ct/runs"])
    yield service
    service.close()


def test_jobs_stay_in_them_too(service: JobService) -> None:
    (service.folder / "out").symlink_to(service.folder.parent)
    for config in (
        {"run": {"storage": "IN/../beyond"}},
        {"run": {"storage": "s3://ct/runs?endpoint_override=127.0.0.1:1"}},
        {"run": {"storage": "IN", "name": "out"}},
        {"init": {"checkpoint": "/etc"}},
        {"data": {"dir": "/etc"}},
        {"data": {"dir": "IN/out"}},
    ):
        body = json.dumps({"kind": "train", "config": config}).replace("IN", str(service.folder))
        answer = service.http.post("/jobs", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, config
        assert "may not use" in answer.text or "more than a bucket" in answer.text


@pytest.mark.parametrize("kind", ["link", "external", "virtual", "virtual of virtual", "stored", "within"])
def test_data_do_not_lead_out_of_them(service: JobService, kind: str) -> None:
    beyond, data = service.folder.parent / "secret.hdf5", service.folder / "data"
    write_scan(data)
    with h5py.File(beyond, "w") as file:
        file["data"] = np.zeros((4, *COARSE.sinogram_shape), np.float32)
    observation = data / "observation_train_000.hdf5"
    source = service.folder / "inner.hdf5" if kind == "within" else beyond
    observation.rename(service.folder / "inner.hdf5")
    with h5py.File(service.folder / "inner.hdf5", "a") as file, h5py.File(data / "other.hdf5", "w") as other:
        layout = h5py.VirtualLayout(file["data"].shape, np.float32)
        layout[:4] = h5py.VirtualSource(str(source), "data", (4, *COARSE.sinogram_shape))
        other.create_virtual_dataset("data", layout)
    if kind == "link":
        observation.symlink_to(beyond)
    else:
        with h5py.File(observation, "w") as file:
            if kind in ("external", "within"):
                file["here"] = h5py.ExternalLink(str(source), "data")
                file["data"] = h5py.SoftLink("/here")
            elif kind == "stored":
                size = int(np.prod(layout.shape)) * 4
                file.create_dataset("data", layout.shape, np.float32, external=[(str(beyond), 0, size)])
            else:
                inner = "other.hdf5" if kind == "virtual of virtual" else str(beyond)
                whole = h5py.VirtualLayout(layout.shape, np.float32)
                whole[:4] = h5py.VirtualSource(inner, "data", layout.shape)[:4]
                file.create_virtual_dataset("data", whole)
    answer = service.http.post("/jobs", json={"kind": "train", "config": {"data": {"dir": str(data)}}})
    if kind == "within":
        assert "takes its data from elsewhere" not in answer.text
    else:
        assert answer.status_code == 422, answer.text
        assert f"{beyond}, only what is in" in answer.json()["detail"]


def test_nor_does_what_a_model_was_trained_on(service: JobService) -> None:
    beyond, model = service.folder.parent / "data", service.folder / "model"
    write_scan(beyond)
    save_model(model)
    manifest = json.loads((model / "manifest.json").read_text())
    (model / "manifest.json").write_text(json.dumps(manifest | {"data": {"dir": str(beyond)}}))
    answer = service.http.post("/jobs", json={"kind": "evaluate", "config": {"checkpoint": str(model)}})
    assert answer.status_code == 422
    assert f"the service may not use {beyond}" in answer.json()["detail"]


def test_a_folder_has_one_name(service: JobService) -> None:
    folder = service.folder / "runs"
    (folder / "real").mkdir(parents=True)
    (folder / "link").symlink_to(folder / "real")
    (service.folder / "again").symlink_to(folder)
    taken = service.post({"run": {"name": "real"}})
    for storage, name in (
        (f"{folder}/../runs", "real"),
        (f"{folder}//", "real"),
        (f"{folder}/.", "real"),
        (f"file://{folder}", "real"),
        (str(service.folder / "again"), "real"),
        (str(folder), "link"),
    ):
        answer = service.http.post(
            "/jobs", json={"kind": "train", "config": {"run": {"storage": storage, "name": name}}}
        )
        assert (answer.status_code, taken["id"] in answer.json()["detail"]) == (409, True), (storage, name)
    for inner in ("", "/best", "/../real/trials/0001"):  # nor is one in the other
        out = {"checkpoint": str(folder / "x"), "out": f"{folder}/x/../real{inner}"}
        assert service.http.post("/jobs", json={"kind": "evaluate", "config": out}).status_code == 409
    out["out"] = f"{folder}/real-2"
    assert service.http.post("/jobs", json={"kind": "evaluate", "config": out}).status_code == 201
    for storage in ("s3://ct/runs/a", "s3://ct//runs/./a/"):
        answer = service.http.post(
            "/jobs", json={"kind": "train", "config": {"run": {"storage": storage, "name": "b"}}}
        )
    assert answer.status_code == 409


def test_no_file_of_a_job_is_quoted(service: JobService) -> None:
    (service.folder.parent / "secret").write_text(f"a: '{SECRET}'\n{SECRET}: [\n")
    for name in ("config.yaml", "status.json", "history.csv", "baseline.json"):
        for linked in (True, False):
            folder = service.folder / "runs" / f"{name}-{linked}"
            folder.mkdir(parents=True)
            (folder / "config.yaml").write_text("{}")
            (folder / name).unlink(missing_ok=True)
            if linked:
                (folder / name).symlink_to(service.folder.parent / "secret")
            else:
                bad = f"epoch,{SECRET}\n1,{SECRET}\n" if name == "history.csv" else f"{SECRET}: [{SECRET}"
                (folder / name).write_text(bad)
            for run in ({"name": folder.name}, {"name": folder.name, "extend": 2}):
                answer = service.http.post("/jobs", json={"kind": "train", "config": {"run": run}})
                assert SECRET not in answer.text
                assert answer.status_code < 500
            progress = read_progress("train", str(folder), {}, service.jobs._places.open)
            assert name in progress.problem.removeprefix(str(folder))
            assert SECRET not in progress.problem


def test_a_file_that_is_not_of_this_version_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.yaml").write_text(f"optim: {{lr: {SECRET}}}")
    with pytest.raises(RunError, match=r"config\.yaml is not of this version \(optim\.lr must be a number\)"):
        RunFolder(tmp_path / "a").check_resumable(TrainConfig())
    with pytest.raises(ConfigError, match="at most"):
        Places(["/"]).resolve("x" * 5000)
