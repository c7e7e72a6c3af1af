"""Tokens, limits, health, metrics and logs of the service, and what its settings refuse."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.types import Message

from fbp_ray.client import Client
from fbp_ray.errors import ConfigError, RunError
from fbp_ray.geometry import ParallelBeam
from service.app import create_app
from service.body_limits import depth
from service.jobs.manager import Jobs
from service.observability import JsonLines
from service.settings import read_settings
from tests.support.job_service import FakeCluster
from tests.support.serving import as_npy, running, save_model, settings_for, sinograms

RECONSTRUCT, OPERATE = "r" * 20, "o" * 20


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with running(settings_for(tmp_path_factory.mktemp("service"))) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_tokens_have_roles(tmp_path: Path) -> None:
    save_model(tmp_path / "model")
    access = {"reconstruct": [RECONSTRUCT], "operate": [OPERATE]}
    source = {"source": str(tmp_path / "model")}
    with running(settings_for(tmp_path, access=access)) as client:
        for headers, status in (({}, 401), (bearer("x" * 20), 401), (bearer(RECONSTRUCT), 403), (bearer(OPERATE), 200)):
            answer = client.post("/models/best/activate", json=source, headers=headers)
            assert answer.status_code == status, answer.text
            if status == 401:
                assert answer.headers["www-authenticate"].startswith("Bearer")
        for headers, status in (({}, 401), (bearer(RECONSTRUCT), 200), (bearer(OPERATE), 200)):
            assert client.post("/reconstruct", content=as_npy(sinograms(1)), headers=headers).status_code == status
            assert client.get("/models", headers=headers).status_code == status
            assert client.get("/metrics", headers=headers).status_code == status
        assert client.get("/health/live").status_code == 200
        assert client.get("/health/ready").status_code == 200


def test_without_tokens_no_page_of_another_site_gets_in(tmp_path: Path) -> None:
    with running(settings_for(tmp_path)) as client:
        own = str(client.base_url).rstrip("/")
        assert client.get("/models", headers={"Origin": own}).status_code == 200
        for headers in ({"Origin": "https://elsewhere.example"}, {"Host": "elsewhere.example"}, {"Origin": "null"}):
            answer = client.get("/models", headers=headers)
            assert answer.status_code == 403
            assert "set a token" in answer.json()["detail"]


def test_pages_of_sites_that_are_named_may_call(tmp_path: Path) -> None:
    site = "https://ct.example"
    with running(settings_for(tmp_path, access={"cors_origins": [site]})) as client:
        answer = client.get("/models", headers={"Origin": site})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == site
        asked = {"Origin": site, "Access-Control-Request-Method": "POST"}
        assert client.options("/reconstruct", headers=asked).status_code == 200
    with running(settings_for(tmp_path)) as client:
        assert "access-control-allow-origin" not in client.get("/health/live", headers={"Origin": site}).headers


def test_beyond_loopback_the_service_wants_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="lets other machines in"):
        read_settings(["--host", "0.0.0.0"])
    tokens = tmp_path / "tokens"
    tokens.write_text(f"# of the operators\n{OPERATE}\n")
    settings = read_settings(["--host", "0.0.0.0", "--access.operate_file", str(tokens)])
    assert [token.get_secret_value() for token in settings.access.operate] == [OPERATE]
    assert OPERATE not in repr(settings)
    tokens.write_text(f"\ufeff{OPERATE}\n", encoding="utf-8")  # some editors begin a file with a byte-order mark
    settings = read_settings(["--access.operate_file", str(tokens)])
    assert [token.get_secret_value() for token in settings.access.operate] == [OPERATE]
    for content, words in (("", "holds no token"), ("short\n", "fewer than 16")):
        tokens.write_text(content)
        with pytest.raises(ConfigError, match=words):
            read_settings(["--access.operate_file", str(tokens)])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(["--access.operate_file", str(tmp_path / "nowhere")])
    with pytest.raises(ConfigError) as refused:
        read_settings(["--access.operate", '["secret7"]'])
    assert "secret7" not in str(refused.value)


def test_a_hyphen_stands_for_an_underscore() -> None:
    assert read_settings(["--root-path", "/a-b", "--access.cors-origins=https://c-t.example"]) == read_settings(
        ["--root_path", "/a-b", "--access.cors_origins=https://c-t.example"]
    )


def test_settings_come_from_file_dotenv_environment_and_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "service.yaml"
    file.write_text("port: 1\nlimits: {stack: 1, json_kb: 1}\nbatching: {images: 1}\nlog: text\n")
    (tmp_path / ".env").write_text("OTHER=1\nFBPRAY_PORT=2\nFBPRAY_LIMITS__STACK=2\nFBPRAY_BATCHING__IMAGES=2\n")
    monkeypatch.setenv("FBPRAY_PORT", "3")
    monkeypatch.setenv("FBPRAY_LIMITS__STACK", "3")
    settings = read_settings(["--config", str(file), "--port", "4"])
    found = settings.port, settings.limits.stack, settings.batching.images, settings.limits.json_kb, settings.log
    assert found == (4, 3, 2, 1, "text")
    monkeypatch.setenv("FBPRAY_PROT", "3")
    with pytest.raises(ConfigError, match="FBPRAY_PROT, which is no setting"):
        read_settings([])


@pytest.mark.parametrize("argv", [["--port", "70000"], ["--limits.stack", "0"], ["--models.cutoff", "2"]])
def test_settings_that_do_not_hold_are_refused(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=argv[0]):
        read_settings(argv)


def test_json_is_neither_large_nor_deep(tmp_path: Path) -> None:
    with running(settings_for(tmp_path, limits={"json_kb": 10, "json_depth": 8})) as client:
        deep = client.post("/models/best/activate", content=b"[" * 5000)
        assert (deep.status_code, deep.headers["content-type"]) == (422, "application/problem+json")
        assert "nested 8 deep" in deep.json()["detail"]
        large = client.post("/models/best/activate", content=b" " * 10_001)
        assert large.status_code == 413
        assert large.json()["request_id"] == large.headers["x-request-id"]


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        (b"", 0),
        (b"[]", 1),
        (b'{"a": [1, {"b": 2}]}', 3),
        (b'"[[[["', 0),
        (b'"\\"[["', 0),
        (b'["\\\\", []]', 2),
        (b"]]][", 0),
    ],
)
def test_depth_counts_brackets_outside_of_strings(text: bytes, levels: int) -> None:
    assert depth(text) == levels


def test_figures_for_prometheus(tmp_path: Path) -> None:
    save_model(tmp_path / "model")
    with running(settings_for(tmp_path)) as client:
        version = client.post("/models/best/activate", json={"source": str(tmp_path / "model")}).json()["version"]
        client.post("/reconstruct", content=as_npy(sinograms(3)))
        client.post("/reconstruct", content=b"nothing")
        client.get("/nowhere")
        text = client.get("/metrics").text
    for line in (
        'fbp_requests_total{method="POST",route="/reconstruct",status="200"} 1.0',
        'fbp_requests_total{method="POST",route="/reconstruct",status="415"} 1.0',
        'fbp_requests_total{method="GET",route="none",status="404"} 1.0',
        'fbp_images_total{model="best"} 3.0',
        f'fbp_model_info{{name="best",version="{version}"}} 1.0',
        "fbp_queue_images 0.0",
        "fbp_body_bytes 0.0",
    ):
        assert line in text, line
    assert "fbp_batch_images_bucket" in text
    assert "process_resident_memory_bytes" in text


def test_logs_are_json_with_the_request_id(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="service.access"), running(settings_for(tmp_path)) as client:
        client.get("/models", headers={"X-Request-Id": "look-for-me"})
        client.get("/models", headers={"X-Request-Id": "not an id"})
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records if record.name == "service.access"]
    mine = next(line for line in lines if line["request_id"] == "look-for-me")
    assert (mine["method"], mine["path"], mine["status"], mine["level"]) == ("GET", "/models", 200, "info")
    assert all(" " not in line["request_id"] for line in lines)


def test_what_there_is_not_is_a_problem_document(tmp_path: Path) -> None:
    with running(settings_for(tmp_path)) as client:
        missing, wrong = client.get("/nothing"), client.put("/models")
        assert (missing.status_code, wrong.status_code) == (404, 405)
        assert wrong.headers["allow"] == "GET"
        for answer in (missing, wrong):
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["request_id"]


@pytest.mark.parametrize("sent", ["", "/fbp"])
def test_a_proxy_may_offer_the_service_below_a_path_and_strip_it_or_not(tmp_path: Path, sent: str) -> None:
    settings = settings_for(tmp_path, root_path="/fbp")
    app, cluster = create_app(settings), FakeCluster()
    cluster.refuses = "no room"
    app.state.jobs = Jobs(settings, app.state.database, app.state.metrics, lambda *_: None, cluster, 0.01)
    with running(settings, app) as http, Client(f"{http.base_url}{sent}") as client:
        assert "'/fbp/openapi.json'" in http.get(f"{sent}/docs").text
        assert http.get(f"{sent}/openapi.json").json()["servers"] == [{"url": "/fbp"}]
        job = http.post(f"{sent}/jobs", json={"kind": "train"})
        assert job.headers["location"] == f"/fbp/jobs/{job.json()['id']}"
        with pytest.raises(RunError, match="no room"):
            client.wait(job.json()["id"], progress=False)
        assert "event: end" in http.get(f"{sent}/jobs/{job.json()['id']}/events").text
        assert http.get(f"{sent}/jobs/", follow_redirects=False).headers["location"].endswith("/fbp/jobs")
        large = client.reconstruct(np.zeros((8, *ParallelBeam.lodopab().sinogram_shape), np.float32))
        assert len(large.image) == 8  # far beyond the limit on JSON


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd", "x-gzip, identity"])
@pytest.mark.parametrize("path", ["/reconstruct", "/jobs", "/models/best/activate"])
def test_bodies_that_are_compressed_as_a_whole_are_refused_by_name(
    client: httpx.Client, path: str, coding: str
) -> None:
    answer = client.post(path, content=gzip.compress(as_npy(sinograms(1))), headers={"Content-Encoding": coding})
    assert answer.status_code == 415
    assert f"Content-Encoding: {coding} is not taken" in answer.json()["detail"]
    assert answer.headers["accept-encoding"] == "identity"


def test_an_unforeseen_error_keeps_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(settings_for(tmp_path))

    def broken() -> None:
        raise RuntimeError("secret of the house")

    with running(settings_for(tmp_path), app) as client:
        monkeypatch.setattr(app.state.registry, "models", broken)
        answer = client.get("/models")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_too_many_bodies_at_a_time_are_told_to_come_again(tmp_path: Path) -> None:
    app = create_app(settings_for(tmp_path, limits={"waiting_mb": 0.1}))
    with running(settings_for(tmp_path), app) as client:
        app.state.memory.in_use = 99_000
        answer = client.post("/reconstruct", content=as_npy(sinograms(1)))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        app.state.memory.in_use = 0
        assert client.post("/reconstruct?method=fbp", content=b"").status_code == 400
        assert app.state.memory.in_use == 0


@pytest.mark.parametrize(("goes_away", "status"), [(True, 499), (False, 503)])
def test_a_request_that_nobody_waits_for_or_that_takes_too_long_leaves_the_queue(
    tmp_path: Path, goes_away: bool, status: int
) -> None:
    app = create_app(settings_for(tmp_path, limits={"request_seconds": 10 if goes_away else 1}))
    app.state.registry.load()
    body = as_npy(np.zeros((3, 1000, 513), np.float32))
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    messages += [{"type": "http.disconnect"}] * goes_away
    sent: list[Message] = []
    scope: dict[str, Any] = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": "/reconstruct", "raw_path": b"/reconstruct",
        "query_string": b"", "root_path": "", "scheme": "http", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 9),
        "headers": [(b"host", b"127.0.0.1"), (b"content-length", str(len(body)).encode())], "state": {},
    }  # fmt: skip

    async def receive() -> Message:
        return messages.pop(0) if messages else await asyncio.Future()

    async def send(message: Message) -> None:
        sent.append(message)

    async def ask() -> int:
        await app(scope, receive, send)  # the batches are not started: nothing is ever computed
        return sum(not piece.image.cancelled() for request in app.state.batcher._requests for piece in request)

    assert asyncio.run(asyncio.wait_for(ask(), 20)) == 0
    assert app.state.batcher._waiting() == 3
    assert sent[0]["status"] == status
    app.state.database.close()


def test_a_stack_is_sent_as_it_finishes(tmp_path: Path) -> None:
    """The first image of a stack arrives while the last one cannot have been computed yet."""
    save_model(tmp_path / "model")
    app = create_app(settings_for(tmp_path, batching={"images": 1}))
    with running(settings_for(tmp_path), app) as client:
        client.post("/models/best/activate", json={"source": str(tmp_path / "model")}).raise_for_status()
        arrived, computed = threading.Event(), 0
        engine = app.state.registry._models["best"].engine

        def run(batch: Any) -> Any:
            nonlocal computed
            if computed == 2:
                assert arrived.wait(10), "nothing had arrived when the last image was due"
            computed += 1
            return engine.run(batch)

        serving = replace(app.state.registry._models["best"], engine=replace(engine, run=run))
        app.state.registry._models["best"] = serving
        with client.stream("POST", "/reconstruct", content=as_npy(sinograms(3))) as answer:
            parts = []
            for part in answer.iter_bytes():
                parts.append(part)
                arrived.set()
    assert computed == 3
    whole = np.frombuffer(b"".join(parts)[-3 * 47 * 47 * 4 :], np.float32)
    assert np.isfinite(whole).all()


def test_a_state_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(ConfigError, match="choose another --state"):
        create_app(settings_for(tmp_path))


def test_httpx_sees_every_answer_documented(tmp_path: Path) -> None:
    with running(settings_for(tmp_path)) as client:
        document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            assert route["responses"], (path, method)
            for status, answer in route["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"], (path, method, status)
