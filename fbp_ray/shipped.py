"""The models that come with the package: kilobytes each, trained by `make weights` on the public sample scans.

Wherever a checkpoint is asked for, the name of one is as good as a place: `load_model("chest-low-dose")`. A folder of
the same name is `./chest-low-dose`.
"""

from __future__ import annotations

from pathlib import Path

from fbp_ray.storage import Folder, LocalFolder, Place, absolute, open_folder

CHEST_LOW_DOSE = "chest-low-dose"
"""An adaptive window for LoDoPaB-CT's geometry and noise."""

_WEIGHTS = Path(__file__).parent / "weights"


def shipped_models() -> list[str]:
    """Their names."""
    return LocalFolder(_WEIGHTS).folders()


def open_place(place: Place) -> Folder:
    """The folder of a model that comes with the package, or of any other place; raises what `open_folder` does."""
    return LocalFolder(_WEIGHTS) / str(place) if is_shipped(place) else open_folder(place)


def absolute_place(place: str) -> str:
    """A place of a checkpoint by a name that means it in every process of the machine; a model's name is that."""
    return place if is_shipped(place) else absolute(place)


def is_shipped(place: Place) -> bool:
    """Whether a place is the name of a model that comes with the package."""
    return isinstance(place, str) and place in shipped_models()
