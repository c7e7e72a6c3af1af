"""CT slices from DICOM files."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from functools import partial
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


# What pydicom raises for files that are cut short, damaged or compressed in a way that it cannot decode.
_DAMAGED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,  # of which NotImplementedError is one
    TypeError,
    ValueError,
    struct.error,
)


class Member(NamedTuple):
    """A file that may be DICOM: in a folder, or read from an archive."""

    name: str
    content: Path | bytes

    def open(self) -> Any:
        """What pydicom reads from."""
        return BytesIO(self.content) if isinstance(self.content, bytes) else self.content


class _Found(NamedTuple):
    patient: str
    series: str
    place: float
    member: Member


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
    """The CT slices among some files, by patient, series and place along the body; errors as of `dicom_folder`."""
    found: list[_Found] = []
    others: Counter[str] = Counter()
    for member in members:
        try:
            header = pydicom.dcmread(member.open(), stop_before_pixels=True, specific_tags=_HEADER)
            kind = _kind(header)
            if kind != "CT":
                others[kind] += 1
                continue
            _check(header, member.name)
            # Without a position, as in some exports, the number within the series stands for it.
            place = header.get("ImagePositionPatient") or [header.get("InstanceNumber") or 0]
            found.append(
                _Found(
                    str(header.get("PatientID", "")), str(header.get("SeriesInstanceUID", "")), float(place[-1]), member
                )
            )
        except InvalidDicomError:
            others["not DICOM"] += 1
        except _DAMAGED as error:
            raise DataError(f"{member.name} is damaged: {_first_line(error)}; take it out, or copy it again") from None
    if not found:
        counts = ", ".join(f"{count} x {kind}" for kind, count in sorted(others.items()))
        raise DataError(f"{where} has no CT slice in DICOM (found: {counts}); give a folder of axial CT slices")
    numbers = {patient: number for number, patient in enumerate(sorted({one.patient for one in found}))}
    return [
        Slice(one.member.name, f"patient {numbers[one.patient]}", partial(_load, one.member))
        for one in sorted(found, key=lambda one: (*one[:3], one.member.name))
    ]


def _kind(header: pydicom.Dataset) -> str:
    modality = str(header.get("Modality", "no modality"))
    if modality == "CT" and ("Rows" not in header or "LOCALIZER" in header.get("ImageType", ())):
        return "CT without axial pixels"
    return modality


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


def _load(member: Member) -> NDArray[np.float32]:
    try:
        image = pydicom.dcmread(member.open())
        stored = image.pixel_array.astype(np.float32)
        hounsfield: NDArray[np.float32] = stored * np.float32(image.RescaleSlope) + np.float32(image.RescaleIntercept)
    except _DAMAGED as error:
        raise DataError(
            f"{member.name} cannot be decoded: {_first_line(error)}. If it is compressed, decompress it first (for "
            "example with `gdcmconv --raw`), or install a decoder: pip install pylibjpeg pylibjpeg-libjpeg "
            "pylibjpeg-openjpeg"
        ) from None
    return hounsfield


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
