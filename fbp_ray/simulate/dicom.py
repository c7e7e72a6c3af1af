"""CT slices from the DICOM files of a folder.

Every file is read to the end before anything is made of it: what is no axial slice in HU, or cannot be decoded, is
passed over and counted, and nothing stops in the middle.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from fbp_ray.cli import progress
from fbp_ray.errors import DataError
from fbp_ray.settings import this_python
from fbp_ray.simulate.sources import Slice, Source

MIN_AXIAL = math.cos(math.radians(10))
"""Cosine of the largest angle between a slice's normal and the body's axis."""

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_NOT_HU = "CT whose values are not in HU"


class _Other(Exception):
    """A file that is no axial CT slice in HU; says what it is instead."""


def dicom_folder(folder: Path) -> Source:
    """All axial CT slices below a folder, links to folders included; other files are passed over and counted.

    Patients are numbered, not named: what is written beside the data holds nothing from the files' headers.

    Raises:
        DataError: there is no CT slice.
    """
    files = [(path.relative_to(folder).as_posix(), path) for path in _files_below(folder)]
    if not files:
        raise DataError(f"{folder} is empty; give a folder of DICOM files, or of .npz files with an index.json")
    with progress("Reading", len(files)) as advance:
        slices, others = dicom_slices(files, str(folder), advance)
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


def dicom_slices(
    files: Iterable[tuple[str, Path | bytes]], where: str, advance: Callable[[int], None] = lambda _: None
) -> tuple[list[Slice], Counter[str]]:
    """The axial CT slices among some files, by patient, series and place along the body.

    Args:
        files: a name, and a path or the content, of each.
        where: they come from, for messages.
        advance: called with 1 after each file.

    Returns:
        The slices, and what else there was: how many of each kind.

    Raises:
        DataError: there is no slice.
    """
    found: list[tuple[str, str, float, str, Path | bytes]] = []
    others: Counter[str] = Counter()
    damaged: list[str] = []
    known: set[str] = set()
    for name, file in files:
        try:
            patient, series, place, instance = _look(file)
            if instance in known:
                raise _Other("CT slice that is there already")
            known |= {instance} - {""}
            found.append((patient, series, place, name, file))
        except _Other as other:
            others[str(other)] += 1
        except Exception as error:  # pydicom raises many kinds for files that are cut short or damaged
            damaged.append(f"{name}: {first_line(error)}")
        advance(1)
    if damaged:
        others[f"damaged or cut short (the first is {damaged[0]})"] = len(damaged)
    if not found:
        counts = ", ".join(f"{count} x {kind}" for kind, count in sorted(others.items()))
        raise DataError(f"{where} has no CT slice in DICOM (found: {counts}); give a folder of axial CT slices")
    numbers = {patient: number for number, patient in enumerate(sorted({patient for patient, *_ in found}))}
    slices = [
        Slice(name, f"patient {numbers[patient]}", partial(_load, name, file))
        for patient, _, _, name, file in sorted(found, key=lambda one: one[:4])
    ]
    return slices, others


def _look(file: Path | bytes) -> tuple[str, str, float, str]:
    """Patient, series, place along the body and instance of a slice whose pixels can be had; raises _Other."""
    header = read_image(file, stop_before_pixels=True)
    is_slice = header.file_meta.get("MediaStorageSOPClassUID") == CTImageStorage
    if is_slice and not {"PixelData", "FloatPixelData"} & set(read_image(file).dir()):
        raise ValueError("it ends before its pixels")
    _check_header(header)
    image = hounsfield(read_image(file))
    if not np.isfinite(image).all():
        raise _Other("CT with values that are NaN or infinite")
    if str(header.get("SOPClassUID", "")).startswith(_SECONDARY_CAPTURE) and image.min() >= 0:  # no air: grey levels
        raise _Other(_NOT_HU)
    # Without a position, as in some exports, the number within the series stands for it.
    place = header.get("ImagePositionPatient") or [header.get("InstanceNumber") or 0]
    names = (str(header.get(name, "")) for name in ("PatientID", "SeriesInstanceUID", "SOPInstanceUID"))
    patient, series, instance = names
    return patient, series, float(place[-1]), instance


def _check_header(header: pydicom.Dataset) -> None:
    modality = str(header.get("Modality", "no modality"))
    if modality != "CT":
        raise _Other(modality)
    kind = header.get("ImageType") or ()
    kind = {str(word).strip().upper() for word in ([kind] if isinstance(kind, str) else kind)}
    if "Rows" not in header or "LOCALIZER" in kind:
        raise _Other("CT without axial pixels")
    if int(header.get("NumberOfFrames") or 1) != 1:
        raise _Other("CT of several frames (split them into single slices)")
    if int(header.get("SamplesPerPixel", 1)) != 1 or "PALETTE" in header.get("PhotometricInterpretation", ""):
        raise _Other("CT in colour")
    scale = [header.get("RescaleSlope"), header.get("RescaleIntercept")]
    in_hu = str(header.get("RescaleType") or "HU") == "HU" and not any(
        word.startswith(("SCREEN", "DOSE")) for word in kind
    )
    if None in scale or not in_hu or not np.isfinite(np.array(scale, float)).all() or not scale[0]:
        raise _Other(_NOT_HU)
    if int(header.get("BitsAllocated", 16)) <= 8:
        raise _Other(_NOT_HU)
    orientation = header.get("ImageOrientationPatient")
    if not orientation and "AXIAL" not in kind:
        raise _Other("CT that does not say that it is axial")
    if orientation and not _is_axial(np.array(orientation, float)):
        raise _Other("CT that is not axial")
    rows, columns = header.get("PixelSpacing") or (0, 0)
    if not (0 < rows < math.inf and 0 < columns < math.inf):
        raise _Other("CT without the size of its pixels")
    if not math.isclose(rows, columns, rel_tol=0.01):
        raise _Other("CT whose pixels are not square")
    syntax = header.file_meta.TransferSyntaxUID
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise _Other(
            f"CT compressed as {syntax.name} (decompress it, for example with `gdcmconv --raw`, or install a decoder: "
            f"{this_python()} -m pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg)"
        )


def _is_axial(orientation: NDArray[np.float64]) -> bool:
    normal = np.cross(orientation[:3], orientation[3:])
    return bool(abs(normal[2]) >= MIN_AXIAL * np.linalg.norm(normal) > 0)


def _load(name: str, file: Path | bytes) -> NDArray[np.float32]:
    try:
        return hounsfield(read_image(file))
    except Exception as error:  # it was whole when it was looked at
        raise DataError(f"{name} cannot be read any more: {first_line(error)}; leave the files as they are") from None


def hounsfield(image: pydicom.Dataset) -> NDArray[np.float32]:
    """(rows, columns) in HU."""
    stored: NDArray[np.float32] = image.pixel_array.astype(np.float32)
    return stored * np.float32(image.RescaleSlope) + np.float32(image.RescaleIntercept)


def read_image(file: Path | bytes, **options: Any) -> pydicom.Dataset:
    """A DICOM file; one without preamble and file meta, as some programs export, is taken for what it begins like."""
    content: Any = BytesIO(file) if isinstance(file, bytes) else file
    try:
        image = pydicom.dcmread(content, **options)
    except InvalidDicomError:
        begin = file[:2] if isinstance(file, bytes) else _first_bytes(file)
        if begin not in (b"\2\0", b"\x08\0"):  # the group of a first element
            raise _Other("not DICOM") from None
        image = pydicom.dcmread(content, force=True, **options)
    if "TransferSyntaxUID" not in image.file_meta:
        implicit, little = image.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return image


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2)


def first_line(error: Exception) -> str:
    """Of an exception's text, or else its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0]
