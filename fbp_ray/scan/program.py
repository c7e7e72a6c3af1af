"""What reading a scan does: the data folder that it writes, whole or not at all."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from fbp_ray.cli import progress
from fbp_ray.data.layout import DESCRIPTION, file_name
from fbp_ray.errors import ConfigError, DataError, RunError
from fbp_ray.filters.noise import estimated_photons
from fbp_ray.geometry import ParallelBeam
from fbp_ray.model import fbp
from fbp_ray.scan import ScanConfig
from fbp_ray.scan.axis import Axis, find_axis
from fbp_ray.scan.correct import Cleaned, Fixed, binned, check_light, clean, filled, measure
from fbp_ray.scan.files import read_scan
from fbp_ray.scan.geometry import geometry_of_scan, off_middle, open_sides
from fbp_ray.scan.page import Shown, write_page
from fbp_ray.scan.raw import RawScan
from fbp_ray.scan.rows import RowReader
from fbp_ray.scan.sample import ORIGIN
from fbp_ray.scan.sinogram import BEYOND, edges, padded, without_stripes
from fbp_ray.settings import as_json
from fbp_ray.simulate.program import whole_folder

Values = NDArray[np.float32]
PARTS = ("train", "validation", "test")
ROWS = 128  # samples a file, as in LoDoPaB-CT
LOOKED_AT = 4  # times as many rows as the axis is found in, of which those are chosen that show the most
UNKNOWN_PIXEL = 1e-6
BRIGHTEST = 0.45  # what the densest things get: the white of all pictures, and what bone has in LoDoPaB-CT
SHOWN = 512  # pixels a side of the images that are looked at before the rest is done


class Scan(NamedTuple):
    """A scan that was looked at: what it takes to make line integrals of any of its rows."""

    raw: RawScan
    reader: RowReader
    fixed: Fixed
    config: ScanConfig

    @property
    def rows(self) -> int:
        """Those that are written, after binning."""
        return (self.reader.last - self.reader.first) // self.config.bin

    def clean(self, first: int, counts: NDArray[Any], threads: int) -> list[Cleaned]:
        """Line integrals of the binned rows from `first` on; counts (r, A, D) as they are stored."""
        size, start = self.config.bin, first * self.config.bin
        whole = self.raw.projections.dtype.kind != "f"

        def one(number: int) -> Cleaned:
            rows = slice(number * size, (number + 1) * size)
            dead = self.fixed.dead[start + rows.start : start + rows.stop]
            values = filled(counts[rows].astype(np.float32), dead)
            summed = values[0] if size == 1 else binned(values, size)[0]
            return clean(summed, self.fixed, first + number, self.config, whole)

        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(one, range(len(counts) // size)))

    def some(self, rows: NDArray[np.int64], threads: int) -> list[Cleaned]:
        """Line integrals of some binned rows, read one by one."""
        size, start = self.config.bin, self.reader.first
        return [
            self.clean(int(row), self.reader.read(start + int(row) * size, start + (int(row) + 1) * size), threads)[0]
            for row in rows
        ]


class Looked(NamedTuple):
    """What a few rows say about all."""

    axis: Axis
    pad: tuple[int, int]
    unit: float
    photons: float | None
    photons_from: str
    geometry: ParallelBeam
    notes: list[str]
    shown: Shown


def make(config: ScanConfig) -> None:
    """Makes the data folder; see `fbp_ray.scan.scan`."""
    _check_out(config.out)
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        raw = read_scan(config, stack)
        rows = _rows_of(raw, config)
        count, _, width = raw.projections.shape
        print(f"{raw.source}: {count} projections of {rows.stop - rows.start} rows x {width} columns")
        # What is held is read as it is stored, then as float32 a few times over, the rows that are at work.
        share = raw.projections.dtype.itemsize / (raw.projections.dtype.itemsize + 12)
        reader = RowReader(raw.projections, rows.start, rows.stop, 1e9 * config.memory * share)
        reader.together = max(config.bin, reader.together // config.bin * config.bin)
        target = config.out.absolute()
        _check_free_space(target, reader.scratch_bytes, (rows.stop - rows.start) // config.bin, count, width, config)
        with whole_folder(target) as folder:
            scratch = folder / ".rows"
            with progress("Reading projections", count) as advance:
                reader.prepare(scratch, advance)
            scan = Scan(raw, reader, measure(raw, config, rows), config)
            looked = _look(scan, threads)
            for note in looked.notes:
                print(note)
            totals = _write(folder, scan, looked, threads)
            scratch.unlink(missing_ok=True)
            description = _description(scan, looked, totals)
            (folder / DESCRIPTION).write_text(as_json(description) + "\n", encoding="utf-8")
            write_page(folder / "scan.html", config, description, looked.axis, looked.shown)
    counts = ", ".join(f"{last - first} {part}" for part, (first, last) in description["rows"].items())
    print(f"Wrote {config.out}: {counts} rows, with what was done on {config.out / 'scan.html'}")


def _check_out(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "holds something" if out.is_dir() else "is a file"
        raise ConfigError(f"{out} {what}; choose another --out, or remove it first: nothing is overwritten")


def _rows_of(raw: RawScan, config: ScanConfig) -> slice:
    """The rows of the detector that are taken, a multiple of the bin; raises ConfigError where they do not exist."""
    count, width = raw.projections.shape[1:]
    first, last = config.rows or (0, count)
    if last > count:
        raise ConfigError(f"--rows {first} {last}, but the detector has {count} rows, numbered from 0; give fewer")
    taken = (last - first) // config.bin
    if taken < len([share for share in config.split if share]) or width // config.bin < 8:
        raise ConfigError(
            f"{last - first} rows x {width} columns in bins of {config.bin} are {taken} x {width // config.bin}, too "
            "few to learn from; take more rows (--rows), or a smaller --bin"
        )
    return slice(first, first + taken * config.bin)


def _check_free_space(target: Path, scratch: int, rows: int, angles: int, width: int, config: ScanConfig) -> None:
    """Raises RunError where the disk has no room: HDF5 takes a full disk badly."""
    cells = width // config.bin
    cells += 2 * (config.pad if config.pad is not None else cells // 4)
    needed = 4 * rows * angles * cells + scratch
    existing = next(folder for folder in target.parents if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed * 1.02 > free:
        beside = f" ({scratch / 1e9:.3g} GB of them while it works)" if scratch else ""
        raise RunError(
            f"the data take {needed / 1e9:.3g} GB{beside}, but the disk of {existing} has {free / 1e9:.3g} GB left; "
            "choose another --out, fewer --rows, or a --bin"
        )


def _look(scan: Scan, threads: int) -> Looked:
    """The axis, the scale, the noise and what lies beyond the detector, by rows over the whole height."""
    config, theta = scan.config, scan.raw.angles
    rows = np.unique(np.linspace(0, scan.rows - 1, LOOKED_AT * config.axis.rows).round().astype(np.int64))
    cleaned = scan.some(rows, threads)
    floored = sum(one.floored for one in cleaned) / sum(one.integrals.size for one in cleaned)
    check_light(np.mean([one.light for one in cleaned], axis=0), floored, config.read.values, scan.raw.source)
    sinograms = np.stack([one.integrals for one in cleaned])
    shows = np.abs(np.diff(sinograms[:, :: max(1, len(theta) // 90)], axis=1)).mean((1, 2))
    chosen = np.sort(np.argsort(shows, kind="stable")[-config.axis.rows :])
    axis = _axis(sinograms[chosen], theta, config, scan.raw.projections.shape[2])
    notes = [
        f"Axis on column {axis.column:g} ({axis.method}"
        + (f", rows differ by {axis.spread:g})" if axis.spread else ")")
    ]
    if floored > 1e-3:
        notes.append(
            f"{100 * floored:.1f} % of the values are 0 or negative, and were raised so that they have a logarithm: if "
            "the object is not that dense, leave out rows or projections (--rows, --read.skip), or give other darks"
        )
    if axis.spread > 1:
        notes.append("The rows disagree about the axis; look at scan.html, and give another if need be: --axis.column")
    cells = sinograms.shape[2]
    sides = open_sides(theta, off_middle(cells, axis.column, config))
    outer, highest = edges(sinograms, sides)
    beyond = outer > BEYOND * highest
    added = config.pad if config.pad is not None else cells // 4 if beyond else 0
    pad = added * sides[0], added * sides[1]
    if beyond:
        notes.append(
            f"The outermost columns have line integrals of {outer:.2g} on average, of {highest:.2g} at most: the "
            f"object goes on beyond the detector, or the beam was weaker than in the flats (then: --correct.air 10). "
            f"{added} cells are added at {'either side' if all(sides) else 'the side far from the axis'}."
        )
    geometry, more = geometry_of_scan(theta, cells, axis.column, pad, scan.raw.pixel_size, config)
    notes += more
    middle = int(chosen[len(chosen) // 2])
    before = sinograms[middle]
    after = padded(without_stripes(before, config.stripes), pad)
    images = _images(geometry, padded(before, pad), after)
    unit = config.unit
    if unit is None:
        tried = chosen[:: max(1, len(chosen) // 3)]
        made = [_images(geometry, padded(without_stripes(sinograms[row], config.stripes), pad))[0] for row in tried]
        unit = float(f"{max(float(np.percentile(np.stack(made), 99.8)), 1e-9) / BRIGHTEST:.3g}")
    photons, source = _photons(scan, sinograms[chosen], any(pad))
    shown = Shown(int(rows[middle]), before, after, images[0] / unit, images[1] / unit, images[2] / unit)
    return Looked(axis, pad, unit, photons, source, geometry, notes, shown)


def _axis(sinograms: Values, theta: NDArray[np.float64], config: ScanConfig, width: int) -> Axis:
    """The axis in columns of the detector, before binning; raises ConfigError where one is given that is outside."""
    given = config.axis.column
    if given is None:
        found = find_axis(sinograms, theta)
        size = config.bin
        columns = [round(size * column + (size - 1) / 2, 3) for column in found.columns]
        column = round(size * found.column + (size - 1) / 2, 3)
        return found._replace(column=column, spread=round(size * found.spread, 3), columns=columns)
    if not -0.5 < given < width - 0.5:
        raise ConfigError(
            f"--axis.column {given:g} is outside the detector, whose columns are 0 to {width - 1}; the middle is "
            f"{(width - 1) / 2:g}"
        )
    return Axis(given, 0.0, [], [], "as given")


def _images(geometry: ParallelBeam, *sinograms: Values) -> list[Values]:
    """Images in 1/m with the bare ramp of all sinograms (A, D), and a Hann's of the last, coarser if they are large."""
    size = min(geometry.image_shape[0], SHOWN)
    pixel = geometry.pixel_size * geometry.image_shape[0] / size
    coarse = geometry.model_copy(update={"image_shape": (size, size), "pixel_size": pixel})
    stack = torch.from_numpy(np.stack(sinograms))
    smooth = fbp(stack[-1:], coarse, "hann", min(1.0, 0.7 * geometry.pixel_size / pixel + 0.1))
    return [np.asarray(image) for image in torch.cat([fbp(stack, coarse, "none"), smooth]).numpy()]


def _photons(scan: Scan, sinograms: Values, pad: bool) -> tuple[float | None, str]:
    """Photons of a ray that meets nothing, and where from."""
    config, fixed = scan.config, scan.fixed
    if config.photons is not None:
        return config.photons, "as given"
    if fixed.gain is not None:
        light = float(np.median(np.mean(fixed.flats, axis=0) - fixed.dark))
        return float(f"{light / fixed.gain:.4g}"), "repeated flats"
    if config.read.values == "signal":
        return None, "unknown, of a signal"
    if pad:  # the added cells have no noise, from which a window would estimate them
        found = estimated_photons(torch.from_numpy(sinograms), 1.0)
        return float(f"{float(found.median()):.4g}"), "the sinograms' noise"
    return None, "unknown"


def _write(folder: Path, scan: Scan, looked: Looked, threads: int) -> dict[str, int]:
    """Writes all rows; returns how many counts were replaced."""
    totals = {"zingers": 0, "counts_of_none": 0}
    light = np.zeros(len(scan.raw.angles))
    size, start = scan.config.bin, scan.reader.first
    writer = _Writer(folder, split_rows(scan.rows, scan.config.split), looked.geometry.sinogram_shape)

    def finish(one: Cleaned) -> Values:
        made = padded(without_stripes(one.integrals, scan.config.stripes), looked.pad) / np.float32(looked.unit)
        return np.asarray(made, dtype=np.float32)

    with progress("Writing rows", scan.rows) as advance, ThreadPoolExecutor(threads) as pool:
        for first, last in scan.reader.blocks():
            counts = scan.reader.read(first, last)
            group = max(1, threads) * size
            for begin in range(0, last - first, group):  # rows at work are held as float32 several times over
                cleaned = scan.clean((first - start + begin) // size, counts[begin : begin + group], threads)
                for one, made in zip(cleaned, pool.map(finish, cleaned), strict=True):
                    if not np.isfinite(made).all():
                        raise DataError(f"row {writer.row} has values that are NaN or infinite; leave it out: --rows")
                    writer.write(made)
                    totals["zingers"] += one.zingers
                    totals["counts_of_none"] += one.floored
                    light += one.light
                advance(len(cleaned))
    writer.close()
    share = totals["counts_of_none"] / (scan.rows * light.size * (scan.raw.projections.shape[2] // size))
    check_light(light / scan.rows, share, scan.config.read.values, scan.raw.source)
    return totals


def split_rows(rows: int, split: tuple[float, float, float]) -> dict[str, tuple[int, int]]:
    """The rows of each part, the first and the one after the last: blocks in the order of the rows, none left out.

    Neighbouring rows are alike, so parts of blocks see other things; and the parts one after the other are the volume.
    """
    ends = np.cumsum(split) / sum(split) * rows
    bounds = [0, *(round(end) for end in ends)]
    for part in range(3):  # each that gets a share has a row
        if split[part]:
            bounds[part + 1] = max(bounds[part + 1], bounds[part] + 1)
    bounds[3] = rows
    for part in (2, 1):
        if split[part]:
            bounds[part] = min(bounds[part], bounds[part + 1] - 1)
    return {PARTS[part]: (bounds[part], bounds[part + 1]) for part in range(3) if bounds[part + 1] > bounds[part]}


class _Writer:
    """Writes sinograms one after the other into the files of the parts, a chunk a row."""

    def __init__(self, folder: Path, parts: dict[str, tuple[int, int]], shape: tuple[int, int]) -> None:
        self._files = [
            (first + start, min(first + start + ROWS, last), folder / file_name("observation", part, number))
            for part, (first, last) in parts.items()
            for number, start in enumerate(range(0, last - first, ROWS))
        ]
        self._shape = shape
        self._file: h5py.File | None = None
        self.row = 0

    def write(self, sinogram: Values) -> None:
        first, last, path = self._files[0]
        if self._file is None:
            self._file = h5py.File(path, "w")
            shape = (last - first, *self._shape)
            self._file.create_dataset("data", shape=shape, dtype="float32", chunks=(1, *self._shape))
        self._file["data"][self.row - first] = sinogram
        self.row += 1
        if self.row == last:
            self.close()
            self._files.pop(0)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _description(scan: Scan, looked: Looked, totals: dict[str, int]) -> dict[str, Any]:
    config, fixed = scan.config, scan.fixed
    parts = split_rows(scan.rows, config.split)
    return {
        "source": f"scan {scan.raw.source}",
        "geometry": looked.geometry.model_dump(mode="json"),
        "unit": looked.unit,
        "photons": looked.photons,
        "gain": fixed.gain,
        **({"origins": [ORIGIN]} if config.sample else {}),
        "samples": {part: last - first for part, (first, last) in parts.items()},
        "rows": parts,
        "split": "blocks of neighbouring rows; train, validation and test one after the other are the volume",
        "steps": {
            "first_row": scan.reader.first,
            "bin": config.bin,
            "dead_pixels": int(fixed.dead.sum()),
            "flats": [flat.frames.shape[0] for flat in scan.raw.flats],
            "darks": scan.raw.darks.shape[0] if scan.raw.darks else 0,
            "flat_correction": "interpolated in time" if len(fixed.flats) > 1 else "median",
            **totals,
            "stripes": config.stripes.method,
            "axis_column": looked.axis.column,
            "axis_spread": looked.axis.spread,
            "axis_method": looked.axis.method,
            "pad": looked.pad,
            "photons_from": looked.photons_from,
        },
        "notes": looked.notes,
        "request": config.model_dump(mode="json", exclude={"out"}),
    }
