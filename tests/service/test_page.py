"""The page as the service serves it, and what the API has for it. `make test-page` drives it in a browser."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from fbp_ray.filters import BandWindow
from fbp_ray.model import LearnableFBP, ModelConfig
from fbp_ray.stage_settings import WindowConfig
from service import openapi
from service.app import create_app
from service.static_page import HEADERS, WITHOUT, read_page
from tests.support.checkpoints import save_checkpoint
from tests.support.scans import COARSE
from tests.support.serving import as_npy, running, save_model, settings_for, sinograms

PAGE = Path(__file__).parents[2] / "service" / "page"
RECONSTRUCT, OPERATE = {"Authorization": f"Bearer {'r' * 16}"}, {"Authorization": f"Bearer {'o' * 16}"}
SCRIPT = b"let page = 'fbp-ray';" * 50


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service with tokens, a page, and two models: one window for all rays, and one by their noise."""
    folder = tmp_path_factory.mktemp("page")
    built = folder / "dist"
    built.mkdir()
    (built / "index.html").write_text("<!doctype html>")
    (built / "main-AB.js").write_bytes(SCRIPT)
    (built / "secret").write_text("not in the manifest")
    (built / "manifest.json").write_text(json.dumps({"index.html": "text/html", "main-AB.js": "text/javascript"}))
    save_model(folder / "runs" / "plain")
    window = WindowConfig(kind="adaptive", init="hann", cutoff=0.8, photons=4096.0, unit=81.35858)
    model = LearnableFBP(ModelConfig(geometry=COARSE, window=window))
    save_checkpoint(folder / "runs" / "noisy", model, epoch=1, metrics={}, data={"dir": "d"})
    settings = settings_for(folder, access={"reconstruct": ["r" * 16], "operate": ["o" * 16]})
    app = create_app(settings)
    app.state.page = read_page(built)
    with running(settings, app) as client:
        for name in ("plain", "noisy"):
            source = str(folder / "runs" / name)
            assert client.post(f"/models/{name}/activate", json={"source": source}, headers=OPERATE).status_code == 200
        yield client


def test_the_page_is_public_and_strict(client: httpx.Client) -> None:
    for path, kept in (("/", "no-cache"), ("/page/main-AB.js", "public, max-age=31536000, immutable")):
        answer = client.get(path)
        assert answer.status_code == 200
        assert HEADERS.items() <= dict(answer.headers.items() | {(n, answer.headers[n]) for n in HEADERS}).items()
        assert answer.headers["cache-control"] == kept
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in answer.headers
        assert client.get(path, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == SCRIPT
    plain = client.get("/page/main-AB.js", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == SCRIPT
    assert client.head("/").status_code == 200


@pytest.mark.parametrize("name", ["secret", "manifest.json", "..%2fmanifest.json", "%2e%2e/app.py", "index.html%00"])
def test_nothing_is_served_but_what_was_built(client: httpx.Client, name: str) -> None:
    assert client.get(f"/page/{name}").status_code == 404


def test_without_the_page_the_service_says_how_to_get_it(tmp_path: Path) -> None:
    app = create_app(settings_for(tmp_path))
    app.state.page = read_page(tmp_path)
    with running(settings_for(tmp_path), app) as client:
        answer = client.get("/")
        assert (answer.status_code, answer.text) == (200, WITHOUT)
        assert answer.text.count("\n") == 1
        assert client.get("/access").json()["role"] == "operate"
        assert client.post("/noise?model=best", content=as_npy(sinograms()[0])).status_code == 404


def test_a_caller_learns_its_role_and_its_limits(client: httpx.Client) -> None:
    assert client.get("/access").status_code == 401
    assert client.get("/access", headers=RECONSTRUCT).json()["role"] == "reconstruct"
    answer = client.get("/access", headers=OPERATE).json()
    assert answer | {"role": "operate", "tokens": True, "body_bytes": 512_000_000, "stack": 256} == answer


def test_a_file_comes_back_as_float32(client: httpx.Client) -> None:
    stack = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    packed = io.BytesIO()
    np.savez_compressed(packed, data=stack)
    for content in (as_npy(np.asfortranarray(stack)), packed.getvalue()):
        answer = client.post("/array", content=content, headers=RECONSTRUCT)
        assert answer.status_code == 200
        found = np.load(io.BytesIO(answer.content))
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, stack)
    assert client.post("/array", content=packed.getvalue()).status_code == 401
    assert client.post("/array", content=as_npy(np.ones(3)), headers=RECONSTRUCT).status_code == 422
    empty = client.post("/array", content=as_npy(np.ones((0, 4, 5))), headers=RECONSTRUCT)
    assert (empty.status_code, empty.json()["detail"]) == (422, "the array is empty: its shape is (0, 4, 5)")
    assert client.post("/array", content=b"photograph", headers=RECONSTRUCT).status_code == 415


def test_a_window_is_told_beside_the_classic_ones(client: httpx.Client) -> None:
    plain = client.get("/models/plain/window?cutoff=0.8", headers=RECONSTRUCT).json()
    assert plain["kind"] == "frequency"
    assert not plain["noise"]
    np.testing.assert_allclose(plain["window"], plain["analytic"]["hann"], atol=1e-5)
    noisy = client.get("/models/noisy/window?cutoff=0.8", headers=RECONSTRUCT).json()
    assert noisy["noise"]
    bands, gains = np.array(noisy["bands"]), np.array(noisy["gains"])
    assert gains.shape == (len(bands) - 1, len(noisy["log_variance"]), len(noisy["log_energy"]))
    whole = bands[0] + np.einsum("m,mf->f", gains[:, 5, 5], bands[1:])  # untrained: the analytic one
    np.testing.assert_allclose(whole, noisy["analytic"]["hann"], atol=1e-5)
    assert client.get("/models/none/window", headers=RECONSTRUCT).status_code == 404


def test_the_noise_that_a_window_goes_by(client: httpx.Client) -> None:
    sinogram = sinograms()[0]
    answer = client.post("/noise?model=noisy", content=as_npy(sinogram), headers=RECONSTRUCT)
    assert answer.status_code == 200
    found = np.load(io.BytesIO(answer.content))
    window = WindowConfig(kind="adaptive", init="hann", cutoff=0.8, photons=4096.0, unit=81.35858)
    stage = LearnableFBP(ModelConfig(geometry=COARSE, window=window)).filter
    assert isinstance(stage, BandWindow)
    np.testing.assert_allclose(found, stage.noise_levels(sinogram[None])[0], rtol=1e-6)
    empty = stage.noise_levels(torch.zeros_like(sinogram)[None])
    np.testing.assert_allclose(empty, -np.log10(4096), rtol=1e-5)  # a ray that meets nothing has a variance of 1 / N
    plain = client.post("/noise?model=plain", content=as_npy(sinogram), headers=RECONSTRUCT)
    assert plain.status_code == 422
    assert "same for all rays" in plain.json()["detail"]
    wrong = client.post("/noise?model=noisy", content=as_npy(sinogram[:-1]), headers=RECONSTRUCT)
    assert wrong.status_code == 422
    assert client.post("/noise?model=noisy", content=gzip.compress(b"no"), headers=RECONSTRUCT).status_code == 415


def test_the_types_of_the_page_are_those_of_the_service() -> None:
    first = (PAGE / "src" / "service.d.ts").read_text().splitlines()[0]
    assert first.split()[-1] == openapi.digest(openapi.outline()), "requests or answers changed: run `make page-types`"


def test_runs_their_reports_and_pictures(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    save_model(run / "best")
    (run / "status.json").write_text(json.dumps({"state": "completed", "completed": 1.0}))
    evaluation = run / "evaluation-test"
    evaluation.mkdir()
    (evaluation / "report.html").write_text("<!doctype html><script>alert()</script>")
    settings = settings_for(tmp_path, jobs={"storage": str(tmp_path / "runs")})
    with running(settings) as client:
        (found,) = client.get("/runs").json()["runs"]
        assert (found["name"], found["state"], found["reports"]) == ("one", "completed", [str(evaluation)])
        assert found["model"]
        report = client.get("/report", params={"place": found["reports"][0]})
        assert report.status_code == 200
        assert report.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        assert client.get("/report", params={"place": str(run)}).status_code == 404
        sweep = run.with_name("sweep")
        sweep.mkdir()
        (sweep / "index.html").write_text("<!doctype html>")
        found = client.get("/runs").json()["runs"][0]
        assert (found["name"], found["state"], found["model"], found["reports"]) == (
            "sweep",
            "report",
            False,
            [str(sweep)],
        )
        report = client.get("/report", params={"place": str(sweep)})
        assert report.status_code == 200
        assert report.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        assert client.get("/report", params={"place": "/etc"}).status_code == 422
        (evaluation / "report.html").unlink()
        (evaluation / "report.html").symlink_to("/etc/passwd")
        assert client.get("/report", params={"place": str(evaluation)}).status_code == 404
        assert client.get("/jobs/none/newest").status_code == 404


def test_recipes_say_what_they_set(client: httpx.Client) -> None:
    found = client.get("/recipes", headers=OPERATE).json()
    assert "optim.lr" in found["searched"]["learning_rate"]
    recipes = {one["name"]: one["settings"] for one in found["recipes"]}
    assert recipes["quickstart"] == {
        "window.kind": "adaptive",
        "window.init": "hann",
        **{"loss.l1": 0.0, "loss.ms_ssim": 0.0, "loss.edge": 0.0, "loss.log_mse": 0.5, "loss.local_ssim": 1.0},
        **{"optim.lr": 0.05, "optim.schedule": "cosine", "train.epochs": 6},
    }
    assert recipes["lodopab-sparse"]["data.every"] == 5


def test_only_operators_see_runs(client: httpx.Client) -> None:
    for path in ("/runs", "/recipes", "/report?place=runs", "/jobs/none/newest"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers=RECONSTRUCT).status_code == 403
