"""What a LoDoPaB-CT folder contains: numbered HDF5 files, the scale of their values, and a description.

    observation_{part}_{number:03d}.hdf5     `data`: (rows, A, D) float32, a sample a row
    ground_truth_{part}_{number:03d}.hdf5    `data`: (rows, H, W) float32
    patient_ids_rand_{part}.csv              a patient's number for each sample, one a line
    dataset.json                             simulated data and scans only: geometry, unit, photons, split and more

The genuine files hold 128 rows each. Only the last *observation* file of a part is trimmed to what counts; the last
ground-truth file may hold more rows. Source: Leuschner et al., Scientific Data 8 (2021) 109.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from fbp_ray.config import PHOTONS, DataConfig, Target
from fbp_ray.errors import ConfigError, DataError
from fbp_ray.geometry import Geometry, ParallelBeam, geometry_from
from fbp_ray.settings import as_text, expand_home, explain_json, this_python

Kind = Literal["observation", "ground_truth"]
DESCRIPTION = "dataset.json"

MU_WATER = 20.0
"""Attenuation of water, 1/m."""

MU_AIR = 0.02
"""Attenuation of air, 1/m."""

MU_MAX = 3071 * (MU_WATER - MU_AIR) / 1000 + MU_WATER
"""Attenuation at 3071 HU, 81.35858 /m, by which images and line integrals are divided where no `unit` is given."""


def file_name(kind: Kind, part: str, number: int) -> str:
    """The name of one file, such as `observation_test_000.hdf5`."""
    return f"{kind}_{part}_{number:03d}.hdf5"


def find_observations(folder: Path, part: str) -> list[Path]:
    """A part's observation files in order, 000 first.

    Raises:
        DataError: the folder is missing, has no observation file of that part, or a number is left out.
    """
    if not folder.is_dir():
        raise DataError(f"there is no data folder {folder}; make one with: {_make_data()}")
    names = (re.fullmatch(r"observation_([a-z]+)_(\d{3,})\.hdf5", path.name) for path in folder.iterdir())
    found = [(match[1], int(match[2])) for match in names if match]
    numbers = {number for name, number in found if name == part}
    if not numbers:
        parts = ", ".join(sorted({name for name, _ in found}))
        has = f"it has the parts {parts}" if parts else "it has no LoDoPaB-CT files at all"
        raise DataError(f"{folder} has no observation_{part}_*.hdf5; {has}. Data are made with: {_make_data()}")
    missing = next((number for number in range(max(numbers)) if number not in numbers), None)
    if missing is not None:
        last, gap = file_name("observation", part, max(numbers)), file_name("observation", part, missing)
        raise DataError(
            f"{folder} has {last} but not {gap}; the numbers run from 000 without a gap: add the missing file, or take "
            "away those that follow it"
        )
    return [folder / file_name("observation", part, number) for number in sorted(numbers)]


def find_parts(folder: Path) -> list[str]:
    """Those of train, validation and test that a folder has; raises DataError where it has none."""
    found = [part for part in ("train", "validation", "test") if (folder / file_name("observation", part, 0)).is_file()]
    if not found:
        find_observations(folder, "test")  # which says what is missing
    return found


def _make_data() -> str:
    return f"{this_python()} -m fbp_ray.simulate --sample --out DIR"


def describe(folder: str | Path) -> dict[str, Any] | None:
    """The folder's `dataset.json` (geometry, photons, seed, sources, split), None where there is none.

    Raises:
        DataError: the file is there but holds no JSON object.
    """
    path = Path(expand_home(str(folder))) / DESCRIPTION
    if not path.is_file():
        return None
    try:
        description = json.loads(as_text(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not JSON ({error}); put the file right, or simulate the data again") from None
    if not isinstance(description, dict):
        raise DataError(f"{path} holds a JSON {type(description).__name__}, not an object; simulate the data again")
    return description


def geometry_of(folder: str | Path) -> Geometry:
    """The geometry that a folder's data were made with: the one in its `dataset.json`, otherwise LoDoPaB-CT's.

    Raises:
        DataError: `dataset.json` is there but has no valid geometry.
    """
    description = describe(folder)
    if description is None:
        return ParallelBeam.lodopab()
    try:
        return geometry_from(description.get("geometry"))
    except ValidationError as error:
        raise DataError(
            f"{Path(folder) / DESCRIPTION} has no usable `geometry` ({explain_json(error)}); simulate the data "
            "again, or remove the file if these are the genuine LoDoPaB-CT files"
        ) from None


def has_truth(folder: Path, part: str) -> bool:
    """Whether a part has files of ground truth."""
    return next(folder.glob(f"ground_truth_{part}_*.hdf5"), None) is not None


def check_data(data: DataConfig, target: Target = "truth") -> Geometry:
    """The geometry of the folder that settings name, which has what a training reads.

    Raises:
        ConfigError: no folder is named, the scan has fewer angles than are kept or skipped, or no noise can be drawn.
        DataError: the folder, a part or its ground truth is missing.
    """
    if data.dir is None:
        raise ConfigError("data.dir names no folder; give one")
    for part in ("train", "validation"):
        find_observations(data.dir, part)
        if target == "truth" and not has_truth(data.dir, part):
            raise DataError(
                f"{data.dir} has no ground_truth_{part}_*.hdf5; add the ground truth, or learn without it: "
                "--target self"
            )
        if data.photons is not None and not thins(data) and not has_truth(data.dir, part):
            stored = photons_of(data.dir)
            most = f"{stored:g} photons" if stored else "an unknown number of photons"
            raise ConfigError(
                f"--data.photons {data.photons[0]:g} {data.photons[1]:g} goes beyond what {data.dir} was measured with "
                f"({most}), and its {part} part has no ground truth to project; give smaller numbers, or add the "
                "ground truth"
            )
    geometry = geometry_of(data.dir)
    for name, number in (("first_angles", data.first_angles or 1), ("every", data.every)):
        if number > geometry.num_angles:
            raise ConfigError(
                f"--data.{name} {number} is more than the {geometry.num_angles} angles of the scans in {data.dir}; "
                "choose a smaller one"
            )
    return geometry


def thins(data: DataConfig) -> bool:
    """Whether `data.photons` asks for no more than were measured, so that some of those can be left out."""
    stored = photons_of(data.dir) if data.dir else None
    return data.photons is not None and stored is not None and data.photons[1] <= stored


def photons_of(folder: str | Path) -> float | None:
    """Photons of a ray that meets nothing: of simulated data as they say, of LoDoPaB-CT 4096, None where not known."""
    description = describe(folder)
    if description is None:
        return PHOTONS
    photons = description.get("photons")
    return float(photons) if isinstance(photons, int | float) and photons > 0 else None


def electronic_noise_of(folder: str | Path) -> float:
    """Standard deviation of what was added to each count of photons, as `dataset.json` says; 0 where it says nothing.

    Raises:
        DataError: it says something that is no such number.
    """
    noise = (describe(folder) or {}).get("electronic_noise", 0.0)
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise < math.inf:
        raise DataError(
            f"{Path(folder) / DESCRIPTION} has the `electronic_noise` {noise!r}; it is a standard deviation in photons"
        )
    return float(noise)


def unit_of(folder: str | Path) -> float:
    """Attenuation in 1/m that the value 1 stands for: as `dataset.json` says, else MU_MAX.

    Raises:
        DataError: it says something that is no such number.
    """
    unit = (describe(folder) or {}).get("unit", MU_MAX)
    if isinstance(unit, bool) or not isinstance(unit, int | float) or not 0 < unit < math.inf:
        raise DataError(
            f"{Path(folder) / DESCRIPTION} has the `unit` {unit!r}; it is the attenuation in 1/m that the value 1 "
            f"stands for, {MU_MAX:.5f} in LoDoPaB-CT"
        )
    return float(unit)


def patients_of(folder: str | Path, part: str, samples: int, whole: bool = False) -> list[str] | None:
    """Whose each of the first samples of a part is; None where the folder does not say.

    Raises:
        DataError: the list has fewer lines than there are samples, or more where they are the `whole` part.
    """
    file = Path(folder) / f"patient_ids_rand_{part}.csv"
    if not file.is_file():
        return None
    lines = file.read_text(encoding="utf-8").split()
    if len(lines) < samples or (whole and len(lines) > samples):
        raise DataError(
            f"{file} has {len(lines)} lines, but there are {samples} samples; give one a sample, or remove the file"
        )
    return lines[:samples]
