"""Vectors in LLVM's terms, for the CPU kernels: loads, shuffles, and what registers the processor has.

A processor issues about as many loads as multiply-adds, and each multiply-add of the kernels takes a load of its own.
So what else a kernel needs is loaded several at a time: indices by two, weights by four.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core.registry import cpu_target

F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)


class Processor(NamedTuple):
    """What Numba compiles for."""

    floats: int
    """How many a vector register holds."""

    registers: int
    """How many hold vectors."""

    letter: str
    """By which LLVM knows them in assembly; empty for processors that nobody has tried."""


@functools.cache
def processor() -> Processor:
    """The processor of this machine, or the one that Numba's settings say."""
    triple, _, listed = cpu_target.target_context.codegen().magic_tuple()
    features = listed.split(",")
    letter = "v" if triple.startswith(("x86_64", "i686")) else ""
    if "+avx512f" in features:
        return Processor(16, 32, letter)
    return Processor(8 if "+avx" in features else 4, 16, letter)


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
