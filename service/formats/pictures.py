"""Images to look at: PNG with a window, and DICOM in HU that says what it is not for."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image as Picture
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from fbp_ray.data.layout import MU_AIR, MU_MAX, MU_WATER

RESEARCH = "RESEARCH USE ONLY, NOT FOR DIAGNOSIS"
SLOPE, INTERCEPT = 1 / 8, -2048.0
"""HU = SLOPE * stored + INTERCEPT: from -2048 to 6143.9 HU in steps of an eighth."""


class Display(NamedTuple):
    """How values become grey: a window in HU, and the size of a pixel."""

    level: float
    width: float
    pixel_mm: float


class Series(NamedTuple):
    """What the DICOM images of an answer have in common."""

    study: str
    series: str
    frame: str
    created: datetime
    about: dict[str, Any]


def hounsfield(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Attenuation / MU_MAX in HU, as LoDoPaB-CT scales them: 1000 (mu - mu_water) / (mu_water - mu_air)."""
    scaled: NDArray[np.float32] = (image * MU_MAX - MU_WATER) * np.float32(1000 / (MU_WATER - MU_AIR))
    return scaled


def as_png(image: NDArray[np.float32], display: Display) -> bytes:
    """In 8 bits of grey, black at level - width / 2, white at level + width / 2, transposed: x to the right."""
    grey = (hounsfield(image) - (display.level - display.width / 2)) * (255 / display.width)
    content = io.BytesIO()
    Picture.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8).T).save(content, "png", compress_level=1)
    return content.getvalue()


def new_series(about: dict[str, Any]) -> Series:
    """A series of its own in a study of its own."""
    return Series(generate_uid(), generate_uid(), generate_uid(), datetime.now(UTC), about)


def as_dicom(image: NDArray[np.float32], display: Display, series: Series, number: int) -> bytes:
    """The image in HU as a DICOM file, transposed: x to the right, y down."""
    stored = np.clip(np.rint((hounsfield(image) - INTERCEPT) / SLOPE), 0, 65535).astype("<u2").T
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = pydicom.uid.PYDICOM_IMPLEMENTATION_UID
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = series.study, series.series, series.frame
    data.StudyDate = data.SeriesDate = data.ContentDate = f"{series.created:%Y%m%d}"
    data.StudyTime = data.SeriesTime = data.ContentTime = f"{series.created:%H%M%S}"
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "RESEARCH^ONLY", "RESEARCH", "", ""
    data.StudyID = data.AccessionNumber = data.ReferringPhysicianName = ""
    data.Modality, data.ConversionType = "CT", "WSD"
    data.Manufacturer, data.ManufacturerModelName = "fbp-ray", str(series.about.get("model", ""))
    data.SoftwareVersions = str(series.about.get("version", ""))
    data.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    data.SeriesDescription, data.ImageComments = (
        RESEARCH,
        f"{RESEARCH}. {series.about.get('method', '')} reconstruction",
    )
    data.DerivationDescription = (
        f"{series.about.get('method')} {series.about.get('model')} {series.about.get('version')}"
    )
    data.SeriesNumber, data.InstanceNumber = 1, number
    data.BurnedInAnnotation = "NO"
    data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.PixelSpacing = [f"{display.pixel_mm:.10g}"] * 2
    data.RescaleSlope, data.RescaleIntercept, data.RescaleType = SLOPE, INTERCEPT, "HU"
    data.WindowCenter, data.WindowWidth = display.level, display.width
    data.PixelData = stored.tobytes()
    content = io.BytesIO()
    data.save_as(content, enforce_file_format=True)
    return content.getvalue()
