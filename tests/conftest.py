"""Small data sets in the layout of LoDoPaB-CT, written once for all tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from fbp_ray.geometry import ParallelBeam, RegularAngles


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the tests (`-n 2 --dist loadgroup`), one has all that need the Ray cluster.

    The others are shared by file, so that what a file makes for its tests is made once.
    """
    for item in items:
        on_ray = "cluster" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("ray" if on_ray else str(item.path)))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is found of data is kept apart from what the user's own runs have kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("MPLCONFIGDIR", os.environ.get("MPLCONFIGDIR") or str(Path.home() / ".cache" / "matplotlib"))
        yield


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations draw no page, which takes a second: tests/test_report.py looks at it."""
    monkeypatch.setattr("fbp_ray.evaluate.program.write_report", lambda folder: f"{folder}/report.html")


@pytest.fixture
def no_sweep_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps draw no plots and no page, which takes seconds: tests/sweep/test_sweep.py looks at those of one."""
    monkeypatch.setattr("fbp_ray.sweep.program._write_report", lambda folder, results: None)


@pytest.fixture(scope="session")
def own_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for modules, where Python finds them, and Ray's workers too."""
    folder = tmp_path_factory.mktemp("own_code")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield folder


@pytest.fixture(scope="session")
def cluster(object_store: str, own_code: Path) -> Iterator[None]:
    """A local Ray cluster of two processors.

    The object store and the folder for code are there first, so that the workers know of them.
    """
    from fbp_ray.train import cluster as ray_cluster

    with ray_cluster.cluster(num_cpus=2):
        yield


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """An object store on this machine that answers as S3 does; the URI of a bucket in it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    import boto3

    boto3.client("s3").create_bucket(Bucket="fbp-ray-tests")
    yield "s3://fbp-ray-tests"
    server.stop()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def small_geometry() -> ParallelBeam:
    """A scan of 12 angles and 9 cells of a 6 x 5 image."""
    return ParallelBeam(
        angles=RegularAngles(count=12, first=0.1, step=np.pi / 12),
        cells=9,
        cell_size=1e-3,
        image_shape=(6, 5),
        pixel_size=1e-3,
    )


@pytest.fixture(scope="session")
def write_part(small_geometry: ParallelBeam) -> Callable[..., None]:
    """Writes a part of numbered files; sample n is filled with n (observation) and n / 1000 (ground truth)."""

    def write(folder: Path, part: str, rows: Sequence[int], spare_rows: int = 0, ground_truth: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        first = 0
        for number, count in enumerate(rows):
            values = np.arange(first, first + count + spare_rows, dtype=np.float32)[:, None, None]
            observation = np.broadcast_to(values[:count], (count, *small_geometry.sinogram_shape))
            image = np.broadcast_to(values / 1000, (count + spare_rows, *small_geometry.image_shape))
            _write(folder / f"observation_{part}_{number:03d}.hdf5", observation)
            if ground_truth:
                _write(folder / f"ground_truth_{part}_{number:03d}.hdf5", image)
            first += count

    return write


def _write(path: Path, array: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=array, chunks=(1, *array.shape[1:]))


@pytest.fixture(scope="session")
def lodopab_folder(tmp_path_factory: pytest.TempPathFactory, write_part: Callable[..., None]) -> Path:
    """A mock of LoDoPaB-CT in `small_geometry`: train of 4 + 4 + 3 samples, validation of 2, test of 3, challenge of 2.

    The last ground-truth file of each part is padded, as the genuine ones are.
    """
    folder = tmp_path_factory.mktemp("lodopab")
    write_part(folder, "train", [4, 4, 3], spare_rows=1)
    write_part(folder, "validation", [2], spare_rows=2)
    write_part(folder, "test", [3], spare_rows=1)
    write_part(folder, "challenge", [2], ground_truth=False)
    return folder


@pytest.fixture(scope="session")
def scan() -> ParallelBeam:
    """A scan of a 0.26 m square or so with few angles, cells and pixels: what the simulator is tested with."""
    return ParallelBeam(
        angles=RegularAngles(count=16, first=0.05, step=np.pi / 16),
        cells=33,
        cell_size=0.011,
        image_shape=(24, 20),
        pixel_size=0.011,
    )


@pytest.fixture
def scan_file(scan: ParallelBeam, tmp_path: Path) -> Path:
    """`scan` in a file."""
    path = tmp_path / "geometry.json"
    path.write_text(scan.model_dump_json())
    return path
