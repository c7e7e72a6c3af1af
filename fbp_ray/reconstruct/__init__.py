"""`python -m fbp_ray.reconstruct (--checkpoint RUN | --window hann --cutoff C) --data.dir DIR --out VOLUME`: a volume.

The options are here, so that a wrong one is known before torch is imported; `program` is what it does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from fbp_ray.cli import parse
from fbp_ray.config import Count, Photons
from fbp_ray.settings import Frozen, LocalPath, PlaceName
from fbp_ray.stage_settings import WindowName

ENDINGS = (".tif", ".tiff", ".h5", ".hdf5", ".zarr")
Part = Literal["train", "validation", "test"]


def _is_range(rows: str) -> str:
    if not re.fullmatch(r"\d+|\d*:\d*(:0*[1-9]\d*)?", rows):
        raise ValueError("must be one row, or FIRST:END, or FIRST:END:STEP, without END itself, for example 0:100")
    return rows


def _is_volume(out: Path) -> Path:
    if out.suffix.lower() not in ENDINGS:
        raise ValueError(f"must end with {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}, which says what is written")
    return out


class VolumeData(Frozen):
    """What to reconstruct."""

    dir: LocalPath = Field(description="data folder, for example one that `python -m fbp_ray.scan` has made")


class VolumeRay(Frozen):
    """The Ray cluster."""

    address: str | None = Field(
        default=None,
        description="HOST:PORT of a running cluster, auto for the one on this machine, or local to start one here; "
        "without it RAY_ADDRESS, else this process does it by itself, unless the machine has several GPUs",
    )


class ReconstructConfig(Frozen):
    """Reconstructs the rows of a scan, and writes them as a volume (rows, x, y) float32 in 1/m.

    The same command goes on where an earlier one was killed. What is not complete lies in VOLUME.partial.
    """

    checkpoint: PlaceName | None = Field(
        default=None, description="run folder (its best checkpoint), checkpoint folder, its URI, or chest-low-dose"
    )
    window: WindowName | None = Field(default=None, description="or the classic FBP with this window")
    cutoff: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="the window's cut-off, a fraction of the Nyquist frequency; 1 without it"
    )
    data: VolumeData
    part: Part | None = Field(
        default=None, description="the rows of this part alone; needed where the data do not say which rows they hold"
    )
    rows: Annotated[str, AfterValidator(_is_range)] | None = Field(
        default=None, description="the scan's rows FIRST:END, or FIRST:END:STEP, without END itself; all by default"
    )
    out: Annotated[LocalPath, AfterValidator(_is_volume)] = Field(
        description="the volume: .tif (all rows in one file), .h5 or .zarr"
    )
    slab: Count | None = Field(
        default=None,
        description="rows at a time; without it as many as about 3 GB of memory will do for, 32 at most",
    )
    photons: Photons | Literal["estimate"] | None = Field(
        default=None,
        description="photons of a ray that meets nothing, for a checkpoint whose window goes by the noise; without it "
        "what the data say",
    )
    ray: VolumeRay = VolumeRay()

    @model_validator(mode="after")
    def _one_method(self) -> ReconstructConfig:
        if (self.checkpoint is None) == (self.window is None):
            raise ValueError(
                "give either --checkpoint RUN, or --window NAME for the classic FBP, for example: --window hann "
                "--cutoff 0.6"
            )
        if self.window is None and self.cutoff is not None:
            raise ValueError("cutoff is one of a classic --window; leave it out")
        if self.checkpoint is None and self.photons is not None:
            raise ValueError("photons are for the window of a --checkpoint; leave them out")
        return self


def main(argv: Sequence[str]) -> None:
    """Reconstructs what the options name."""
    config = parse(ReconstructConfig, argv, "python -m fbp_ray.reconstruct")
    from fbp_ray.reconstruct.program import reconstruct  # only now: torch takes seconds to import

    reconstruct(config)
