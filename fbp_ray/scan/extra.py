"""What comes with the extra `scan`: algotom (Apache-2.0) and scipy, imported when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fbp_ray.errors import RunError
from fbp_ray.settings import this_python


def algotom(module: str) -> Any:
    """`algotom.MODULE`; raises RunError, which says how to install it, where it is missing."""
    return _module(f"algotom.{module}")


def scipy_module(name: str) -> Any:
    """`scipy.NAME`; raises RunError, which says how to install it, where it is missing."""
    return _module(f"scipy.{name}")


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise RunError(
            f"reading scans needs {name.partition('.')[0]} ({error}); install the extra: "
            f"{this_python()} -m pip install 'fbp-ray[scan]'"
        ) from None
