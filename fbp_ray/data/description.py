"""What a data folder says about itself: the `dataset.json` that the simulator writes beside its files.

The genuine LoDoPaB-CT has no such file; it is then taken to be what it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fbp_ray.errors import DataError
from fbp_ray.geometry import ParallelBeam

DESCRIPTION = "dataset.json"


def describe(folder: str | Path) -> dict[str, Any] | None:
    """The folder's `dataset.json` (geometry, photons, seed, sources, split), None where there is none.

    Raises:
        DataError: the file is there but holds no JSON object.
    """
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        return None
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); simulate the data again, or remove the file") from None
    if not isinstance(description, dict):
        raise DataError(f"{path} holds a JSON {type(description).__name__}, not an object; simulate the data again")
    return description


def geometry_of(folder: str | Path) -> ParallelBeam:
    """The geometry that a folder's data were made with: the one in its `dataset.json`, otherwise LoDoPaB-CT's.

    Raises:
        DataError: `dataset.json` is there but its geometry is missing or cannot be.
    """
    description = describe(folder)
    if description is None:
        return ParallelBeam.lodopab()
    try:
        return ParallelBeam.model_validate(description.get("geometry"))
    except ValidationError as error:
        raise DataError(
            f"{Path(folder) / DESCRIPTION} has no usable `geometry` ({error.errors()[0]['msg']}); simulate the data "
            "again, or remove the file if these are the genuine LoDoPaB-CT files"
        ) from None
