"""What the tests of the simulator share: its command line, and small sources to feed it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from fbp_ray.cli import run_program
from fbp_ray.simulate import main


def write_dicom(path: Path, value: int = 0, patient: str = "A", z: float | None = 0.0, **tags: Any) -> None:
    """A CT slice of 30 x 26 pixels that is `value` HU everywhere, 500 HU at row 5, column 7."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    image = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.PatientID, image.SeriesInstanceUID, image.Modality = patient, "1.2.3", "CT"
    image.ImageOrientationPatient, image.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.7, 0.7]
    if z is not None:
        image.ImagePositionPatient = [0, 0, z]
    stored = np.full((30, 26), value + 1024, np.uint16)
    stored[5, 7] = 500 + 1024
    image.Rows, image.Columns = stored.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.RescaleSlope, image.RescaleIntercept = 1, -1024
    image.PixelData = stored.tobytes()
    for name, tag in tags.items():
        if tag is None:
            delattr(image, name)
        else:
            setattr(image, name, tag)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save_as(path)


def write_stacks(folder: Path, entries: list[dict[str, Any]], stack: NDArray[Any] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for number, entry in enumerate(entries):
        hounsfield = np.full((4, 30, 26), 10 * number, np.int16) if stack is None else stack
        np.savez(folder / entry["file"], hu=hounsfield)
    (folder / "index.json").write_text(json.dumps(entries))
    return folder


def entry(file: str, split: str | None = None, patient: str = "A") -> dict[str, Any]:
    return {"file": file, "patient": patient, "collection": "LIDC", "licence": "CC BY 3.0", "split": split, "slices": 4}


def run(*arguments: object) -> int:
    """The exit code of the command line."""
    try:
        run_program(lambda _: main([str(argument) for argument in arguments]))
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
