"""CT slices from DICOM files."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from fbp_ray.errors import DataError
from fbp_ray.simulate.source import Slice, Source

_HEADER = [
    "PatientID",
    "SeriesInstanceUID",
    "ImagePositionPatient",
    "InstanceNumber",
    "Modality",
    "ImageType",
    "NumberOfFrames",
    "SamplesPerPixel",
    "RescaleSlope",
    "RescaleIntercept",
    "Rows",
]


class Member(NamedTuple):
    """A file that may be DICOM: in a folder, or read from an archive."""

    name: str
    content: Path | bytes

    def open(self) -> Any:
        """What pydicom reads from."""
        return BytesIO(self.content) if isinstance(self.content, bytes) else self.content


def dicom_folder(folder: Path) -> Source:
    """All CT slices below a folder; other files are passed over.

    Patients are numbered, not named: what is written beside the data holds nothing from the files' headers.

    Raises:
        DataError: no file is DICOM, none is a CT slice, or one is of a kind that is no single slice in HU.
    """
    members = [
        Member(path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob("*")) if path.is_file()
    ]
    if not members:
        raise DataError(f"{folder} is empty; give a folder of DICOM files, or of .npz files with an index.json")
    return Source("DICOM files", tuple(dicom_slices(members, str(folder))))


def dicom_slices(members: Iterable[Member], where: str) -> list[Slice]:
    """The CT slices among some files, by patient, series and place along the body."""
    found: list[tuple[str, str, float, str, Member]] = []
    others: dict[str, int] = {}
    for member in members:
        try:
            header = pydicom.dcmread(member.open(), stop_before_pixels=True, specific_tags=_HEADER)
        except InvalidDicomError:
            others["not DICOM"] = others.get("not DICOM", 0) + 1
            continue
        modality = str(header.get("Modality", "no modality"))
        if modality != "CT" or "Rows" not in header or "LOCALIZER" in header.get("ImageType", ()):
            kind = modality if modality != "CT" else "CT without axial pixels"
            others[kind] = others.get(kind, 0) + 1
            continue
        _check(header, member.name)
        position = header.get("ImagePositionPatient") or (0, 0, header.get("InstanceNumber") or 0)
        found.append(
            (
                str(header.get("PatientID", "")),
                str(header.get("SeriesInstanceUID", "")),
                float(position[2]),
                member.name,
                member,
            )
        )
    if not found:
        counts = ", ".join(f"{count} x {kind}" for kind, count in sorted(others.items()))
        raise DataError(
            f"{where} has no CT slice in DICOM (found: {counts or 'nothing'}) and no index.json of .npz files; "
            "give a folder of axial CT slices"
        )
    numbers = {patient: number for number, patient in enumerate(sorted({entry[0] for entry in found}))}
    return [
        Slice(name, f"patient {numbers[patient]}", _loader(member))
        for patient, _, _, name, member in sorted(found, key=lambda entry: entry[:4])
    ]


def _check(header: pydicom.Dataset, name: str) -> None:
    frames, samples = int(header.get("NumberOfFrames") or 1), int(header.get("SamplesPerPixel", 1))
    if frames != 1 or samples != 1:
        raise DataError(
            f"{name} holds {frames} frames of {samples} values a pixel, but a slice is one grey image; split it into "
            "single slices, or take it out of the folder"
        )
    missing = [tag for tag in ("RescaleSlope", "RescaleIntercept") if header.get(tag) is None]
    if missing:
        raise DataError(f"{name} has no {' and no '.join(missing)}, so its values are not in HU; take it out")


def _loader(member: Member) -> Any:
    def load() -> NDArray[np.float32]:
        try:
            image = pydicom.dcmread(member.open())
            stored = image.pixel_array.astype(np.float32)
        except (RuntimeError, NotImplementedError, AttributeError, ValueError, OSError) as error:
            raise DataError(
                f"{member.name} cannot be decoded: {str(error).splitlines()[0]}. Decompress it first (for example with "
                "`gdcmconv --raw`), or install a decoder for it: pip install pylibjpeg pylibjpeg-libjpeg "
                "pylibjpeg-openjpeg"
            ) from None
        hounsfield: NDArray[np.float32] = stored * np.float32(image.RescaleSlope) + np.float32(image.RescaleIntercept)
        return hounsfield

    return load
