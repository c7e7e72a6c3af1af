"""POST /reconstruct: every format in and out has the model's image; what cannot be is refused with the way out."""

from __future__ import annotations

import io
import json
import math
import socket
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import pydicom
import pytest
import tifffile
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fbp_ray.data.layout import MU_AIR, MU_MAX, MU_WATER
from fbp_ray.geometry import FanBeam, ParallelBeam
from fbp_ray.model import LearnableFBP, fbp
from service.readers import read_npy
from tests.support.scans import COARSE, FAN, PARALLEL
from tests.support.serving import as_npy, running, save_model, settings_for, sinograms

Array = NDArray[Any]
SHAPE = f"{COARSE.sinogram_shape[0]},{COARSE.sinogram_shape[1]}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def model(folder: Path) -> LearnableFBP:
    return save_model(folder / "model")


@pytest.fixture(scope="module")
def client(folder: Path, model: LearnableFBP) -> Iterator[httpx.Client]:
    settings = settings_for(folder, limits={"body_mb": 2, "stack": 8})
    with running(settings) as client:
        client.post("/models/best/activate", json={"source": str(folder / "model")}).raise_for_status()
        yield client


@pytest.fixture(scope="module")
def sinogram() -> Tensor:
    return sinograms(1)[0]


def image_of(content: bytes) -> Array:
    return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))


def expected(model: LearnableFBP, sinogram: Tensor) -> Array:
    with torch.inference_mode():
        return model(sinogram).numpy()


def as_npz(**arrays: Array) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def as_h5(write: Callable[[h5py.File], object]) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        write(file)
    return content.getvalue()


def as_tif(*arrays: Array) -> bytes:
    """A TIFF to which one array after the other was written."""
    content = io.BytesIO()
    with tifffile.TiffWriter(content) as file:
        for array in arrays:
            file.write(array, photometric="minisblack")
    return content.getvalue()


def pillow_tif(compression: str, predictor: int = 1) -> bytes:
    content = io.BytesIO()
    image = Image.fromarray(sinograms(1)[0].numpy())
    image.save(content, "TIFF", compression=compression, tiffinfo={317: predictor})
    return content.getvalue()


def odd_tif() -> bytes:
    """A TIFF whose compression, the tag 259, has no name."""
    whole = as_tif(np.zeros((60, 67), np.float32))
    return whole.replace(struct.pack("<HHIH", 259, 3, 1, 1), struct.pack("<HHIH", 259, 3, 1, 1234))


def rare_h5() -> bytes:
    """A data set that was compressed by a filter that is not here."""

    def write(file: h5py.File) -> None:
        data = file.create_dataset(
            "data", (60, 67), "f4", chunks=(60, 67), compression=32001, allow_unknown_filter=True
        )
        data.id.write_direct_chunk((0, 0), b"whatever")

    return as_h5(write)


def as_mat(array: Array) -> bytes:
    """What MATLAB 7.3 writes: a text before HDF5, variables with their axes reversed, and groups of its own."""
    content = io.BytesIO()
    with h5py.File(content, "w", userblock_size=512) as file:
        file["anything"] = array.T
        file.create_group("#refs#")
    head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  5 2026 HDF5 schema 1.00 ."
    return head.ljust(512) + content.getvalue()[512:]


BODIES: dict[str, Callable[[Array], bytes]] = {
    "npy": as_npy,
    "npy float64": lambda array: as_npy(array.astype(np.float64)),
    "npy big-endian": lambda array: as_npy(array.astype(">f4")),
    "npy Fortran order": lambda array: as_npy(np.asfortranarray(array)),
    "npz": lambda array: as_npz(anything=array),
    "npz with a name": lambda array: as_npz(data=array, other=array[:3]),
    "h5": lambda array: as_h5(lambda file: file.create_dataset("data", data=array)),
    "h5 compressed": lambda array: as_h5(lambda file: file.create_dataset("data", data=array, compression="gzip")),
    "mat": as_mat,
    "tif": as_tif,
    "tif image by image": lambda array: as_tif(*array.reshape(-1, *array.shape[-2:])),
    "tif big-endian": lambda array: as_tif(array.astype(">f4")),
}


@pytest.mark.parametrize("form", BODIES)
@pytest.mark.parametrize("count", [None, 3])
def test_every_format_in_gives_the_models_image(
    client: httpx.Client, model: LearnableFBP, form: str, count: int | None
) -> None:
    array = sinograms(count or 1)
    array = array if count else array[0]
    answer = client.post("/reconstruct", content=BODIES[form](array.numpy()))
    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(image_of(answer.content), expected(model, array), atol=1e-5)


def test_half_precision_is_taken_too(client: httpx.Client, model: LearnableFBP, sinogram: Tensor) -> None:
    answer = client.post("/reconstruct", content=as_npy(sinogram.numpy().astype(np.float16)))
    np.testing.assert_allclose(image_of(answer.content), expected(model, sinogram.half().float()), atol=1e-5)


def test_raw_values_and_forms_are_taken(client: httpx.Client, model: LearnableFBP, sinogram: Tensor) -> None:
    raw = client.post("/reconstruct", content=sinogram.numpy().tobytes(), headers={"X-Shape": SHAPE})
    form = client.post("/reconstruct", files={"sinogram": ("scan.npy", as_npy(sinogram))})
    for answer in (raw, form):
        assert answer.status_code == 200, answer.text
        np.testing.assert_allclose(image_of(answer.content), expected(model, sinogram), atol=1e-6)


def test_a_body_of_unknown_length_is_taken(client: httpx.Client, model: LearnableFBP, sinogram: Tensor) -> None:
    body = as_npy(sinogram)
    parts = (body[first : first + 1000] for first in range(0, len(body), 1000))
    answer = client.post("/reconstruct", content=parts)
    np.testing.assert_allclose(image_of(answer.content), expected(model, sinogram), atol=1e-6)


def test_answers_name_the_model_the_geometry_and_the_unit(client: httpx.Client, sinogram: Tensor) -> None:
    about = client.get("/models/best").json()
    answer = client.post("/reconstruct", content=as_npy(sinogram), headers={"X-Request-Id": "mine-1"})
    headers = answer.headers
    assert (headers["x-model"], headers["x-model-version"], headers["x-method"]) == (
        "best",
        about["version"],
        "learned",
    )
    assert headers["x-geometry"] == COARSE.digest == about["geometry"]["digest"]
    assert headers["x-value-unit"] == about["unit"]
    assert headers["x-request-id"] == "mine-1"
    assert 0 < float(headers["x-seconds"]) < 60


def test_the_classic_fbp_is_there_too(client: httpx.Client, sinogram: Tensor) -> None:
    answer = client.post("/reconstruct?method=fbp&window=cosine&cutoff=0.7", content=as_npy(sinogram))
    assert (answer.headers["x-model"], answer.headers["x-method"]) == ("classic-fbp", "fbp")
    assert answer.headers["x-model-version"] == "cosine-0.7"
    classic = fbp(sinogram[None], COARSE, "cosine", 0.7)[0].numpy()
    np.testing.assert_allclose(image_of(answer.content), classic, atol=1e-6)


@pytest.mark.parametrize("output", ["npy", "npz", "h5", "tif", "json"])
@pytest.mark.parametrize("count", [None, 3])
def test_every_format_of_numbers_out_has_them_all(
    client: httpx.Client, model: LearnableFBP, output: str, count: int | None
) -> None:
    array = sinograms(count or 1)
    array = array if count else array[0]
    answer = client.post(f"/reconstruct?output={output}", content=as_npy(array))
    assert answer.status_code == 200, answer.text
    content = answer.content
    if output == "npy":
        found = image_of(content)
    elif output == "npz":
        archive = np.load(io.BytesIO(content), allow_pickle=False)
        found = archive["reconstruction"]
        assert json.loads(zipfile.ZipFile(io.BytesIO(content)).read("about.json"))["model"] == "best"
    elif output == "h5":
        with h5py.File(io.BytesIO(content)) as file:
            found = file["data"][()]
            assert file["data"].attrs["model"] == "best"
    elif output == "tif":
        found = tifffile.imread(io.BytesIO(content))
    else:
        document = answer.json()
        found = np.array(document["data"], dtype=np.float32)
        assert document["shape"] == list(found.shape)
    np.testing.assert_allclose(found, expected(model, array), atol=1e-5)


def test_png_shows_the_window_in_hu_with_x_to_the_right(
    client: httpx.Client, model: LearnableFBP, sinogram: Tensor
) -> None:
    answer = client.post("/reconstruct?output=png&level=-200&width=1000", content=as_npy(sinogram))
    assert answer.headers["content-type"] == "image/png"
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))
    hounsfield = (expected(model, sinogram).astype(np.float64) * MU_MAX - MU_WATER) * 1000 / (MU_WATER - MU_AIR)
    grey = np.clip((hounsfield + 700) / 1000 * 255, 0, 255).T
    assert np.abs(shown - grey).max() <= 0.51
    assert shown.min() < 50 < 200 < shown.max()


def test_dicom_is_in_hu_and_says_what_it_is_not_for(client: httpx.Client, model: LearnableFBP) -> None:
    array = sinograms(2)
    answer = client.post("/reconstruct?output=dcm", content=as_npy(array))
    assert answer.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    images = [pydicom.dcmread(io.BytesIO(archive.read(name))) for name in archive.namelist()]
    assert [int(image.InstanceNumber) for image in images] == [1, 2]
    assert len({image.SeriesInstanceUID for image in images}) == 1
    assert len({image.SOPInstanceUID for image in images}) == 2
    for image, wanted in zip(images, expected(model, array), strict=True):
        hounsfield = (wanted.astype(np.float64) * MU_MAX - MU_WATER) * 1000 / (MU_WATER - MU_AIR)
        stored = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
        np.testing.assert_allclose(stored.T, hounsfield, atol=0.08)
        assert "NOT FOR DIAGNOSIS" in image.ImageComments
        assert float(image.PixelSpacing[0]) == pytest.approx(COARSE.pixel_size * 1000)


def with_nan(array: Tensor, index: int) -> Array:
    bad = array.numpy().copy()
    bad[index, 3, 4] = np.nan
    return bad


REFUSED: dict[str, tuple[Callable[[], bytes], str, dict[str, str], int, str]] = {
    "empty": (lambda: b"", "", {}, 400, "empty"),
    "unknown format": (lambda: b"hello, this is a sinogram", "", {}, 415, "send .npy"),
    "cut short": (lambda: as_npy(sinograms(1))[:-3], "", {}, 400, "cut short"),
    "too long": (lambda: as_npy(sinograms(1)) + b"x", "", {}, 400, "bytes"),
    "turned": (lambda: as_npy(sinograms(1)[0].T), "", {}, 422, "swap its last two axes"),
    "wrong shape": (lambda: as_npy(np.zeros((5, 5), np.float32)), "", {}, 422, "(60, 67)"),
    "no dimension": (lambda: as_npy(np.float32(1)), "", {}, 422, "(60, 67)"),
    "four dimensions": (lambda: as_npy(np.zeros((1, 1, 60, 67), np.float32)), "", {}, 422, "(60, 67)"),
    "empty stack": (lambda: as_npy(np.zeros((0, 60, 67), np.float32)), "", {}, 422, "(n, 60, 67)"),
    "a length of True": (lambda: as_npy(np.zeros(1)).replace(b"(1,), }   ", b"(True,), }"), "", {}, 422, "(1,)"),
    "counts": (lambda: as_npy(np.ones((60, 67), np.uint16)), "", {}, 400, "-log(counts"),
    "complex": (lambda: as_npy(np.ones((60, 67), complex)), "", {}, 400, "floating point"),
    "bool": (lambda: as_npy(np.ones((60, 67), bool)), "", {}, 400, "floating point"),
    "text": (lambda: as_npy(np.array(["a"])), "", {}, 400, "floating point"),
    "pickled": (lambda: as_npy(np.array([{"a": 1}], dtype=object)), "", {}, 400, "Python objects"),
    "records": (lambda: as_npy(np.zeros(3, [("a", "f4")])), "", {}, 400, "floating point"),
    "NaN": (lambda: as_npy(with_nan(sinograms(1), 0)[0]), "", {}, 422, "angle 3, cell 4"),
    "partly NaN": (lambda: as_npy(with_nan(sinograms(3), 2)), "", {}, 422, "sinogram 2 of 3"),
    "infinite": (lambda: as_npy(np.full((60, 67), np.inf)), "", {}, 422, "infinite"),
    "huge": (lambda: as_npy(np.full((60, 67), 1e300)), "", {}, 422, "infinite"),
    "absurd": (lambda: as_npy(np.full((60, 67), 1e30)), "", {}, 422, "unit"),
    "large stack": (lambda: as_npy(np.zeros((9, 60, 67), np.float32)), "", {}, 413, "8 sinograms"),
    "raw of another size": (lambda: b"1234", "", {"X-Shape": "60,67"}, 400, "16080 bytes"),
    "raw of no shape": (lambda: b"1234", "", {"X-Shape": "many"}, 400, "1000,513"),
    "npz of several": (lambda: as_npz(a=np.zeros(3), b=np.zeros(3)), "", {}, 400, "numpy.savez(file, data="),
    "damaged npz": (lambda: b"PK\x03\x04" + b"x" * 100, "", {}, 400, "numpy.savez"),
    "zip bomb": (lambda: as_npz(data=np.zeros(10_000_000, np.float32)), "", {}, 413, "unpacks"),
    "damaged h5": (lambda: b"\x89HDF\r\n\x1a\n" + b"x" * 999, "", {}, 400, "HDF5"),
    "h5 without data": (lambda: as_h5(lambda f: [f.create_group(k) for k in "xy"]), "", {}, 400, "holds ['x', 'y']"),
    "h5 with a rare filter": (rare_h5, "", {}, 400, "the filter 32001 (", "h5repack"),
    "old mat": (lambda: b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(300), "", {}, 415, "'-v7.3'"),
    "h5 of integers": (lambda: as_h5(lambda f: f.create_dataset("data", data=[1])), "", {}, 400, "floating point"),
    "h5 group": (lambda: as_h5(lambda f: f.create_group("data")), "", {}, 400, "group"),
    "h5 bomb": (lambda: as_h5(lambda f: f.create_dataset("data", (10**6, 60, 67), "f4")), "", {}, 400, "allowed"),
    "damaged tif": (lambda: b"II*\x00" + b"\xff" * 99, "", {}, 400, "TIFF"),
    "tif of integers": (lambda: as_tif(np.zeros((60, 67), np.uint16)), "", {}, 400, "floating point"),
    "tif of unlike images": (lambda: as_tif(np.zeros((60, 67)), np.zeros((9, 9))), "", {}, 400, "2 images"),
    "tif with lzw": (lambda: pillow_tif("tiff_lzw"), "", {}, 400, "compression, LZW", "tiffcp -c none"),
    "tif with zstd": (lambda: pillow_tif("zstd"), "", {}, 400, "compression, ZSTD", "tiffcp -c none"),
    "tif with a predictor": (lambda: pillow_tif("tiff_adobe_deflate", 3), "", {}, 400, "FLOATINGPOINT", "tiffcp"),
    "tif with an unknown compression": (odd_tif, "", {}, 400, "without compression, or send .npy"),
    "tif cut short": (lambda: as_tif(np.zeros((60, 67), np.float32))[:-999], "", {}, 400, "if it is whole"),
    "unknown output": (lambda: as_npy(sinograms(1)), "?output=gif", {}, 422, "'png'"),
    "unknown parameter": (lambda: as_npy(sinograms(1)), "?colour=red", {}, 422, "colour"),
    "unknown model": (lambda: as_npy(sinograms(1)), "?model=nobody", {}, 404, "best"),
    "window of a learned model": (lambda: as_npy(sinograms(1)), "?window=hann", {}, 422, "method=fbp"),
    "unknown window": (lambda: as_npy(sinograms(1)), "?method=fbp&window=round", {}, 422, "shepp-logan"),
    "cut-off beyond": (lambda: as_npy(sinograms(1)), "?method=fbp&cutoff=2", {}, 422, "cutoff"),
    "classic as learned": (lambda: as_npy(sinograms(1)), "?model=classic-fbp&method=learned", {}, 422, "not learned"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_with_the_way_out(client: httpx.Client, case: str) -> None:
    body, query, headers, status, *words = REFUSED[case]
    answer = client.post(f"/reconstruct{query}", content=body(), headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert all(some in document["detail"] for some in words), document["detail"]
    assert document["status"] == status
    assert document["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("files", [{}, {"a": ("a", b"1"), "b": ("b", b"2")}])
def test_a_form_has_one_file(client: httpx.Client, files: dict[str, Any]) -> None:
    answer = client.post("/reconstruct", files=files or None, data=None if files else {"text": "no file"})
    assert answer.status_code in (400, 415)
    headers = {"Content-Type": "multipart/form-data; boundary=xx"}
    answer = client.post("/reconstruct", content=b"--xx\r\nnonsense", headers=headers)
    assert answer.status_code == 400
    assert "curl -F" in answer.json()["detail"]


def test_other_files_of_the_machine_stay_where_they_are(client: httpx.Client, tmp_path: Path) -> None:
    """HDF5 can refer to other files; a stranger must not read them through us."""
    secret = np.full((60, 67), 7.0, np.float32)
    (tmp_path / "secret.bin").write_bytes(secret.tobytes())
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["data"] = secret
    external = [(str(tmp_path / "secret.bin"), 0, secret.nbytes)]
    layout = h5py.VirtualLayout((60, 67), "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "data", (60, 67))

    def link(file: h5py.File) -> None:
        file["data"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "data")

    def soft_link(file: h5py.File) -> None:
        file["inner"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/")
        file["data"] = h5py.SoftLink("/inner/data")

    for write in (
        link,
        soft_link,
        lambda file: file.create_dataset("data", (60, 67), "f4", external=external),
        lambda file: file.create_virtual_dataset("data", layout),
    ):
        answer = client.post("/reconstruct", content=as_h5(write))
        assert answer.status_code == 400, answer.text
        assert "refused" in answer.json()["detail"]


def test_a_long_body_is_refused_before_it_is_read(client: httpx.Client) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=10) as connection:
        connection.sendall(b"POST /reconstruct HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2000001\r\n\r\n")
        answer = connection.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 413")
    assert "2000000 bytes" in answer


def test_a_body_of_unknown_length_is_cut_off(client: httpx.Client) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 100_000_000:
            sent += 100_000
            yield bytes(100_000)

    try:
        status = client.post("/reconstruct", content=endless()).status_code
    except httpx.TransportError:  # the service answered and closed while this side still wrote
        status = 413
    assert status == 413
    assert sent < 50_000_000


def noise(geometry: ParallelBeam | FanBeam, *count: int) -> torch.Tensor:
    return torch.rand(*count, *geometry.sinogram_shape, generator=torch.Generator().manual_seed(0))


def send(
    client: httpx.Client, geometry: Any, sinogram: Any = None, query: str = "?model=classic-fbp", as_file: bool = False
) -> httpx.Response:
    text = geometry if isinstance(geometry, str | bytes) else json.dumps(geometry)
    files: dict[str, Any] = {"sinogram": ("scan.npy", as_npy(noise(PARALLEL) if sinogram is None else sinogram))}
    if as_file:
        return client.post(f"/reconstruct{query}", files={**files, "geometry": ("scan.json", text)})
    return client.post(f"/reconstruct{query}", files=files, data={"geometry": text})


@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
@pytest.mark.parametrize("as_file", [False, True])
def test_the_image_is_that_of_the_given_geometry(
    client: httpx.Client, geometry: ParallelBeam | FanBeam, as_file: bool
) -> None:
    stack = noise(geometry, 3)
    query = "?method=fbp&window=cosine&cutoff=0.7"
    answer = send(client, geometry.model_dump_json(), stack, query, as_file)
    assert answer.status_code == 200, answer.text
    wanted = fbp(stack, geometry, "cosine", 0.7).numpy()
    np.testing.assert_allclose(np.load(io.BytesIO(answer.content)), wanted, atol=1e-5 * np.abs(wanted).max())
    assert answer.headers["x-geometry"] == geometry.digest
    assert (answer.headers["x-model"], answer.headers["x-method"]) == ("classic-fbp", "fbp")


def changed(**fields: Any) -> dict[str, Any]:
    return {**json.loads(PARALLEL.model_dump_json()), **fields}


def fan(**fields: Any) -> dict[str, Any]:
    return {**json.loads(FAN.model_dump_json()), **fields}


GIVEN_REFUSED: dict[str, tuple[Any, str, int, str]] = {
    "with a model": (changed(), "", 422, "?model=classic-fbp"),
    "with a model by name": (changed(), "?model=best", 422, "the model best has one of its own"),
    "in a model's geometry": (changed(), "?model=best&method=fbp", 422, "the model best has one of its own"),
    "another shape": (changed(cells=30), "?method=fbp", 422, "takes a sinogram of (40, 30)"),
    "the shape that came": (changed(cells=30), "?method=fbp", 422, "(40, 31); correct the geometry"),
    "turned": (changed(angles=[k / 10 for k in range(31)], cells=40), "?method=fbp", 422, "swap its last two axes"),
    "no JSON": ("{angles: 3}", "?method=fbp", 422, "geometry: this is no JSON"),
    "no object": ([1], "?method=fbp", 422, "a list, not an object"),
    "no text": (b"\xff\xfe{\x00", "?method=fbp", 422, "geometry: "),
    "empty": ("", "?method=fbp", 422, "geometry: this is no JSON"),
    "a field is missing": ({"cells": 3}, "?method=fbp", 422, "geometry pixel_size: Field required"),
    "a wrong field": (changed(cell_size=-1), "?method=fbp", 422, "geometry cell_size: "),
    "an unknown field": (changed(colour=1), "?method=fbp", 422, "geometry colour: there is no such setting"),
    "NaN": (changed(pixel_size=math.nan), "?method=fbp", 422, "geometry pixel_size: "),
    "a huge number": (changed(cells=10**400), "?method=fbp", 413, "geometry.cells: "),
    "degrees": (changed(angles=[4.5 * k for k in range(80)]), "?method=fbp", 422, "degrees"),
    "deep": ("[" * 4000, "?method=fbp", 422, "nested 16 deep"),
    "long": (" " * 256_001, "?method=fbp", 400, "256000 bytes of geometry"),
    "many angles": (changed(angles={"count": 16385, "first": 0, "step": 1e-4}), "?method=fbp", 413, "16384 angles"),
    "many cells": (changed(cells=16385), "?method=fbp", 413, "geometry.cells"),
    "many pixels": (changed(image_shape=[65536, 65536]), "?method=fbp", 413, "16777216 pixels"),
    "much work": (changed(image_shape=[4096, 4096], angles={"count": 299, "first": 0, "step": 0.01}), "?method=fbp",
                  413, "pixels times angles"),
    "angles that repeat": (fan(angles=[1.0] * 48), "?method=fbp", 422, "no parallel beam can stand for"),
    "angles too close": (fan(angles=[1e-12 * k for k in range(48)]), "?method=fbp", 422, "no parallel beam"),
    "one angle": (fan(angles=[1.0]), "?method=fbp", 422, "no parallel beam can stand for"),
    "pixels of another unit": (changed(pixel_size=1e9), "?method=fbp", 422, "geometry.pixel_size"),
}  # fmt: skip


@pytest.mark.parametrize("case", GIVEN_REFUSED)
def test_a_geometry_that_cannot_be_is_refused_in_words(client: httpx.Client, case: str) -> None:
    geometry, query, status, words = GIVEN_REFUSED[case]
    answer = send(client, geometry, query=query)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]
    assert len(answer.text) < 4000


@pytest.mark.parametrize(
    ("geometry", "sinogram", "words"),
    [
        (fan(cells=3), (48, 3), "takes 4 angles"),
        (changed(axis_offset=0.0152, angles={"count": 60, "first": 0, "step": math.pi / 30}), (60, 31), "half acqui"),
    ],
)
def test_a_scan_that_cannot_be_reconstructed_is_refused_in_words(
    client: httpx.Client, geometry: Any, sinogram: tuple[int, int], words: str
) -> None:
    answer = send(client, geometry, np.zeros(sinogram, np.float32))
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["detail"]


def test_a_form_with_other_fields_is_refused(client: httpx.Client) -> None:
    file = ("scan.npy", as_npy(noise(PARALLEL)))
    for data, files in (
        ({"colour": "red"}, {"sinogram": file}),
        ({"geometry": PARALLEL.model_dump_json()}, {"geometry": file}),
        ({}, {"geometry": file}),
    ):
        answer = client.post("/reconstruct?method=fbp", data=data, files=files)
        assert answer.status_code == 400, answer.text
        assert "curl -F" in answer.json()["detail"]


def test_headers_are_parsed_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some versions of Python take two threads that parse at once for an error."""
    inside, most = 0, 0
    read = npy.read_array_header_1_0

    def slowly(*arguments: Any, **named: Any) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)
        inside -= 1
        return read(*arguments, **named)

    monkeypatch.setattr(npy, "read_array_header_1_0", slowly)
    body = as_npy(np.zeros((3, 4), np.float32))
    with ThreadPoolExecutor(4) as pool:
        arrays = list(pool.map(read_npy, [body] * 4))
    assert most == 1
    assert {array.shape for array in arrays} == {(3, 4)}
