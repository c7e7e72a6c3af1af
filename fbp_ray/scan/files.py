"""Scans in other files: folders of TIFF projections; stacks in .npy, .npz, .tif, .h5 and .mat; and which is which."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray

from fbp_ray.errors import DataError, RunError
from fbp_ray.scan import ReadConfig, ScanConfig
from fbp_ray.scan.hdf5 import open_hdf5, read_hdf5
from fbp_ray.scan.raw import (
    Array,
    Flats,
    Frames,
    RawScan,
    Stored,
    arranged,
    axes_of,
    check,
    images_of,
    in_radians,
    skip,
    turned,
    unit_in,
)
from fbp_ray.scan.sample import sample_file
from fbp_ray.settings import as_text, expand_home, this_python

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it finds is said once, by an error
TIFF = (".tif", ".tiff")
HDF5 = (".h5", ".hdf5", ".hdf", ".nxs", ".nx", ".nx5", ".nexus", ".hspy")
STACKS = (".npy", ".npz", ".mat", *TIFF)
PARTS = {
    "flats": ("flat", "white", "open", "empty", "ref", "ff", "bright"),
    "darks": ("dark", "df", "bias"),
    "angles": ("angle", "theta", "rotation"),
}
"""How names of variables, files and folders begin that hold a part; angles may have it anywhere."""
AFTER = ("after", "post", "end")


def read_scan(config: ScanConfig, stack: ExitStack) -> RawScan:
    """The scan that the settings name; its files stay open until `stack` is closed.

    Raises:
        DataError: it is missing, damaged or of another kind, or its parts do not fit one another.
    """
    path, settings = config.scan or sample_file(stack), config.read
    if path.is_dir():
        raw = _folder(path, settings, stack)
    elif not path.is_file():
        raise DataError(f"there is no {path}; the scan is a file or a folder of TIFF projections")
    elif path.suffix.lower() in HDF5 or (path.suffix.lower() == ".mat" and h5py.is_hdf5(path)):
        matlab = path.suffix.lower() == ".mat"
        raw = _variables(path, _matlab_73(path, stack), settings, stack) if matlab else read_hdf5(path, settings, stack)
    elif path.suffix.lower() in STACKS:
        raw = _variables(path, _stored(path, stack), settings, stack)
    else:
        known = ", ".join((*HDF5, *STACKS))
        raise DataError(f"{path} is of no kind that is known here: a folder of TIFF files, or {known}")
    raw = _with_other_files(raw, settings, stack)
    angles = raw.angles if len(raw.angles) else _other_angles(raw, settings)
    raw = check(RawScan(raw.projections, angles, raw.flats, raw.darks, raw.pixel_size, raw.source))
    raw = turned(raw) if settings.axis == "horizontal" else raw
    return skip(raw, settings.skip) if settings.skip else raw


def _with_other_files(raw: RawScan, settings: ReadConfig, stack: ExitStack) -> RawScan:
    """The scan with the flats and darks that lie in files or folders of their own."""
    flats, darks = raw.flats, raw.darks
    if settings.flats and (place := Path(expand_home(settings.flats))).exists():
        flats = (Flats(_images_in(place, "flats", stack), 0.0),)
    if settings.darks and (place := Path(expand_home(settings.darks))).exists():
        darks = _images_in(place, "darks", stack)
    return RawScan(raw.projections, raw.angles, flats, darks, raw.pixel_size, raw.source)


def _other_angles(raw: RawScan, settings: ReadConfig) -> NDArray[np.float64]:
    count = raw.projections.shape[0]
    if settings.arc is not None:
        return np.deg2rad(np.linspace(*settings.arc, count))
    if settings.angles is None:
        raise DataError(
            f"{raw.source} has no angles; give those of its {count} projections: --read.angles FILE (or HDF5 path), or "
            "the first and the last of evenly spaced ones in degrees: --read.arc 0,180"
        )
    path = Path(expand_home(settings.angles))
    if not path.is_file():
        raise DataError(f"--read.angles {settings.angles} is neither a file nor in {raw.source}; name one that exists")
    values = numbers_in(path)
    return in_radians(values, settings.angle_unit) if len(values) == count else values


def numbers_in(path: Path) -> NDArray[np.float64]:
    """The numbers in a text file, or the last of each line where lines have several; or those of a .npy file.

    Raises:
        DataError: it holds something else.
    """
    if path.suffix == ".npy":
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64).ravel()
    try:
        lines = [re.split(r"[\s,;]+", line.strip(" \t\r,;")) for line in as_text(path.read_bytes()).splitlines()]
        lines = [line for line in lines if line != [""] and not line[0].startswith(("#", "//"))]
        if lines and not _is_number(lines[0][-1]):  # headings
            lines = lines[1:]
        words = lines[0] if len(lines) == 1 else [line[-1] for line in lines]
        return np.array([float(word) for word in words])
    except (ValueError, IndexError, OSError) as error:
        raise DataError(f"{path} should hold a number a line, the angles, but: {error}") from None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


# --- Variables: .npy, .npz, .tif and .mat files


class _Turned:
    """A variable of MATLAB in HDF5, which has its axes in reverse."""

    def __init__(self, data: h5py.Dataset) -> None:
        self.data, self.shape, self.dtype = data, data.shape[::-1], data.dtype
        self.chunks = data.chunks[::-1] if data.chunks else (self.shape[0], *[1] * (data.ndim - 1))

    def __getitem__(self, key: Any, /) -> Array:
        key = key if isinstance(key, tuple) else (key,)
        key += (slice(None),) * (len(self.shape) - len(key))
        return np.asarray(self.data[key[::-1]]).T


class _Pages:
    """The pages of TIFF files as one array, (pages, height, width), read when they are needed."""

    def __init__(self, files: Sequence[Path], stack: ExitStack) -> None:
        self.files = list(files)
        first = _page_shapes(files[0])
        counts = [len(first), *(1 for _ in files[1:])] if len(first) == 1 else [len(_page_shapes(f)) for f in files]
        self.places = [(file, page) for file, count in enumerate(counts) for page in range(count)]
        shape, self.dtype = first[0]
        if len(shape) != 2:
            raise DataError(f"{files[0]} has pages of shape {shape}; images of a detector have one channel")
        self.shape = (len(self.places), *shape)
        self.chunks = (1, *shape)

    def __getitem__(self, key: Any, /) -> Array:
        pages, rows, columns = key
        places = self.places[pages]
        read = np.empty((len(places), *self.shape[1:]), self.dtype)[:, rows, columns]
        for number, (file, page) in enumerate(places):
            path = self.files[file]
            try:
                image = tifffile.imread(path, key=page)
                if image.size == 0:
                    raise ValueError("it holds no image")
            except (OSError, ValueError, tifffile.TiffFileError) as error:
                raise DataError(f"{path} cannot be read ({error}); copy it again, or leave it out") from None
            if image.shape != self.shape[1:] or image.dtype != self.dtype:
                raise DataError(
                    f"{path} is {image.dtype} of shape {image.shape}, but {self.files[0].name} {self.dtype} of shape "
                    f"{self.shape[1:]}; all images of a scan are alike: take out what is no projection"
                )
            read[number] = image[rows, columns]
        return read


def _page_shapes(path: Path) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
    try:
        with tifffile.TiffFile(path) as file:
            return [(page.shape, np.dtype(page.dtype)) for page in file.pages]
    except (OSError, ValueError, TypeError, tifffile.TiffFileError) as error:
        raise DataError(f"{path} cannot be read as TIFF ({error}); copy it again, or leave it out") from None


def _stored(path: Path, stack: ExitStack) -> dict[str, Stored]:
    """The variables of a file by name; those in .npz and .mat files are read whole."""
    kind = path.suffix.lower()
    try:
        if kind in TIFF:
            return {"data": _Pages([path], stack)}
        if kind == ".npy":
            return {"data": np.load(path, mmap_mode="r", allow_pickle=False)}
        if kind == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        from scipy import io as matlab  # only now: it is of the extra `scan`

        found = matlab.loadmat(path)
        return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
    except ImportError:
        raise RunError(
            f"reading {path.name} needs scipy; install it: {this_python()} -m pip install 'fbp-ray[scan]'"
        ) from None
    except (OSError, ValueError, TypeError, NotImplementedError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error}); save it again") from None


def _matlab_73(path: Path, stack: ExitStack) -> dict[str, Stored]:
    file = stack.enter_context(open_hdf5(path))
    return {name: _Turned(data) for name, data in file.items() if isinstance(data, h5py.Dataset) and data.ndim > 0}


def _variables(path: Path, variables: Mapping[str, Stored], settings: ReadConfig, stack: ExitStack) -> RawScan:
    """A scan of variables, which are found by their names and shapes."""
    variables = {n: v for n, v in variables.items() if v.dtype.kind in "uif" and not n.startswith("#")}

    def named(part: str) -> Stored | None:
        given = getattr(settings, part)
        if given is not None and Path(expand_home(given)).exists():
            return None
        if given is not None:
            if given not in variables:
                raise DataError(f"{path} has no variable {given}; it has {', '.join(variables)}: --read.{part} NAME")
            return variables[given]
        found = [name for name in variables if _is_part(name, part)]
        if len(found) > 1:
            raise DataError(f"{path}: the {part} may be {' or '.join(found)}; name one: --read.{part} {found[0]}")
        return variables[found[0]] if found else None

    others = {name for name in variables if any(_is_part(name, part) for part in PARTS)}
    stacks = [n for n, v in variables.items() if n not in others and len([s for s in v.shape if s > 1]) >= 2]
    name = settings.data or (stacks[0] if len(stacks) == 1 else None)
    if name is None or name not in variables:
        have = ", ".join(f"{n} {tuple(v.shape)}" for n, v in variables.items()) or "no arrays of numbers"
        raise DataError(f"{path}: name the variable of the projections or sinograms, --read.data NAME; it has {have}")
    data, angles = variables[name], named("angles")
    values = np.empty(0) if angles is None else np.asarray(angles[:], dtype=np.float64).ravel()
    label = settings.angles or next((n for n in variables if _is_part(n, "angles")), "")
    count = len(values)
    if not count and settings.angles is not None and Path(expand_home(settings.angles)).is_file():
        count = len(numbers_in(Path(expand_home(settings.angles))))
    projections = arranged(data, axes_of(data.shape, count, settings.order, f"{path}: {name}"))
    if len(values) == projections.shape[0]:
        suffix = unit_in(label.lower().rpartition("_")[2])
        values = in_radians(values, settings.angle_unit, suffix)
    flats, darks = (None if one is None else images_of(one, projections) for one in (named("flats"), named("darks")))
    groups = () if flats is None else (Flats(flats, 0.0),)
    return RawScan(projections, values, groups, darks, None, f"{path.name}: {name}")


def _is_part(name: str, part: str) -> bool:
    word = name.lower()
    return any(mark in word if part == "angles" else word.startswith(mark) for mark in PARTS[part])


# --- Folders of TIFF files


def _folder(folder: Path, settings: ReadConfig, stack: ExitStack) -> RawScan:
    """A folder whose projections, flats and darks lie in folders of their own, or have names that tell them apart."""
    inside = sorted(folder.iterdir(), key=_natural)
    parts: dict[str, list[Path]] = {"flats": [], "darks": [], "projections": []}
    for place in inside:
        if place.is_dir() or place.suffix.lower() in TIFF:
            kind = next((part for part in ("flats", "darks") if _is_part(place.name, part)), "projections")
            parts[kind] += [place] if place.is_file() else tiffs(place)
    if settings.data is not None:
        parts["projections"] = tiffs(folder / settings.data)
    if not parts["projections"]:
        raise DataError(
            f"{folder} has no TIFF files of projections; expected are .tif files in it or in a folder in it, with "
            "flats and darks in files or folders whose names begin with flat and dark"
        )
    pages = _Pages(parts["projections"], stack)
    projections = arranged(pages, (0, 1, 2))
    late = [file for file in parts["flats"] if any(mark in str(file.relative_to(folder)).lower() for mark in AFTER)]
    early = [file for file in parts["flats"] if file not in late]
    times = ((early, 0.0), (late, float(projections.shape[0])))
    flats = tuple(Flats(arranged(_Pages(files, stack), (0, 1, 2)), time) for files, time in times if files)
    darks = arranged(_Pages(parts["darks"], stack), (0, 1, 2)) if parts["darks"] else None
    values = np.empty(0)
    texts = [p for p in inside if p.suffix.lower() in (".txt", ".csv", ".dat", ".npy") and _is_part(p.name, "angles")]
    if settings.angles is None and settings.arc is None and texts:
        if len(texts) > 1:
            raise DataError(f"{folder}: the angles may be {' or '.join(map(str, texts))}; name one: --read.angles FILE")
        values = numbers_in(texts[0])
        if len(values) == projections.shape[0]:
            values = in_radians(values, settings.angle_unit, unit_in(texts[0].stem.lower().rpartition("_")[2]))
    return RawScan(projections, values, flats, darks, None, f"{folder.name}: {len(pages.places)} TIFF images")


def tiffs(folder: Path) -> list[Path]:
    """The TIFF files of a folder, by the numbers in their names; raises DataError where there is none."""
    found = sorted((p for p in folder.glob("*") if p.suffix.lower() in TIFF), key=_natural)
    if not found:
        raise DataError(f"{folder} has no TIFF files; name another folder, or take it away")
    return found


def _images_in(place: Path, part: str, stack: ExitStack) -> Frames:
    """Flats or darks in a folder or file of their own."""
    if place.is_dir():
        return arranged(_Pages(tiffs(place), stack), (0, 1, 2))
    variables = _stored(place, stack)
    if len(variables) != 1:
        raise DataError(f"{place} has several variables; --read.{part} takes a file of one, or a folder of TIFF files")
    (stored,) = variables.values()
    return arranged(stored, (0, 1, 2) if len(stored.shape) == 3 else (None, 0, 1))


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """By which `image_10` comes after `image_9`."""
    words = re.split(r"(\d+)", path.name.lower())
    return [(0, int(word)) if word.isdigit() else (1, word) for word in words]
