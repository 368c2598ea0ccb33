"""What every kernel family returns: a TIR function and what is known about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

# Says of the second parameter of a kernel of integers, a constant, why nothing saturates or wraps.
Proof = Callable[[NDArray[np.int8]], str]


class Activation(StrEnum):
    NONE = "linear"
    HARDSWISH = "hardswish"
    SILU = "silu"
    RELU = "relu"
    GELU = "gelu"


@dataclass(frozen=True)
class Kernel:
    """A generated kernel.

    `func`: parameters are flat 1-D buffers in the order inputs, constants, output, then (only if
    `scratch_bytes` > 0) one flat scratch buffer of any type, then int32 `begin`, `end`:
    it does tasks [begin, end) of `tasks`. Tasks write disjoint parts of the output and may run in
    any order and on any thread; the result does not depend on the split.
    `scratch_bytes`: private memory of the worker that runs it.
    `unaligned`: positions of parameters that are the caller's own buffers: no alignment may be
    assumed for them. All others are aligned to 64 bytes.
    `exactness`: of a kernel that multiplies integers but no constants: why nothing saturates or
    wraps, as `prove_exact` says it of others.
    """

    symbol: str
    func: tirx.PrimFunc
    tasks: int
    kind: str
    shape: str
    tile: str
    multiply_adds: int
    bytes_moved: int
    scratch_bytes: int = 0
    unaligned: tuple[int, ...] = ()
    prove_exact: Proof | None = None
    exactness: str = ""


@contextmanager
def kernel_function(symbol: str) -> Iterator[IRBuilder]:
    """What is emitted inside is the function `symbol`; the builder then gives it."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(symbol)
        T.func_attr({"tirx.noalias": True})
        yield builder


def parameter(name: str, size: int, dtype: str = "float32") -> tirx.Buffer:
    """Declare the next parameter of the function that is being emitted: a flat buffer."""
    return T.arg(name, T.Buffer((size,), dtype))


def task_range() -> tuple[Expr, Expr]:
    """Declare the last parameters of the function: `begin` and `end` of the tasks to do."""
    return T.arg("begin", T.int32()), T.arg("end", T.int32())
