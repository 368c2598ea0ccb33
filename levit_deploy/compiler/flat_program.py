"""FlatProgram: the calls in their order, with names for values instead of places in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.program import Entry, Space

Constant = NDArray[np.generic]


@dataclass(frozen=True)
class Value:
    """One argument of a call. `index` counts buffers (ARENA) or constants (CONSTANT)."""

    space: Space
    index: int = 0


@dataclass(frozen=True)
class Step:
    """One call of the kernel `symbol`: what it reads, then what it writes."""

    symbol: str
    values: tuple[Value, ...]
    entry: Entry = Entry.BOTH


@dataclass(frozen=True)
class QuantizedCopy:
    """An 8-bit tensor that a kernel writes; the fields are those of program.QuantizedTensor.

    `readers`: grows with each call that reads it.
    """

    rows: int
    channels: int
    signed: bool
    zero: int
    inverse_scales: NDArray[np.float32]
    strides: tuple[int, int, int]
    readers: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FlatProgram:
    """`buffer_bytes` and `constants` are what the indices of ARENA and CONSTANT values name.

    `quantized`: which of the buffers are 8-bit tensors. `kernels`: by symbol.
    """

    steps: tuple[Step, ...]
    buffer_bytes: tuple[int, ...]
    constants: tuple[Constant, ...]
    quantized: Mapping[int, QuantizedCopy]
    kernels: Mapping[str, Kernel]

    def text(self) -> str:
        """One line a step, for `--dump-ir`."""
        lines = []
        for step in self.steps:
            values = ", ".join(f"{value.space.value}[{value.index}]" for value in step.values)
            entry = "" if step.entry is Entry.BOTH else f"  # {step.entry.value} only"
            lines.append(f"{step.symbol}({values}){entry}")
        return "\n".join(lines) + "\n"
