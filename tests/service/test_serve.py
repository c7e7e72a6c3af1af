"""Replicas of the service: their settings, how one starts, and all of it behind Ray Serve's proxy."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from fbp_ray.client import Client
from fbp_ray.errors import ConfigError, ServiceError
from fbp_ray.geometry import ParallelBeam
from fbp_ray.model import LearnableFBP, ModelConfig
from service import model_registry, observability
from service.serve import Replica, ServeSettings, import_serve, main, replica_settings
from service.settings import JobsConfig, ModelsConfig, Settings, read_tree
from tests.support.checkpoints import save_checkpoint
from tests.support.serving import running

SECONDS = 120.0


def read(*argv: str) -> ServeSettings:
    return read_tree(ServeSettings, argv, "serve")


def test_the_settings_are_the_services_and_those_of_the_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FBPRAY_REPLICAS__MAX", "4")
    monkeypatch.setenv("FBPRAY_LIMITS__STACK", "8")
    settings = read("--replicas.gpus", "0.5", "--port", "9000")
    assert (settings.replicas.min, settings.replicas.max, settings.replicas.gpus) == (1, 4, 0.5)
    assert (settings.port, settings.limits.stack) == (9000, 8)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--host", "0.0.0.0"), "lets other machines in"),
        (("--replicas.min", "3", "--replicas.max", "2"), "min is 3, more than max, 2"),
        (("--replicas.target_ongoing_requests", "65"), "no replica would ever have as many"),
        (("--port", "0"), "--port 0 is for `python -m service`"),
    ],
)
def test_what_does_not_hold_is_refused_before_anything_starts(argv: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        main(argv)


def test_without_ray_serve_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.serve", None)
    monkeypatch.delattr("ray.serve", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'fbp-ray\[serve\]'"):
        import_serve()


def test_places_mean_the_same_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ServeSettings(models=ModelsConfig(storage="s3://ct/runs"), jobs=JobsConfig(storage="runs"))
    settings = replica_settings(given)
    assert type(settings) is Settings
    assert settings.state == tmp_path / "service-state"
    assert (settings.models.storage, settings.jobs.storage) == ("s3://ct/runs", str(tmp_path / "runs"))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(observability, "log_to_stderr", lambda form: None)
    models = ModelsConfig(storage=str(tmp_path / "runs"), shipped=False)
    return Settings(state=tmp_path / "state", device="cpu", models=models)


def test_a_replica_has_started_when_its_models_are_warm_and_is_healthy_while_it_computes(settings: Settings) -> None:
    replica = Replica(settings)
    app = replica.__serve_build_asgi_app__()
    assert app.state.registry.waiting_for is None

    async def start() -> None:
        async with app.router.lifespan_context(app):
            await replica.check_health()

    asyncio.run(start())
    with pytest.raises(RuntimeError, match="has ended"):
        asyncio.run(replica.check_health())


def test_a_replica_that_cannot_warm_up_does_not_start(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_registry, "verify", lambda *given, **named: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Replica(settings)


def test_a_replica_runs_no_jobs_and_says_where_they_go(settings: Settings) -> None:
    with running(settings, Replica(settings).__serve_build_asgi_app__()) as client:
        answer = client.get("/jobs")
    assert answer.status_code == 501
    assert "python -m service" in answer.json()["detail"]


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Two replicas on a cluster of their own, behind a proxy; the url of it, and the process that deployed them."""
    pytest.importorskip("ray.serve", reason="Ray Serve is not installed", exc_type=ImportError)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    replicas = ["--replicas.min", "2", "--replicas.max", "2", "--replicas.cpus", "0.5"]
    places = ["--state", str(tmp_path / "state"), "--models.storage", str(tmp_path / "runs"), "--places", str(tmp_path)]
    often = ["--models.look_seconds", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "service.serve", "--port", str(port), *replicas, *places, *often],
        cwd=Path(__file__).parents[2],
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = next((line for line in process.stdout if line.startswith("ready")), "")
        assert line == f"ready: http://127.0.0.1:{port}\n"
        yield f"http://127.0.0.1:{port}", process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.stdout.close()
        process.wait(SECONDS)


@pytest.mark.chaos
def test_replicas_answer_as_one_process_does(
    deployment: tuple[str, subprocess.Popen[str]], scan: ParallelBeam, tmp_path: Path
) -> None:
    url, process = deployment
    model = LearnableFBP(ModelConfig(geometry=scan))
    save_checkpoint(tmp_path / "trained", model)
    stack = np.random.default_rng(0).random((5, *scan.sinogram_shape)).astype(np.float32)
    with Client(url) as service:
        assert service.ready()
        version = service.activate("best", str(tmp_path / "trained")).version
        until = time.monotonic() + SECONDS
        while not all(service.models() for _ in range(20)):  # both replicas answer some of them
            assert time.monotonic() < until
        for _ in range(10):
            found = service.reconstruct(stack)
            with torch.no_grad():
                expected = model(torch.from_numpy(stack)).numpy()
            np.testing.assert_allclose(found.image, expected, rtol=1e-5, atol=1e-6)
            assert (found.model, found.version) == ("best", version)
        with pytest.raises(ServiceError, match=r"422.*swap"):
            service.reconstruct(stack.transpose(0, 2, 1))
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 0
