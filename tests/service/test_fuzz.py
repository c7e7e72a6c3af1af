"""Whatever is sent, the service answers with what it documents, and never with a 5xx."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import h5py
import httpx
import numpy as np
import pytest
import schemathesis
import tifffile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from schemathesis.checks import CHECKS, load_all_checks

from service.app import create_app
from service.jobs.manager import Jobs
from tests.support.job_service import FakeCluster
from tests.support.serving import as_npy, running, save_model, settings_for, sinograms

FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("fuzz")
    save_model(folder / "model")
    with running(settings_for(folder, limits={"body_mb": 2, "stack": 8})) as client:
        client.post("/models/best/activate", json={"source": str(folder / "model")}).raise_for_status()
        yield client


def check(answer: httpx.Response) -> None:
    assert answer.status_code in (200, 400, 413, 415, 422), answer.text
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]


MAGIC = st.sampled_from([b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"II*\x00", b"MM\x00+"])


@FEW
@given(magic=MAGIC, rest=st.binary(max_size=500))
def test_any_bytes(client: httpx.Client, magic: bytes, rest: bytes) -> None:
    check(client.post("/reconstruct", content=magic + rest))


@FEW
@given(header=st.text(max_size=900), body=st.binary(max_size=200), version=st.integers(0, 4))
def test_any_npy_header(client: httpx.Client, header: str, body: bytes, version: int) -> None:
    text = header.encode()
    size = len(text).to_bytes(2 if version < 2 else 4, "little")
    check(client.post("/reconstruct", content=b"\x93NUMPY" + bytes([version, 0]) + size + text + body))


HEADER = st.fixed_dictionaries(
    {
        "descr": st.sampled_from(
            ["<f4", ">f8", "|O", "<f2", "<c16", "|V999999999", "<U9", "f4,f4", "nonsense", [], None]
        ),
        "fortran_order": st.sampled_from([True, False, 1, "x"]),
        "shape": st.lists(st.sampled_from([0, 1, 3, 60, 67, -1, 2**31, 2**63, "a", None]), max_size=5).map(tuple),
    }
)


@FEW
@given(header=HEADER, body=st.binary(max_size=200))
@example(header={"descr": "<f4", "fortran_order": False, "shape": (0, -1)}, body=b"")
@example(header={"descr": "<f4", "fortran_order": False, "shape": (-1, -3)}, body=bytes(12))
@example(header={"descr": "<f4", "fortran_order": True, "shape": (0, 2**63)}, body=b"")
@example(header={"descr": "<f4", "fortran_order": False, "shape": (0, 2**62, 2**62)}, body=b"")
def test_npy_headers_that_nearly_are(client: httpx.Client, header: dict[str, object], body: bytes) -> None:
    text = repr(header).encode() + b"\n"
    check(client.post("/reconstruct", content=b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body))


@FEW
@given(
    array=arrays.arrays(
        arrays.floating_dtypes() | arrays.integer_dtypes() | arrays.complex_number_dtypes(),
        arrays.array_shapes(min_dims=0, max_dims=4, max_side=8) | st.sampled_from([(60, 67), (1, 60, 67), (67, 60)]),
    )
)
def test_any_array(client: httpx.Client, array: np.ndarray) -> None:
    check(client.post("/reconstruct", content=as_npy(array)))


def whole_files() -> dict[str, bytes]:
    array = sinograms(1)[0].numpy()
    h5, tif, npz = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with h5py.File(h5, "w") as file:
        file.create_dataset("data", data=array, chunks=(20, 67), compression="gzip")
    tifffile.imwrite(tif, array, photometric="minisblack")
    np.savez_compressed(npz, data=array)
    return {"h5": h5.getvalue(), "tif": tif.getvalue(), "npz": npz.getvalue(), "npy": as_npy(array)}


WHOLE = whole_files()


@FEW
@given(kind=st.sampled_from(sorted(WHOLE)), data=st.data())
def test_damaged_files(client: httpx.Client, kind: str, data: st.DataObject) -> None:
    content = bytearray(WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 8), "places")):
        place = data.draw(st.integers(0, min(len(content) - 1, 3000)), "place")
        content[place] = data.draw(st.integers(0, 255), "byte")
    end = data.draw(st.integers(0, len(content)) | st.just(len(content)), "end")
    check(client.post("/reconstruct", content=bytes(content[:end])))


@FEW
@given(
    headers=st.dictionaries(
        st.sampled_from(["X-Shape", "X-Request-Id", "Content-Type", "Authorization", "Origin"]),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60),
        max_size=3,
    ),
    body=st.binary(max_size=100),
)
def test_any_headers(client: httpx.Client, headers: dict[str, str], body: bytes) -> None:
    answer = client.post("/reconstruct", content=body, headers=headers)
    assert answer.status_code in (400, 403, 413, 415, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_document_says_what_the_service_does(tmp_path: Path) -> None:
    """Every operation, called in ways that its description allows and in ways that it does not; jobs only pretend."""
    load_all_checks()
    # A schema cannot say which bytes are a sinogram, nor which of the names that it allows are those of models.
    excluded = [CHECKS.get_one("positive_data_acceptance")]
    token, called = "t" * 20, 0
    chosen = settings_for(tmp_path, access={"operate": [token]}, jobs={"storage": str(tmp_path / "runs")})
    app = create_app(chosen)
    state = app.state
    state.jobs = Jobs(chosen, state.database, state.metrics, state.registry.activate, FakeCluster(local=False))
    with running(chosen, app) as client:
        known = client.post("/jobs", json={"kind": "train"}, headers={"Authorization": f"Bearer {token}"}).json()["id"]
        schema = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")
        for result in schema.get_all_operations():
            operation = result.ok()

            @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
            @given(case=operation.as_strategy(), of_the_known_job=st.booleans())
            def call(case: schemathesis.Case, of_the_known_job: bool) -> None:
                nonlocal called
                called += 1
                if of_the_known_job and "id" in case.path_parameters and "/events" not in case.path:
                    case.path_parameters["id"] = known
                    case.query.pop("follow", None)
                case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, excluded_checks=excluded)

            call()
    assert called > 100
