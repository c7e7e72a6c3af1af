"""The client against the service itself, in-process and over sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from fastapi import FastAPI

from fbp_ray.client import AsyncClient, Client
from fbp_ray.data.layout import MU_MAX
from fbp_ray.errors import ConfigError, DataError, GeometryError, ServiceError
from fbp_ray.geometry import Geometry, ParallelBeam
from fbp_ray.model import LearnableFBP, ModelConfig, fbp
from service.app import create_app
from service.settings import AccessConfig, ModelsConfig, Settings
from tests.support.checkpoints import save_checkpoint
from tests.support.scans import FAN, PARALLEL

TOKEN = "reconstruct-token-0123"
OPERATE = "operate-token-01234567"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="session")
def trained(scan: ParallelBeam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a model in `scan`, which is the classic FBP as yet."""
    folder = tmp_path_factory.mktemp("trained")
    save_checkpoint(
        folder, LearnableFBP(ModelConfig(geometry=scan)), epoch=1, metrics={"psnr": 30.5}, data={"dir": "d"}
    )
    return folder


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    folder = tmp_path_factory.mktemp("service")
    access = AccessConfig(reconstruct=(TOKEN,), operate=(OPERATE,))  # type: ignore[arg-type]
    models = ModelsConfig(storage=str(folder / "runs"))
    places = (str(folder.parent),)
    return create_app(Settings(state=folder / "state", places=places, device="cpu", access=access, models=models))


@pytest.fixture(scope="session")
def url(app: FastAPI, trained: Path) -> Iterator[str]:
    """The service, with the trained model as `best`, on a port of its own."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", OPERATE) as service:
        while not service.ready():
            thread.join(0.05)
        service.activate("best", str(trained))
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def service(url: str) -> Iterator[Client]:
    with Client(url, TOKEN) as client:
        yield client


def sinograms(geometry: Geometry, count: int) -> np.ndarray:
    values = np.random.default_rng(0).random((count, *geometry.sinogram_shape))
    return values.astype(np.float32)


def test_one_sinogram_becomes_one_image(service: Client, scan: ParallelBeam) -> None:
    (sinogram,) = sinograms(scan, 1)
    found = service.reconstruct(sinogram)
    expected = LearnableFBP(ModelConfig(geometry=scan))(torch.from_numpy(sinogram)[None])[0].detach().numpy()
    assert found.image.shape == scan.image_shape
    assert found.image.dtype == np.float32
    np.testing.assert_allclose(found.image, expected, rtol=1e-5, atol=1e-6)
    assert (found.model, found.method, found.geometry) == ("best", "learned", scan.digest)
    assert found.version == service.model("best").version
    assert found.unit.startswith("attenuation")
    assert found.scale == service.model("best").value_scale == MU_MAX
    assert found.seconds >= 0
    assert len(found.request_id) == 32


def test_a_stack_becomes_a_stack(service: Client, scan: ParallelBeam) -> None:
    stack = sinograms(scan, 3)
    images = service.reconstruct(stack).image
    assert images.shape == (3, *scan.image_shape)
    np.testing.assert_allclose(images[1], service.reconstruct(stack[1]).image, rtol=1e-5, atol=1e-6)
    assert service.reconstruct(stack[:1]).image.shape == (1, *scan.image_shape)


@pytest.mark.parametrize("kind", ["float64", "float16", "fortran", "tensor", "leaf", "bfloat16"])
def test_arrays_of_any_floating_kind_are_taken(service: Client, scan: ParallelBeam, kind: str) -> None:
    (sinogram,) = sinograms(scan, 1)
    given = {
        "float64": lambda: sinogram.astype(np.float64),
        "float16": lambda: sinogram.astype(">f2"),
        "fortran": lambda: np.asfortranarray(sinogram),
        "tensor": lambda: torch.from_numpy(sinogram).double(),
        "leaf": lambda: torch.from_numpy(sinogram).requires_grad_(),
        "bfloat16": lambda: torch.from_numpy(sinogram).bfloat16(),
    }[kind]()
    tolerance = {"float16": 1e-2, "bfloat16": 1e-1}.get(kind, 1e-6)
    found, expected = service.reconstruct(given).image, service.reconstruct(sinogram).image
    assert np.linalg.norm(found - expected) <= tolerance * np.linalg.norm(expected)


def test_the_classic_fbp_takes_its_window(service: Client, scan: ParallelBeam) -> None:
    (sinogram,) = sinograms(scan, 1)
    found = service.reconstruct(sinogram, method="fbp", window="cosine", cutoff=0.7)
    expected = fbp(torch.from_numpy(sinogram)[None], scan, "cosine", 0.7)[0].numpy()
    np.testing.assert_allclose(found.image, expected, rtol=1e-5, atol=1e-6)
    assert (found.method, found.version) == ("fbp", "cosine-0.7")


def test_a_stack_may_come_with_its_own_scan(service: Client) -> None:
    for geometry in (PARALLEL, FAN):
        stack = sinograms(geometry, 2)
        found = service.reconstruct(stack, geometry=geometry, window="hann", cutoff=0.8)
        expected = fbp(torch.from_numpy(stack), geometry, "hann", 0.8).numpy()
        np.testing.assert_allclose(found.image, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
        assert (found.method, found.geometry) == ("fbp", geometry.digest)
        assert service.reconstruct(stack[0], geometry=geometry).image.shape == geometry.image_shape
    with pytest.raises(ServiceError, match=r"422: .*has one of its own"):
        service.reconstruct(stack, geometry=FAN, model="best")
    with pytest.raises(GeometryError, match="swap its last two axes"):
        service.reconstruct(stack.swapaxes(1, 2), geometry=FAN)
    with pytest.raises(GeometryError, match="ParallelBeam or FanBeam of fbp_ray, but this is a dict"):
        service.reconstruct(stack, geometry=FAN.model_dump())  # type: ignore[arg-type]


def test_arrays_that_are_no_sinograms_go_nowhere() -> None:
    with Client(transport=httpx.MockTransport(lambda request: pytest.fail("it was sent"))) as service:
        with pytest.raises(GeometryError, match=r"\(angles, cells\).*\(5,\)"):
            service.reconstruct(np.zeros(5, np.float32))
        with pytest.raises(DataError, match="int64; photon counts"):
            service.reconstruct(np.zeros((2, 3), np.int64))
        with pytest.raises(DataError, match="object"):
            service.reconstruct([[None, 1.0]])


def test_a_refusal_says_what_and_why(service: Client, scan: ParallelBeam) -> None:
    turned = np.ascontiguousarray(sinograms(scan, 1)[0].T)
    with pytest.raises(ServiceError, match=r"POST /reconstruct was refused with 422: .*swap") as caught:
        service.reconstruct(turned)
    assert caught.value.status == 422
    assert "swap" in caught.value.detail
    assert caught.value.request_id in str(caught.value)
    assert len(caught.value.request_id) == 32
    with pytest.raises(ServiceError, match=r"there is no model 'a b\?c'"):
        service.model("a b?c")


def test_models_are_listed_and_activated(service: Client, url: str, trained: Path, scan: ParallelBeam) -> None:
    assert service.ready()
    with pytest.raises(ServiceError, match="403") as caught:
        service.activate("other", str(trained))
    assert caught.value.status == 403
    with Client(url, OPERATE) as operator:
        made = operator.activate("other", str(trained))
        assert made.name == "other"
        assert made.metrics == {"psnr": 30.5}
        assert "phantom_error" in made.model_dump()
        assert {model.name for model in service.models()} == {"best", "other"}
        with pytest.raises(ServiceError, match="nothing") as refused:
            operator.activate("best", str(trained / "nothing"))
        assert refused.value.status == 422
    assert service.reconstruct(sinograms(scan, 1)[0], model="other").model == "other"


def test_without_a_token_the_message_says_where_one_goes(url: str) -> None:
    with Client(url) as service, pytest.raises(ServiceError, match=r"401: .*Client\(url, token=...\)"):
        service.models()


def test_without_a_service_the_message_says_how_to_start_one() -> None:
    with Client(f"http://127.0.0.1:{free_port()}", timeout=5) as service:
        for ask in (service.ready, service.models, lambda: service.reconstruct(np.zeros((2, 3)))):
            with pytest.raises(
                ServiceError, match=r"127\.0\.0\.1:\d+: .*refused; start one with `python -m service`"
            ) as e:
                ask()
            assert e.value.status is None


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://there", "http://", "http://a b:x"])
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigError, match=r"such as http://127\.0\.0\.1:8000"):
        Client(url)


def test_a_token_with_a_line_end_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="line's end"):
        Client(token="secret-token-0123456\n")


def test_a_proxy_is_not_asked_for_this_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with Client(url, TOKEN) as service:
        assert service.ready()


def test_the_asynchronous_client_does_the_same(app: FastAPI, url: str, service: Client, scan: ParallelBeam) -> None:
    stack = sinograms(scan, 4)

    async def in_process() -> None:
        async with AsyncClient(token=TOKEN, transport=httpx.ASGITransport(app)) as asynchronous:
            assert await asynchronous.ready()
            assert [model.name for model in await asynchronous.models()] == [model.name for model in service.models()]
            with pytest.raises(ServiceError, match="404"):
                await asynchronous.model("none")

    async def over_sockets() -> list[np.ndarray]:
        async with AsyncClient(url, TOKEN) as asynchronous:
            found = await asyncio.gather(*map(asynchronous.reconstruct, stack))
            return [one.image for one in found]

    asyncio.run(in_process())
    np.testing.assert_allclose(asyncio.run(over_sockets()), service.reconstruct(stack).image, rtol=1e-5, atol=1e-6)
