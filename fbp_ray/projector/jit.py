"""Compiling with Numba: to a cache on disk where there is a place for one, without the lock of the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """`function` as a kernel, compiled at its first call and kept on disk for later processes.

    Multiplications and additions may be fused, nothing may be reassociated, and the kernel runs without the
    interpreter's lock. Where neither the package's folder nor the user's cache can be written, each process compiles
    anew.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # "cannot cache function": no folder to keep it in
        return njit(**options)(function)
