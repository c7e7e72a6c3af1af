"""Compiling with Numba: to a cache on disk where there is a place for one, without the lock of the interpreter."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """`function` as a kernel, compiled at its first call and kept on disk for later processes.

    Multiplications and additions may be fused, nothing may be reassociated, and the kernel runs without the
    interpreter's lock. Where neither the package's folder nor the user's cache can be written, each process compiles
    anew.
    """
    # Numba looks for changes only in the file of the function itself, but a kernel is made of several files
    function.__qualname__ += f"_{_digest()}"
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # "cannot cache function": no folder to keep it in
        return njit(**options)(function)


@functools.cache
def _digest() -> str:
    """Eight hexadecimal digits that stand for all that kernels are made of."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:8]
