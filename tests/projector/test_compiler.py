"""Compiled functions are kept on disk; a cache that cannot be read or written costs time, never the result."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from fbp_ray.projector.compiler import CompileError, Kernel


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))


def another_process() -> Kernel:
    """The same kernel as another process meets it: nothing of it is in memory."""

    def add_one(array: Any) -> None:
        array[0] += 1.0

    return Kernel(add_one)


def works(kernel: Kernel) -> bool:
    array = np.zeros(1)
    kernel(array)
    return bool(array[0] == 1)


def test_what_is_compiled_once_is_kept(tmp_path: Path) -> None:
    first, second = another_process(), another_process()
    assert first.cache_path is None
    assert works(first)
    assert works(second)
    assert (first.cache_hits, second.cache_hits) == (0, 1)
    assert second.cache_path is not None
    assert second.cache_path.startswith(str(tmp_path))


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("content", [b"", b"\x80\x04 no pickle"])
def test_a_cache_that_cannot_be_read_is_written_anew(content: bytes, suffix: str, tmp_path: Path) -> None:
    assert works(another_process())
    (damaged,) = tmp_path.rglob(f"*{suffix}")
    damaged.write_bytes(content)
    assert works(another_process())
    later = another_process()
    assert works(later)
    assert later.cache_hits == 1


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_a_folder_in_the_place_of_a_cache_is_removed(suffix: str, tmp_path: Path) -> None:
    assert works(another_process())
    (entry,) = tmp_path.rglob(f"*{suffix}")
    entry.unlink()
    (entry / "filled").mkdir(parents=True)
    assert works(another_process())
    later = another_process()
    assert works(later)
    assert later.cache_hits == 1


@pytest.mark.parametrize("what", [OSError(errno.ENOSPC, "No space left on device"), PermissionError("read only")])
def test_a_cache_that_cannot_be_written_costs_time_only(what: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise what

    monkeypatch.setattr(os, "replace", fail)
    kernel = another_process()
    assert works(kernel)
    assert kernel.cache_path is None


def test_without_a_folder_for_a_cache_each_process_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def no_folder(*arguments: Any, cache: bool = False, **options: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*arguments, **options)

    monkeypatch.setattr(numba, "njit", no_folder)
    kernel = another_process()
    assert works(kernel)
    assert kernel.cache_path is None


def test_what_cannot_be_compiled_says_so_each_time() -> None:
    def impossible(array: Any) -> None:
        array.no_such_method()

    kernel = Kernel(impossible)
    for _ in range(2):
        with pytest.raises(CompileError, match="no_such_method"):
            kernel(np.zeros(1))
