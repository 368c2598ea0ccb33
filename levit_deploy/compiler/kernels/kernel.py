"""What every kernel family returns: a TIR function and what is known about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from tvm import tirx

# Of a kernel of integers: says of its second parameter, a constant, why nothing saturates or
# wraps.
Proof = Callable[[NDArray[np.int8]], str]


class Activation(StrEnum):
    NONE = "linear"
    HARDSWISH = "hardswish"  # z * min(max(z / 6 + 0.5, 0), 1)


@dataclass(frozen=True)
class Kernel:
    """A generated kernel.

    `func`: parameters are flat 1-D buffers in the order inputs, constants, output, then (only if
    `scratch_bytes` > 0) one flat uint8 or float32 scratch buffer, then int32 `begin`, `end`:
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
    scratch_bytes: int
    unaligned: tuple[int, ...]
    kind: str
    shape: str
    tile: str
    multiply_adds: int
    bytes_moved: int
    prove_exact: Proof | None = None
    exactness: str = ""
