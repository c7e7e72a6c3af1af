"""From images to bytes, piece by piece where the format allows: the first images are sent while others are computed.

Images are numbers in multiples of the model's unit, axis 0 = x. PNG and DICOM show those of CT in HU, others as they
are, and all transposed: x to the right, y down.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import h5py
import numpy as np
import pydicom
import tifffile
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image as Picture
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from fbp_ray.data.layout import MU_AIR, MU_MAX, MU_WATER

Image = NDArray[np.float32]
Images = AsyncIterator[Image]
InThread = Callable[..., Awaitable[Any]]
Output = Literal["npy", "npz", "h5", "tif", "png", "dcm", "json"]
MEDIA_TYPES: dict[Output, str] = {
    "npy": "application/x-npy",
    "npz": "application/zip",
    "h5": "application/x-hdf5",
    "tif": "image/tiff",
    "png": "image/png",
    "dcm": "application/dicom",
    "json": "application/json",
}
RESEARCH = "RESEARCH USE ONLY, NOT FOR DIAGNOSIS"
OBJECTS = 4000
"""Bytes that the objects around an image take."""
SLOPE, INTERCEPT = 1 / 8, -2048.0
"""A DICOM file stores integers: HU = SLOPE * stored + INTERCEPT, from -2048 to 6143.9 HU in steps of an eighth."""
HU_LEVEL, HU_WIDTH = -300.0, 1400.0
"""What pictures in HU show where nothing else is asked for."""


@dataclass(frozen=True)
class ImageFile:
    """The file that an answer is."""

    output: Output
    images: int
    shape: tuple[int, int]
    """(H, W) of one image."""

    single: bool
    """It holds one image as such, not a stack of one."""

    about: dict[str, str]
    """What is said beside the values, where the format has room for it: model, version, method, geometry, unit."""

    level: float | None
    width: float | None
    """The window of grey values of a PNG: its middle and its width, in HU or else in the images' values."""

    in_hu: bool
    """The images are of CT in LoDoPaB-CT's scale, so that pictures of them are in HU."""

    pixel_mm: float

    @property
    def is_archive(self) -> bool:
        """PNG and DICOM hold one image a file; those of a stack come in a zip."""
        return not self.single and self.output in ("png", "dcm")

    @property
    def needs_all(self) -> bool:
        """The file can begin only when all images are there."""
        return self.images == 1 or self.output in ("h5", "tif")

    @property
    def memory(self) -> int:
        """Bytes that the images and the making of the file take, until it is sent."""
        image = 4 * math.prod(self.shape) + OBJECTS
        return image * (self.images * (5 if self.output in ("h5", "tif") else 1) + (40 if self.output == "json" else 8))

    @property
    def media_type(self) -> str:
        """The media type of the whole file."""
        return "application/zip" if self.is_archive else MEDIA_TYPES[self.output]

    @property
    def name(self) -> str:
        """The name under which a browser saves it."""
        return "reconstruction." + ("zip" if self.is_archive else self.output)

    @property
    def array_shape(self) -> tuple[int, ...]:
        """(H, W) of one image, (n, H, W) of a stack."""
        return self.shape if self.single else (self.images, *self.shape)


def write(file: ImageFile, images: Images, in_thread: InThread) -> AsyncIterator[bytes]:
    """The bytes of the file, as the images come; what takes long is done `in_thread`."""
    if file.output in ("h5", "tif"):
        return _h5_or_tif(file, images, in_thread)
    if file.output == "npy":
        return _npy(file, images)
    if file.output == "npz":
        return _npz(file, images)
    if file.output == "json":
        return _json(file, images, in_thread)
    return _pictures(file, images, in_thread)


async def _npy(file: ImageFile, images: Images) -> AsyncIterator[bytes]:
    header = _npy_header(file.array_shape)
    async for image in images:
        yield header + image.tobytes()
        header = b""


def _npy_header(shape: tuple[int, ...]) -> bytes:
    content = io.BytesIO()
    npy.write_array_header_1_0(content, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return content.getvalue()


async def _npz(file: ImageFile, images: Images) -> AsyncIterator[bytes]:
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("reconstruction.npy", "w", force_zip64=True) as entry:
            entry.write(_npy_header(file.array_shape))
            async for image in images:
                entry.write(image.tobytes())
                yield pipe.take()
        archive.writestr("about.json", json.dumps(file.about))
    yield pipe.take()


async def _json(file: ImageFile, images: Images, in_thread: InThread) -> AsyncIterator[bytes]:
    about = {**file.about, "shape": file.array_shape}
    before = json.dumps(about)[:-1] + ', "data": ' + ("" if file.single else "[")
    async for image in images:
        yield (before + await in_thread(_numbers, image)).encode()
        before = ", "
    yield b"}" if file.single else b"]}"


def _numbers(image: Image) -> str:
    return json.dumps([[float(f"{value:.7g}") for value in row] for row in image.tolist()])


async def _pictures(file: ImageFile, images: Images, in_thread: InThread) -> AsyncIterator[bytes]:
    series = Series(file)
    pipe = _Pipe()
    number = 0
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        async for image in images:
            if file.output == "png":
                content = await in_thread(as_png, *shown(image, file))
            else:
                content = await in_thread(series.as_dicom, image, number + 1)
            if file.single:
                yield content
                return
            archive.writestr(f"image_{number:04d}.{file.output}", content)
            number += 1
            yield pipe.take()
    yield pipe.take()


async def _h5_or_tif(file: ImageFile, images: Images, in_thread: InThread) -> AsyncIterator[bytes]:
    stack = np.stack([image async for image in images]).reshape(file.array_shape)
    yield await in_thread(_h5 if file.output == "h5" else _tif, stack, file.about)


def _h5(stack: Image, about: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset("data", data=stack).attrs.update(about)
    return content.getvalue()


def _tif(stack: Image, about: dict[str, str]) -> bytes:
    content = io.BytesIO()
    tifffile.imwrite(content, stack, photometric="minisblack", metadata={"about": json.dumps(about)})
    return content.getvalue()


class _Pipe(io.RawIOBase):
    """A file that is only written to, from front to back; what was written is taken away."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


def hounsfield(image: Image) -> Image:
    """Attenuation / MU_MAX in HU, as LoDoPaB-CT scales them: 1000 (mu - mu_water) / (mu_water - mu_air)."""
    scaled: Image = (image * MU_MAX - MU_WATER) * np.float32(1000 / (MU_WATER - MU_AIR))
    return scaled


def shown(image: Image, file: ImageFile) -> tuple[Image, float, float]:
    """The values that a picture shows, in HU or as they are, and the middle and the width of its greys."""
    if file.in_hu:
        values, level, width = hounsfield(image), HU_LEVEL, HU_WIDTH
    else:
        low, high = (float(value) for value in np.percentile(image, [0.1, 99.9]))
        values, level, width = image, (low + high) / 2, max(high - low, 1e-9)
    return values, level if file.level is None else file.level, width if file.width is None else file.width


def as_png(values: Image, level: float, width: float) -> bytes:
    """The values as a PNG of 8 bits: black at level - width / 2, white at level + width / 2."""
    grey = (values - (level - width / 2)) * (255 / width)
    content = io.BytesIO()
    Picture.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8).T).save(content, "png", compress_level=1)
    return content.getvalue()


class Series:
    """The DICOM images of an answer: a series of its own, in a study of its own."""

    def __init__(self, file: ImageFile) -> None:
        self.file = file
        self.study, self.series, self.frame = (generate_uid() for _ in range(3))
        self.created = datetime.now(UTC)

    def as_dicom(self, image: Image, number: int) -> bytes:
        """The image in HU, or else in its own values, as a DICOM file, the `number`-th of the series."""
        values, level, width = shown(image, self.file)
        slope, intercept = SLOPE, INTERCEPT
        if not self.file.in_hu:  # as finely as there are integers
            intercept = float(values.min())
            slope = max((float(values.max()) - intercept) / 65535, 1e-12)
            slope, intercept = float(f"{slope:.9g}"), float(f"{intercept:.9g}")
        stored = np.clip(np.rint((values.astype(np.float64) - intercept) / slope), 0, 65535).astype("<u2").T
        model, version, method = (self.file.about[name] for name in ("model", "version", "method"))
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.ImplementationClassUID = pydicom.uid.PYDICOM_IMPLEMENTATION_UID
        data = pydicom.Dataset()
        data.file_meta = meta
        data.SpecificCharacterSet = "ISO_IR 192"
        data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = self.study, self.series, self.frame
        data.StudyDate = data.SeriesDate = data.ContentDate = f"{self.created:%Y%m%d}"
        data.StudyTime = data.SeriesTime = data.ContentTime = f"{self.created:%H%M%S}"
        data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "RESEARCH^ONLY", "RESEARCH", "", ""
        data.StudyID = data.AccessionNumber = data.ReferringPhysicianName = ""
        data.Modality, data.ConversionType = "CT", "WSD"
        data.Manufacturer, data.ManufacturerModelName, data.SoftwareVersions = "fbp-ray", model, version
        data.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
        data.SeriesDescription, data.ImageComments = RESEARCH, f"{RESEARCH}. {method} reconstruction"
        data.DerivationDescription = f"{method} {model} {version}"
        data.SeriesNumber, data.InstanceNumber = 1, number
        data.BurnedInAnnotation = "NO"
        data.Rows, data.Columns = stored.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.PixelSpacing = [f"{self.file.pixel_mm:.10g}"] * 2
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = (
            f"{slope:.9g}",
            f"{intercept:.9g}",
            "HU" if self.file.in_hu else "US",
        )
        data.WindowCenter, data.WindowWidth = f"{level:.9g}", f"{width:.9g}"
        data.PixelData = stored.tobytes()
        content = io.BytesIO()
        data.save_as(content, enforce_file_format=True)
        return content.getvalue()
