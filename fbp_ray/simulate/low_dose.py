"""CT slices as a scan with less dose would have given them: DICOM in, DICOM out, nothing added but noise.

A ray that counts N photons where it meets nothing, and a part f of them at the lower dose, measures its line integral
p with a variance that is higher by

    exp(p) / N (1 / f - 1) + s^2 exp(2 p) / N^2 (1 / f^2 - 1)

where s is the standard deviation of the electronic noise, in photons. Normal noise of this variance is reconstructed by
itself and added to the image, which so keeps its sharpness, its artefacts and the noise that it has. Sources: Yu et
al., "Development and validation of a practical lower-dose-simulation tool for optimizing computed tomography scan
protocols", J. Comput. Assist. Tomogr. 36 (2012) 477; Zabic et al., "A low dose simulation tool for CT systems with
energy integrating detectors", Med. Phys. 40 (2013) 031102.

N of a scan is seldom known. It is estimated from what noise the image has in soft tissue, small window by small window,
beside what noise of variance exp(p) gives there (after Christianson et al., "Automated technique to measure noise in
clinical CT examinations", AJR 205 (2015) W93). A kernel that is not the scanner's then changes the texture of what is
added, and hardly how much it is.

Dimensions: R rows and C columns of a slice, A angles, D detector cells.
"""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import torch
from numpy.typing import NDArray
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from torch.nn.functional import avg_pool2d, max_pool2d

from fbp_ray.cli import progress
from fbp_ray.data.layout import MU_AIR, MU_WATER
from fbp_ray.errors import ConfigError, DataError
from fbp_ray.geometry import ParallelBeam, RegularAngles
from fbp_ray.model import fbp
from fbp_ray.projector import project
from fbp_ray.simulate import SimulateConfig
from fbp_ray.simulate.dicom import dicom_folder, first_line, hounsfield, read_image
from fbp_ray.simulate.program import whole_folder
from fbp_ray.simulate.protocol import generator
from fbp_ray.simulate.sources import INDEX
from fbp_ray.versions import versions

ANGLES = 1000
"""Of the scan that is assumed, over the half circle, as in LoDoPaB-CT; its cells are as wide as a pixel."""

OUTSIDE_HU = -1500
"""What lies below is no air: scanners fill with it what they did not reconstruct."""

TISSUE_HU = (-25, 100)
WINDOW = 6e-3  # metres: small enough to lie within a muscle, large enough to measure noise in
FEWEST_WINDOWS = 100
QUIET = 0.1  # the quantile of their standard deviations that is compared: texture and edges only add to them
LEAST_NOISE = 1.0  # HU: a third of it is the rounding to whole numbers
FEW_PHOTONS = 10
RESEARCH = "For research, not for diagnosis"

Image = NDArray[np.float32]
_PER_HU = (MU_WATER - MU_AIR) / 1000


def write_low_dose(config: SimulateConfig, dose: float) -> None:
    """Writes the slices of `config.images` again, with the noise of the part `dose` of their dose.

    Raises:
        ConfigError: the target holds something, or lies within the source.
        DataError: there is no CT slice in DICOM, or one whose photons are not known.
        RunError: the folder could not be written.
    """
    assert config.images is not None
    source, target = config.images, config.out.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{config.out} is there already; choose another --out: nothing is overwritten")
    if not source.is_dir():
        raise DataError(f"there is no folder {source}; --like_dose takes a folder of DICOM files")
    if target.resolve().is_relative_to(source.resolve()):
        raise ConfigError(f"{config.out} lies within --images; choose another --out, or it would be read as a source")
    if (source / INDEX).is_file() or any(source.glob("*.npz")):
        raise DataError(f"{source} has .npz files; --like_dose takes DICOM files, which it writes again")
    found = dicom_folder(source)
    others = ", ".join(f"{count} x {kind}" for kind, count in sorted(found.passed_over.items()))
    print(f"Found {len(found.slices)} CT slices" + (f"; passed over, and not written: {others}" if others else ""))
    names = [piece.name for piece in found.slices]
    photons = _photons(source, names, config)
    fewest = math.inf
    with whole_folder(target) as folder, progress("Adding noise", len(names)) as advance:
        for name, count in zip(names, photons, strict=True):
            image = read_image(source / name)
            geometry = scan_of((image.Rows, image.Columns), pixel_size(image))
            integrals = line_integrals(hounsfield(image), geometry)
            fewest = min(fewest, dose * count * math.exp(-integrals.max()))
            variance = added_variance(integrals, count, dose, config.electronic_noise)
            noise = reconstructed_noise(variance, geometry, config.cutoff, generator(config.seed, name))
            add_noise(image, noise)
            _say(image, name, config, dose, count)
            _save(image, folder / name, name)
            advance(1)
    span = " to ".join(dict.fromkeys(f"{count:.3g}" for count in (min(photons), max(photons))))
    print(
        f"Wrote {config.out}: {len(names)} slices with the noise of {100 * dose:g} % of their dose "
        f"({span} photons a ray at full dose, {_known(config)}). {RESEARCH}."
    )
    if fewest < FEW_PHOTONS:
        print(
            f"The darkest ray counts {fewest:.2g} photons at this dose. Below about {FEW_PHOTONS}, a real scan also "
            "has wrong values along such rays, which noise alone does not show."
        )


def scan_of(shape: tuple[int, int], pixel_size: float) -> ParallelBeam:
    """The scan that is assumed for slices of (R, C) pixels of so many metres."""
    return ParallelBeam(
        angles=RegularAngles(count=ANGLES, first=math.pi / ANGLES / 2, step=math.pi / ANGLES),
        cells=math.ceil(math.hypot(*shape)) + 1,
        cell_size=pixel_size,
        image_shape=(shape[1], shape[0]),
        pixel_size=pixel_size,
    )


def line_integrals(image: Image, geometry: ParallelBeam) -> NDArray[np.float64]:
    """(A, D), without unit, of a slice (R, C) in HU; at most 30, where no photon is left of 10^13."""
    attenuation = np.maximum(image.T * np.float32(_PER_HU) + np.float32(MU_WATER), 0)
    integrals = project(torch.from_numpy(np.ascontiguousarray(attenuation)), geometry).numpy()
    return np.minimum(integrals.astype(np.float64), 30)


def added_variance(
    integrals: NDArray[np.float64], photons: float, dose: float, electronic_noise: float = 0.0
) -> NDArray[np.float64]:
    """What a part `dose` of the photons adds to the variance of line integrals; see the top of the module.

    A ray that counts less than one photon at this dose gets what it would with one: a reading without any is taken for
    a little more, and its logarithm varies no further.
    """
    per_photon = np.minimum(np.exp(integrals) / photons, dose)
    return per_photon * (1 / dose - 1) + (electronic_noise * per_photon) ** 2 * (1 / dose**2 - 1)


def reconstructed_noise(
    variance: NDArray[np.float64], geometry: ParallelBeam, cutoff: float, random: np.random.Generator
) -> Image:
    """(R, C) in HU: normal noise of a variance for each ray, (A, D), reconstructed with a Hann window."""
    noise = (np.sqrt(variance) * random.standard_normal(variance.shape)).astype(np.float32)
    image: Image = (fbp(torch.from_numpy(noise), geometry, "hann", cutoff) / _PER_HU).numpy().T
    return image


def estimated_photons(image: Image, unit_noise: Image, pixel_size: float) -> float | None:
    """Photons a ray of which a slice was made.

    Args:
        image: (R, C) in HU.
        unit_noise: (R, C) in HU, of rays with one photon: what `reconstructed_noise` gives for the variance exp(p).
        pixel_size: in metres.

    Returns:
        None where there is too little soft tissue to tell, or no noise in it.
    """
    tissue, spread = _windows(image, pixel_size)
    if np.count_nonzero(tissue) < FEWEST_WINDOWS:
        return None
    _, unit = _windows(unit_noise, pixel_size)
    level = np.quantile(spread[tissue], QUIET)
    return float((np.quantile(unit[tissue], QUIET) / level) ** 2) if level > LEAST_NOISE else None


def _windows(image: Image, pixel_size: float) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Whether each of the small windows lies within soft tissue, and its standard deviation.

    It does where the mean of the pixels around each pixel does, which has a quarter of its noise.
    """
    size = max(9, round(WINDOW / pixel_size))
    pixels = torch.from_numpy(image.astype(np.float64))[None, None]
    if min(image.shape) < size:
        return np.zeros((0, 0), np.bool_), np.zeros((0, 0))
    smooth = avg_pool2d(pixels, 5, 1, 2)
    highest, lowest = (max_pool2d(x, size, size // 2) for x in (smooth, -smooth))
    tissue = (-lowest > TISSUE_HU[0]) & (highest < TISSUE_HU[1])
    mean, square = (avg_pool2d(x, size, size // 2) for x in (pixels, pixels**2))
    return tissue[0, 0].numpy(), (square - mean**2).clamp_min(0).sqrt()[0, 0].numpy()


def add_noise(image: pydicom.Dataset, noise: Image) -> None:
    """Adds noise (R, C) in HU to what a file stores.

    What the scanner filled in stays, as does the least value that can be stored; nothing leaves the range of those.
    Compressed pixels come out uncompressed.
    """
    stored = image.pixel_array
    filled = hounsfield(image) < OUTSIDE_HU
    if (padding := image.get("PixelPaddingValue")) is not None:  # signed in some files, unsigned in others
        filled |= (stored.astype(np.int64) - int(padding)) % 2 ** int(image.BitsAllocated) == 0
    noisy = stored + noise / float(image.RescaleSlope)
    if stored.dtype.kind in "iu":
        bits = int(image.BitsStored)
        least = -(2 ** (bits - 1)) if image.PixelRepresentation else 0
        filled |= stored == least
        noisy = np.clip(np.rint(noisy), least, least + 2**bits - 1)
    syntax = image.file_meta.TransferSyntaxUID
    if syntax.is_compressed:
        image.file_meta.TransferSyntaxUID = syntax = ExplicitVRLittleEndian
    kept = np.where(filled, stored, noisy).astype(stored.dtype.newbyteorder("<" if syntax.is_little_endian else ">"))
    pixels = image["PixelData" if "PixelData" in image else "FloatPixelData"]
    pixels.value = kept.tobytes() + b"\0" * (kept.nbytes % 2)
    pixels.is_undefined_length = False
    for name in ("SmallestImagePixelValue", "LargestImagePixelValue"):
        if name in image:
            delattr(image, name)


def pixel_size(image: pydicom.Dataset) -> float:
    """In metres."""
    return float(image.PixelSpacing[0]) / 1000


def _photons(folder: Path, names: list[str], config: SimulateConfig) -> list[float]:
    """Photons a ray of each slice: as given, or as it or else the nearest of its series tells."""
    if config.photons_given:
        return [config.photons] * len(names)
    series: list[str] = []
    found: list[float | None] = []
    with progress("Estimating photons", len(names)) as advance:
        for name in names:
            image = read_image(folder / name)
            series.append(str(image.get("SeriesInstanceUID", "")))
            found.append(_estimate(hounsfield(image), pixel_size(image), config, name))
            advance(1)
    photons = []
    for number, name in enumerate(names):
        known = [(abs(k - number), n) for k, n in enumerate(found) if n is not None and series[k] == series[number]]
        if not known:
            raise DataError(
                f"the series of {name} has no noise in soft tissue from which the photons of a ray could be estimated; "
                "give --photons N, those at the full dose"
            )
        photons.append(min(known)[1])
    return photons


def _estimate(image: Image, size: float, config: SimulateConfig, name: str) -> float | None:
    geometry = scan_of(image.shape, size)
    variance = np.exp(line_integrals(image, geometry))
    unit = reconstructed_noise(variance, geometry, config.cutoff, generator(config.seed, f"photons of {name}"))
    return estimated_photons(image, unit, size)


def _known(config: SimulateConfig) -> str:
    return "as given" if config.photons_given else "estimated from the image"


def _say(image: pydicom.Dataset, name: str, config: SimulateConfig, dose: float, photons: float) -> None:
    """Says in a file's header that it is derived, from what and how; the same request gives the same identifiers."""
    made = f"Noise of {100 * dose:g} % dose"
    how = (
        f"{made} added by fbp-ray {versions()['fbp-ray']}: {photons:.3g} photons a ray at full dose, {_known(config)}, "
        f"electronic noise {config.electronic_noise:g}, Hann cut-off {config.cutoff:g}, seed {config.seed}. {RESEARCH}"
    )
    origin = pydicom.Dataset()
    origin.ReferencedSOPClassUID = image.get("SOPClassUID") or CTImageStorage
    origin.ReferencedSOPInstanceUID = image.get("SOPInstanceUID") or generate_uid(entropy_srcs=[name])
    image.SourceImageSequence = [origin]
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = origin.ReferencedSOPClassUID
    request = [str(config.request()), how]
    image.SOPInstanceUID = generate_uid(entropy_srcs=[origin.ReferencedSOPInstanceUID, *request])
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.SeriesInstanceUID = generate_uid(entropy_srcs=[str(image.get("SeriesInstanceUID", "")), *request[:1]])
    kind = image.get("ImageType") or ()
    image.ImageType = ["DERIVED", "SECONDARY", *([kind] if isinstance(kind, str) else kind)[2:]]
    image.SeriesDescription = f"{made}, research: {image.get('SeriesDescription', '')}"[:64].rstrip(" :")
    image.DerivationDescription = "; ".join(filter(None, [str(image.get("DerivationDescription", "")), how]))[-1024:]


def _save(image: pydicom.Dataset, path: Path, name: str) -> None:
    content = BytesIO()
    try:
        image.save_as(content, enforce_file_format=True)
    except Exception as error:  # pydicom raises many kinds for elements that it can read but not write
        raise DataError(f"{name} cannot be written again: {first_line(error)}; leave it out") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getvalue())
