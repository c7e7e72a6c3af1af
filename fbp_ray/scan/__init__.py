"""Raw scans of a parallel beam into a data folder without ground truth, which `train`, `solve` and the service take.

    scan(ScanConfig(scan="tomo_24737.nxs", out="data/mine"))

does what `python -m fbp_ray.scan tomo_24737.nxs --out data/mine` does.

raw        a scan as it was measured, whatever file it lies in
hdf5       NeXus, DXchange, plain HDF5 and MATLAB v7.3
files      folders of TIFF projections, stacks in .npy, .npz and .tif, MATLAB v5
rows       its detector rows, read in bounded memory
correct    from counts to line integrals
axis       where the rotation axis falls
sinogram   stripe removal and padding
program    the data folder
page       its report
sample     a measured scan for trying things out

The options are here, so that a wrong one is known before torch and h5py are imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import CliPositionalArg

from fbp_ray.cli import parse
from fbp_ray.config import Amount, Count
from fbp_ray.settings import Frozen, LocalPath

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _numbers(value: Any) -> Any:
    """`3` and `3,5` as lists."""
    if isinstance(value, str):
        return [part for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int | float) else value


SAMPLE: dict[str, Any] = {
    "read": {
        "data": "Experiments/__unnamed__/data",
        "angles": "Experiments/__unnamed__/metadata/Tomography/_sig_tilts/data",
        "angle_unit": "degrees",
        "axis": "horizontal",
        "values": "signal",
    },
    "rows": (24, 190),
    "correct": {"zingers": 0.0, "air": 10},
    "stripes": {"method": "none"},
    "axis": {"column": 128.0},
    "pixel_size": 3.36e-9,
}
"""What `--sample scan` is given where nothing else is said: where its parts lie, the rows in which the needle is seen
at all angles, and the axis, about which the rows' centres of mass turn (127.98 to 128.2). A beam that scans makes no
rings.
"""


class ReadConfig(Frozen):
    """Where a scan's parts lie, as far as they are not found, and what they are."""

    data: str | None = Field(default=None, description="HDF5 path, or variable, of the projections")
    flats: str | None = Field(default=None, description="HDF5 path, variable, file or folder of the flats (open beam)")
    darks: str | None = Field(default=None, description="HDF5 path, variable, file or folder of the darks (no beam)")
    keys: str | None = Field(default=None, description="NeXus: HDF5 path of the image keys")
    angles: str | None = Field(
        default=None, description="HDF5 path, variable or text file of the angles, one a projection"
    )
    arc: tuple[float, float] | None = Field(
        default=None, description="without angles: those of the first and the last projection in degrees, evenly spaced"
    )
    angle_unit: Literal["auto", "degrees", "radians"] = Field(
        default="auto", description="of the angles; auto: what the file says, else what makes a half or a full circle"
    )
    order: Literal["auto", "projections", "sinograms"] = Field(
        default="auto",
        description="of a stack's axes: projections (angle, row, column) or sinograms (row, angle, column); auto: the "
        "axis that is as long as there are angles",
    )
    axis: Literal["vertical", "horizontal"] = Field(
        default="vertical",
        description="how the rotation axis lies in the stored images; horizontal, along their rows, as electron "
        "microscopes have it: columns then count as rows of the detector, and rows as columns",
    )
    values: Literal["counts", "transmission", "integrals", "signal"] = Field(
        default="counts",
        description="what is stored: counts, the share that passes (I / I0), line integrals (-log), or a signal that "
        "is proportional to them, such as dark-field electrons or fluorescence",
    )
    skip: Annotated[tuple[Amount, ...], BeforeValidator(_numbers)] = Field(
        default=(), description="numbers of projections to leave out, from 0, separated by commas"
    )


class CorrectConfig(Frozen):
    """From counts to line integrals."""

    flat: Literal["auto", "median", "interpolate"] = Field(
        default="auto",
        description="median of all flats; interpolate in time between the medians of those before and after; auto: "
        "interpolate where there are both",
    )
    dead: bool = Field(default=True, description="fill in dead pixels from their neighbours in the row")
    zingers: Share = Field(
        default=12.0,
        description="replace counts that stand out of those before and after by so many standard deviations; 0: none",
    )
    air: Amount = Field(
        default=0,
        description="columns at either side that see nothing but air, by which each projection is scaled; 0: none",
    )


class StripesConfig(Frozen):
    """Removal of stripes in sinograms, which are rings in images."""

    method: Literal["none", "all", "sorting", "filtering"] = Field(
        default="filtering",
        description="of algotom: filtering (small stripes, the gentlest), sorting (those that differ in time too), all "
        "(dead and large ones too; it may take edges of something dense for them), or none",
    )
    size: Count | None = Field(
        default=None,
        description="columns of the median over which small stripes are found; by default a fiftieth of the detector, "
        "since a wide one takes of the object what is as wide",
    )
    large: Count | None = Field(
        default=None, description="columns of that for large stripes; by default a twentieth of the detector"
    )
    snr: Annotated[float, Field(gt=1, allow_inf_nan=False)] = Field(
        default=3.0, description="how far a large or dead stripe stands out"
    )


class AxisConfig(Frozen):
    """The rotation axis."""

    column: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        default=None,
        description="the detector column on which the axis falls, counted from 0 at the centre of the first, before "
        "binning; found where it is not given",
    )
    rows: Count = Field(default=9, description="detector rows in which it is looked for, those that show the most")


class ScanConfig(Frozen):
    """Makes a data folder of a raw scan, without ground truth.

    Raises:
        pydantic.ValidationError (a ValueError): an unknown option, or a value out of range.
    """

    scan: CliPositionalArg[LocalPath | None] = Field(
        default=None,
        description="a NeXus or DXchange file, a folder of TIFF projections, or a stack: .npy .npz .h5 .tif .mat",
    )
    sample: Literal["scan"] | None = Field(
        default=None,
        description="scan: instead of a SCAN of yours, the tilt series of a needle in an electron microscope, fetched "
        "from the package index (67 MB, kept)",
    )
    out: LocalPath = Field(description="the folder to write; it must not exist yet, or be empty")
    read: ReadConfig = ReadConfig()
    rows: tuple[Amount, Amount] | None = Field(
        default=None, description="detector rows to take: the first, and the one after the last; all by default"
    )
    bin: Count = Field(default=1, description="add up so many rows and columns to one")
    correct: CorrectConfig = CorrectConfig()
    stripes: StripesConfig = StripesConfig()
    axis: AxisConfig = AxisConfig()
    pad: Amount | None = Field(
        default=None,
        description="cells to add at either side, which run from the outermost value to 0, where the object reaches "
        "beyond the detector; by default a quarter of the cells where it does, else none; in half acquisition only at "
        "the side far from the axis",
    )
    pixel_size: Positive | None = Field(
        default=None, description="the side of a detector pixel, at the object, in metres; by default as the file says"
    )
    image: Count | None = Field(
        default=None, description="pixels a side of the image; by default what is seen from all sides"
    )
    photons: Positive | None = Field(
        default=None, description="of a ray that meets nothing; by default as repeated flats say, if there are any"
    )
    unit: Positive | None = Field(
        default=None, description="attenuation in 1/m that the value 1 stands for; by default by the densest things"
    )
    split: tuple[Share, Share, Share] = Field(
        default=(0.7, 0.15, 0.15), description="parts of the rows for train,validation,test, in the order of the rows"
    )
    memory: Positive = Field(default=1.0, description="GB of raw data and results to hold at a time")

    @model_validator(mode="before")
    @classmethod
    def _of_sample(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("sample") is None:
            return given
        under = {name: value for name, value in SAMPLE.items() if name not in given}
        for name in SAMPLE.keys() & given.keys():
            if isinstance(SAMPLE[name], dict) and isinstance(given[name], dict):
                under[name] = {**SAMPLE[name], **given[name]}
        return {**given, **under}

    @model_validator(mode="after")
    def _check(self) -> ScanConfig:
        if (self.scan is None) == (self.sample is None):
            raise ValueError("name the SCAN, a file or a folder, or give --sample scan instead")
        if (self.read.axis, self.read.order) == ("horizontal", "sinograms"):
            raise ValueError("--read.axis horizontal is for images; a stack of sinograms has none, leave it out")
        if self.rows is not None and self.rows[0] >= self.rows[1]:
            raise ValueError(f"--rows {self.rows[0]} {self.rows[1]} takes none; the second is the one after the last")
        if min(self.split[:2]) == 0:
            raise ValueError("--split gives train or validation no rows, which learning needs; such as 0.7,0.15,0.15")
        if self.read.arc is not None and self.read.angles is not None:
            raise ValueError("--read.arc is for scans without angles, but --read.angles is given too; leave one out")
        return self


def main(argv: Sequence[str]) -> None:
    """Makes the data folder that the options describe."""
    scan(parse(ScanConfig, argv, "python -m fbp_ray.scan"))


def scan(config: ScanConfig) -> None:
    """Makes the data folder of a scan. What it depends on is the scan and the settings alone.

    Raises:
        ConfigError: the settings do not fit the scan, or the target folder holds something.
        DataError: the scan is missing, damaged, incomplete or being written.
        RunError: the extra `scan` is not installed, or the folder could not be written.
    """
    from fbp_ray.scan.program import make  # only now: torch takes seconds to import

    make(config)
