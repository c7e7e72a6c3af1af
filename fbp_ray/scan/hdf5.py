"""Scans in HDF5: NeXus (NXtomo, and files as beamlines write them), DXchange, plain data sets and MATLAB v7.3.

What a file links to is opened here rather than by HDF5, so that a link that leads nowhere is named with the file that
is missing, and a virtual data set whose sources are missing does not read as zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from fbp_ray.errors import DataError
from fbp_ray.scan import ReadConfig
from fbp_ray.scan.raw import Flats, Frames, RawScan, Unit, arranged, axes_of, images_of, in_radians, unit_in

PROJECTION, FLAT, DARK = 0, 1, 2
"""Image keys of NXtomo; 3 is an image that is not valid."""

LENGTHS = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "μm": 1e-6, "micron": 1e-6, "microns": 1e-6, "nm": 1e-9}
DXCHANGE = "exchange/data"
DEPTH = 16  # of links that lead to links


class Hdf5Scan:
    """An HDF5 file, and those that its links lead to, which stay open until `stack` is closed."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self._stack = stack
        self._files: dict[Path, h5py.File] = {}
        self.file = self._open(path)

    def get(self, name: str) -> h5py.Dataset:
        """The data set of this path.

        Raises:
            DataError: there is none, its link leads nowhere, or its file cannot be read.
        """
        found = self._follow(self.file, name, DEPTH)
        if not isinstance(found, h5py.Dataset):
            raise DataError(
                f"{self.path}: {name} is a group, which has {', '.join(found)[:300]}; name a data set in it"
            )
        self._check_sources(found, DEPTH)
        return found

    def find(self, name: str) -> h5py.Dataset | None:
        """As `get`, but None where there is no such path, or only a link that leads nowhere."""
        try:
            return self.get(name)
        except DataError:
            return None

    def names(self) -> Iterator[str]:
        """The paths of everything that is no group, links too; no file is opened for it."""
        yield from _names(self.file, "")

    def dangling(self) -> list[str]:
        """The links that lead nowhere, in words."""
        found = []
        for name in self.names():
            try:
                self.get(name)
            except DataError as error:
                if "leads to" in str(error):
                    found.append(str(error).removeprefix(f"{self.path}: ").partition(";")[0])
        return found

    def _open(self, path: Path, why: str = "") -> h5py.File:
        if path not in self._files:
            self._files[path] = self._stack.enter_context(open_hdf5(path, why))
        return self._files[path]

    def _follow(self, file: h5py.File, name: str, depth: int) -> Any:
        place: Any = file
        parts = [part for part in name.split("/") if part]
        for number, part in enumerate(parts):
            link = place.get(part, getlink=True) if isinstance(place, h5py.Group) and part in place else None
            here = f"{file.filename}: {place.name.rstrip('/')}/{part}"
            rest = "/".join(parts[number + 1 :])
            if link is None and not (isinstance(place, h5py.Group) and _has_link(place, part)):
                raise DataError(f"{here} does not exist; {place.name} has {_some(place)}")
            link = place.get(part, getlink=True)
            if depth == 0:
                raise DataError(f"{here} leads to links that lead to links, and so on; name the data set itself")
            if isinstance(link, h5py.ExternalLink):
                target = Path(file.filename).parent / link.filename
                leads = f"{here} leads to {link.path} in {link.filename}"
                if not target.is_file():
                    raise DataError(
                        f"{leads}, but there is no file {target}; put it there, or name another data set (--read.data, "
                        "--read.angles, --read.keys, --read.flats, --read.darks)"
                    )
                try:
                    return self._follow(self._open(target), f"{link.path}/{rest}", depth - 1)
                except DataError as error:
                    raise DataError(f"{leads}, but {error}") from None
            if isinstance(link, h5py.SoftLink):
                absolute = link.path if link.path.startswith("/") else f"{place.name}/{link.path}"
                try:
                    return self._follow(file, f"{absolute}/{rest}", depth - 1)
                except DataError as error:
                    raise DataError(f"{here} leads to {link.path}, but {error}") from None
            place = place[part]
        return place

    def _check_sources(self, data: h5py.Dataset, depth: int) -> None:
        """Raises DataError where a virtual data set is made of files that are missing, which HDF5 reads as zeros."""
        if not data.is_virtual or depth == 0:
            return
        here = Path(data.file.filename)
        for source in data.virtual_sources():
            if source.file_name != "." and "%b" not in source.file_name:
                target = here.parent / source.file_name
                if not target.is_file():
                    raise DataError(
                        f"{here}: {data.name} leads to {source.dset_name} in {source.file_name}, but there is no file "
                        f"{target}; put it there, or name another data set (--read.data)"
                    )
                self._open(target)


def _has_link(group: h5py.Group, name: str) -> bool:
    return group.get(name, getlink=True, default=None) is not None


def _some(place: Any) -> str:
    return ", ".join(place)[:300] or "nothing" if isinstance(place, h5py.Group) else "nothing in it"


def _names(group: h5py.Group, prefix: str, depth: int = 12) -> Iterator[str]:
    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.HardLink) and isinstance(inner := group[name], h5py.Group):
            if depth:
                yield from _names(inner, f"{prefix}{name}/", depth - 1)
        else:
            yield prefix + name


def open_hdf5(path: Path, why: str = "") -> h5py.File:
    """An HDF5 file to read; raises DataError where it is no such file, is damaged, or is being written."""
    try:
        return h5py.File(path, "r")
    except OSError as error:
        text = str(error)
        if "truncated file" in text:
            raise DataError(
                f"{path} ends before its end ({text[text.index('truncated') :].rstrip(')')}): it is being written or "
                "copied, or was in part; wait until that is finished, or copy it again"
            ) from None
        if isinstance(error, BlockingIOError) or "unable to lock" in text or "already open for write" in text:
            raise DataError(
                f"{path} is being written by another process; wait until the scan is finished. If no process writes "
                "it any more, one was stopped in the middle: `h5clear -s` of the HDF5 tools takes the mark away"
            ) from None
        raise DataError(f"{path} cannot be read as HDF5 ({text}); copy it again") from None


class _Found(NamedTuple):
    """The names of a scan's parts in a file."""

    data: str
    angles: str | None
    keys: str | None = None
    flats: str | None = None
    darks: str | None = None


def read_hdf5(path: Path, settings: ReadConfig, stack: ExitStack) -> RawScan:
    """The scan in a NeXus, DXchange or other HDF5 file, whichever it is.

    Raises:
        DataError: it lacks a part, a link leads nowhere, or it is not clear which data set is meant.
    """
    scan = Hdf5Scan(path, stack)
    found = _find(scan, settings)
    data = _images(scan.get(found.data), found.data, path)
    stored_angles = None if found.angles is None else scan.get(found.angles)
    if found.keys is not None:
        keys = np.asarray(scan.get(found.keys)[()]).ravel()
        everything, projections = _by_keys(data, keys, found, path)
        flats = flats_by_keys(everything, keys)
        darks = everything.some(np.flatnonzero(keys == DARK)) if (keys == DARK).any() else None
    else:
        keys = np.zeros(0)
        count = 0 if stored_angles is None else stored_angles.size
        order = "projections" if found.data == DXCHANGE else settings.order
        projections = arranged(data, axes_of(data.shape, count, order, f"{path}: {found.data}"))
        flats, darks = [], None
    if found.flats is not None:
        flats = [Flats(images_of(_images(scan.get(found.flats), found.flats, path), projections), 0.0)]
    if found.darks is not None:
        darks = images_of(_images(scan.get(found.darks), found.darks, path), projections)
    angles = np.empty(0) if stored_angles is None else _angles(stored_angles, settings, keys, projections.shape[0])
    where = f"{path.name}: {found.data}"
    return RawScan(projections, angles, tuple(flats), darks, _pixel_size(scan, found), where)


def _by_keys(data: h5py.Dataset, keys: NDArray[Any], found: _Found, path: Path) -> tuple[Frames, Frames]:
    """All images, and those that are projections."""
    if len(keys) != len(data):
        raise DataError(
            f"{path}: {found.data} has {len(data)} images but {found.keys} {len(keys)} image keys; there is one an "
            "image: the scan was stopped, or they are another's (--read.data, --read.keys)"
        )
    if not (keys == PROJECTION).any():
        raise DataError(f"{path}: {found.keys} says that no image is a projection (0); name others: --read.keys")
    everything = arranged(data, (0, 1, 2))
    return everything, everything.some(np.flatnonzero(keys == PROJECTION))


def flats_by_keys(everything: Frames, keys: NDArray[Any]) -> list[Flats]:
    """The flats among all images: those with no projection between them were taken together."""
    numbers = np.flatnonzero(keys == FLAT)
    before = np.cumsum(keys == PROJECTION)[numbers]
    return [Flats(everything.some(numbers[before == time]), float(time)) for time in np.unique(before)]


def _images(data: h5py.Dataset, name: str, path: Path) -> h5py.Dataset:
    if data.ndim not in (2, 3) or data.dtype.kind not in "uif":
        raise DataError(
            f"{path}: {name} is {data.dtype} of shape {data.shape}; images are numbers of shape (images, rows, columns)"
        )
    return data


def _find(scan: Hdf5Scan, settings: ReadConfig) -> _Found:
    """Where the parts are: as told, else as DXchange, NXtomo or a beamline's NeXus has them."""
    if settings.data is None and _has(scan, DXCHANGE):
        angles, flats, darks = (
            name if _has(scan, name) else None for name in ("exchange/theta", f"{DXCHANGE}_white", f"{DXCHANGE}_dark")
        )
        known = _Found(DXCHANGE, angles, flats=flats, darks=darks)
    else:
        known = _nexus(scan, settings)
    in_file = {name for name in ("flats", "darks") if (given := getattr(settings, name)) and not Path(given).exists()}
    told = {name: getattr(settings, name) for name in in_file}
    if settings.keys is not None:
        told["keys"] = settings.keys
    if settings.angles is not None:
        told["angles"] = None if Path(settings.angles).is_file() else settings.angles
    return known._replace(**told)


def _has(scan: Hdf5Scan, name: str) -> bool:
    """Whether a file has this path, even as a link that leads nowhere."""
    place, _, last = name.rpartition("/")
    group = scan.file.get(place)
    return isinstance(group, h5py.Group) and _has_link(group, last)


def _nexus(scan: Hdf5Scan, settings: ReadConfig) -> _Found:
    """The data, angles and image keys of a NeXus file, or of any other that has them."""
    names = list(scan.names())
    data = settings.data or _one(scan, names, "data", lambda d: d.ndim == 3 and d.shape[0] > 1, "projections")
    lengths = scan.get(data).shape[:2]
    group = data.rpartition("/")[0]
    near = [group, f"{group.rpartition('/')[0]}/instrument/{group.rpartition('/')[2]}", group.rpartition("/")[0]]

    def nearest(kind: str, fits: Callable[[str], bool]) -> str | None:
        found = [name for name in names if fits(name.rpartition("/")[2].lower())]
        alive = [name for name in found if (d := scan.find(name)) is not None and d.ndim == 1 and len(d) in lengths]
        for place in near:
            here = [name for name in alive if name.rpartition("/")[0] == place]
            if here:
                return min(here, key=len)
        if len(alive) > 1:
            first = scan.get(alive[0])[()]
            if not all(np.array_equal(first, scan.get(name)[()]) for name in alive[1:]):
                raise DataError(
                    f"{scan.path} has several data sets of {kind} of {data}: {', '.join(alive)}; name one: "
                    f"--read.{kind} {alive[0]}"
                )
        if not alive and found and scan.find(found[0]) is None:
            scan.get(found[0])  # says where its link leads
        return alive[0] if alive else None

    keys = settings.keys or (None if settings.flats else nearest("keys", lambda name: name == "image_key"))
    angles = settings.angles
    if angles is None and settings.arc is None:
        angles = nearest("angles", lambda name: name in ("rotation_angle", "theta", "angles", "angle"))
        angles = angles or nearest("angles", lambda name: "theta" in name or "angle" in name or name.startswith("rot"))
    return _Found(data, angles, keys)


def _one(scan: Hdf5Scan, names: list[str], last: str, fits: Callable[[h5py.Dataset], bool], what: str) -> str:
    """The one data set that fits, one called `last` first; links to the same data count once."""
    alive = [(name, d) for name in names if (d := scan.find(name)) is not None and d.dtype.kind in "uif" and fits(d)]
    alive = [pair for pair in alive if pair[0].rpartition("/")[2] == last] or alive
    distinct = {(d.file.filename, d.name): name for name, d in reversed(alive)}
    if len(distinct) == 1:
        return str(next(iter(distinct.values())))
    if distinct:
        raise DataError(
            f"{scan.path} has several data sets that may be the {what}: {', '.join(sorted(distinct.values()))}; name "
            f"one: --read.{last} {min(distinct.values())}"
        )
    broken = scan.dangling()
    dead = f"; these links lead nowhere: {'; '.join(broken[:6])}{', ..' * (len(broken) > 6)}" if broken else ""
    raise DataError(f"{scan.path} has no data set of {what}, (images, rows, columns){dead}; name one: --read.{last}")


def _angles(stored: h5py.Dataset, settings: ReadConfig, keys: NDArray[Any], projections: int) -> NDArray[np.float64]:
    """Those of the projections, in radians if they are as many as those."""
    if stored.dtype.kind not in "uif":
        raise DataError(
            f"{stored.file.filename}: the angles in {stored.name} are {stored.dtype}, not numbers; name others, a data "
            "set or a file: --read.angles"
        )
    values = np.asarray(stored[()], dtype=np.float64).ravel()
    if len(values) == len(keys):
        values = values[keys == PROJECTION]
    unit: Unit | None = unit_in(stored.attrs.get("units", stored.attrs.get("unit", "")))
    # Angles that are too few or many are told by their number, before their span is judged.
    return in_radians(values, settings.angle_unit, unit) if len(values) == projections else values


def _pixel_size(scan: Hdf5Scan, found: _Found) -> float | None:
    """Metres, where the file says so with a unit."""
    group = found.data.rpartition("/")[0]
    places = [f"{group}/x_pixel_size", *(name for name in scan.names() if name.endswith("/x_pixel_size"))]
    places += ["measurement/instrument/detector/pixel_size_x", "measurement/instrument/detection_system/pixel_size"]
    for place in places:
        stored = scan.find(place)
        if stored is None or stored.size != 1 or stored.dtype.kind not in "uif":
            continue
        unit = stored.attrs.get("units", "")
        unit = unit.decode(errors="replace") if isinstance(unit, bytes) else str(unit)
        size = float(np.asarray(stored[()]).ravel()[0]) * LENGTHS.get(unit.strip(), 0.0)
        if 0 < size < 1:
            return size
    return None
