"""Compiling the CPU kernels with Numba, and what they are made of: vectors in LLVM's terms.

A processor issues about as many loads as multiply-adds, and each multiply-add of the kernels takes a load of its own.
So what else a kernel needs is loaded several at a time: indices by two, weights by four.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding
import numba
from llvmlite import ir

_CONFIG: Any = numba.config  # read from the environment, hence without types
F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)


class CompileError(RuntimeError):
    """A kernel cannot be compiled here."""


class Kernel:
    """A function that is compiled at its first call and kept on disk for later processes.

    Multiplications and additions may be fused, nothing may be reassociated, and it runs without the interpreter's lock.
    A cache that cannot be read is removed and written anew. Where none can be written, each process compiles for
    itself.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        # Numba looks for changes only in the file of the function itself, but a kernel is made of several files
        self._name = function.__name__ + f"_{_digest()}"
        function.__qualname__ += f"_{_digest()}"
        self._source = function
        self._lock = threading.Lock()
        self._function: Any = None
        self._ways = iter((self._kept, self._kept_anew, self._njit))
        self._error: Exception | None = None

    def __call__(self, *arguments: Any) -> None:
        """Runs the kernel.

        Raises:
            CompileError: Numba or LLVM cannot compile it.
        """
        function = self._function
        while True:
            if function is not None:
                try:
                    return function(*arguments)  # type: ignore[no-any-return]
                except Exception as error:  # the kernel itself raises nothing: an error of compiling, or of the cache
                    self._error = error
            function = self._another(function)

    @property
    def cache_hits(self) -> int | None:
        """How many of its compiled forms were found on disk; None before the first call or where none are kept."""
        kept = self._function is not None and self._function.stats.cache_path is not None
        return sum(self._function.stats.cache_hits.values()) if kept else None

    @property
    def cache_path(self) -> str | None:
        """The folder that it is kept in; None before the first call or where it cannot be kept."""
        path = None if self._function is None else self._function.stats.cache_path
        return None if path is None else str(path)

    def _another(self, failed: Any) -> Any:
        """The next way to get at the compiled function, or the one that another thread has found meanwhile."""
        with self._lock:
            while self._function is failed:
                way = next(self._ways, None)
                if way is None:
                    raise CompileError(f"{type(self._error).__name__}: {self._error}") from self._error
                try:
                    self._function = way()
                except Exception as error:
                    self._error = error
            return self._function

    def _njit(self, **options: Any) -> Any:
        return numba.njit(nogil=True, fastmath={"contract"}, error_model="numpy", **options)(self._source)

    def _kept(self) -> Any:
        return self._njit(cache=True)

    def _kept_anew(self) -> Any:
        folder_in_the_way = isinstance(self._error, IsADirectoryError)
        if (isinstance(self._error, OSError) and not folder_in_the_way) or self.cache_path is None:
            raise self._error or CompileError("nothing was compiled")  # the cache cannot be written
        for entry in Path(self.cache_path).glob(f"*{self._name}*.nb[ci]"):
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.suffix == ".nbi":
                entry.unlink(missing_ok=True)
        return self._njit(cache=True)


@functools.cache
def _digest() -> str:
    """Eight hexadecimal digits that stand for all that kernels are made of."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:8]


class Processor(NamedTuple):
    """What Numba compiles for."""

    floats: int
    """How many a vector register holds."""

    registers: int
    """How many hold vectors."""

    letter: str
    """Stands for a vector register in LLVM's assembly; empty for processors that nobody has tried."""


@functools.cache
def processor() -> Processor:
    """The processor of this machine, or the one that Numba's settings name."""
    letter = "v" if llvmlite.binding.get_process_triple().startswith(("x86_64", "i686")) else ""
    chosen = _CONFIG.CPU_FEATURES
    if chosen is not None:
        features = {name[1:] for name in chosen.split(",") if name.startswith("+")}
    else:
        features = _features_of_this_machine()
    if "avx512f" in features:
        return Processor(16, 32, letter)
    return Processor(8 if "avx" in features else 4, 16, letter)


def _features_of_this_machine() -> set[str]:
    try:
        found = {name for name, present in llvmlite.binding.get_host_cpu_features().items() if present}
    except RuntimeError:  # LLVM does not know this processor; Numba then uses no vectors beyond the base set
        return set()
    return found if _CONFIG.ENABLE_AVX else {name for name in found if not name.startswith("avx")}


def shuffled(builder: Any, vector: Any, elements: list[int]) -> Any:
    """The vector's elements in another order, some left out or repeated."""
    mask = ir.Constant(ir.VectorType(I32, len(elements)), elements)
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


def splat(builder: Any, scalar: Any, width: int) -> Any:
    """A vector with the same number everywhere."""
    undefined = ir.Constant(ir.VectorType(scalar.type, width), ir.Undefined)
    return shuffled(builder, builder.insert_element(undefined, scalar, I32(0)), [0] * width)


def vector_at(builder: Any, pointer: Any, width: int) -> Any:
    """A pointer to numbers as one to a vector."""
    return builder.bitcast(pointer, ir.VectorType(pointer.type.pointee, width).as_pointer())


def load(builder: Any, pointer: Any, width: int) -> Any:
    """A vector of numbers, which may lie anywhere."""
    vector = builder.load(vector_at(builder, pointer, width))
    vector.align = 4
    return vector


def indices(builder: Any, pointer: Any, count: int) -> list[Any]:
    """The 32-bit numbers at `pointer` as indices: two to a load."""
    together = 2 if count > 1 and sys.byteorder == "little" else 1
    found = []
    for first in range(0, count, together):
        place = builder.gep(pointer, [I64(first)])
        if together == 1:
            found.append(builder.zext(builder.load(place), I64))
            continue
        two = builder.load(builder.bitcast(place, I64.as_pointer()))
        two.align = 4
        found += [builder.zext(builder.trunc(two, I32), I64), builder.lshr(two, I64(32))]
    return found


def splats(builder: Any, pointer: Any, count: int, lanes: int) -> list[Any]:
    """For each number at `pointer` a vector that has it in all lanes: four to a load, spread by shuffles.

    LLVM would make of each shuffle a load again; an empty piece of assembly hides from it where the four come from.
    """
    letter, together = processor().letter, min(4, count)
    width = min(lanes, processor().floats)
    quads = [lane % width // 4 * 4 for lane in range(lanes)]  # within its own four a lane gets at a number fastest
    found = []
    for first in range(0, count, together):
        numbers = load(builder, builder.gep(pointer, [I64(first)]), together)
        numbers = shuffled(builder, numbers, [lane % together for lane in range(width)])
        if letter:
            same = ir.FunctionType(numbers.type, [numbers.type])
            numbers = builder.asm(same, "", f"={letter},0", [numbers], side_effect=False)
        found += [shuffled(builder, numbers, [quad + number for quad in quads]) for number in range(together)]
    return found
