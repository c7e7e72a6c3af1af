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
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastapi import FastAPI

from fbp_ray.client import Client
from fbp_ray.errors import ConfigError, ServiceError
from fbp_ray.geometry import ParallelBeam
from fbp_ray.model import LearnableFBP, ModelConfig
from service import replica
from service.problems import Problem
from service.replica import JobsElsewhere, Replica, until_warm
from service.serve import ServeSettings, as_a_replica_needs, import_serve, main
from service.settings import JobsConfig, ModelsConfig, Settings, read_tree
from tests.support.checkpoints import save_checkpoint

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
    settings = as_a_replica_needs(given)
    assert type(settings) is Settings
    assert settings.state == tmp_path / "service-state"
    assert (settings.models.storage, settings.jobs.storage) == ("s3://ct/runs", str(tmp_path / "runs"))


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setattr(replica, "log_to_stderr", lambda form: None)
    runs = ModelsConfig(storage=str(tmp_path / "runs"))
    return Replica(Settings(state=tmp_path / "state", device="cpu", models=runs)).__serve_build_asgi_app__()


def test_a_replica_has_started_when_its_models_are_warm(application: FastAPI) -> None:
    async def start() -> None:
        async with application.router.lifespan_context(application):
            assert application.state.catalogue.waiting_for is None
            assert application.state.batcher.alive

    asyncio.run(start())
    assert not application.state.batcher.alive


def test_a_replica_that_cannot_warm_up_does_not_start(
    application: FastAPI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(application.state.catalogue, "_look", lambda: 1 / 0)

    async def start() -> None:
        async with application.router.lifespan_context(application):
            pass

    with pytest.raises(RuntimeError, match="warming up failed: division by zero"):
        asyncio.run(start())


def test_a_replica_without_its_thread_is_ill(tmp_path: Path) -> None:
    ill = Replica(Settings(state=tmp_path))
    asyncio.run(ill.check_health())
    ill.application = FastAPI()
    ill.application.state.batcher = SimpleNamespace(alive=False)
    with pytest.raises(RuntimeError, match="has ended"):
        asyncio.run(ill.check_health())


def test_warmth_is_waited_for() -> None:
    app = FastAPI()
    app.state.catalogue = catalogue = SimpleNamespace(waiting_for="models", failed=False)

    async def wait() -> None:
        waiting = asyncio.ensure_future(until_warm(app))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        catalogue.waiting_for = None
        await waiting

    asyncio.run(wait())


def test_jobs_are_elsewhere() -> None:
    jobs = JobsElsewhere()
    jobs.start()
    jobs.close()
    with pytest.raises(Problem, match="python -m service") as caught:
        jobs.submit  # noqa: B018
    assert caught.value.status == 501


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Two replicas on a cluster of their own, behind a proxy; the url of it, and the process that deployed them."""
    pytest.importorskip("ray.serve", reason="Ray Serve is not installed", exc_type=ImportError)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    replicas = ["--replicas.min", "2", "--replicas.max", "2", "--replicas.cpus", "0.5"]
    places = ["--state", str(tmp_path / "state"), "--models.storage", str(tmp_path / "runs")]
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
