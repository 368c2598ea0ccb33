"""FlatProgram: the calls in their order, with names for values instead of places in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.kernel_library import QuantizedCopy
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
class FlatProgram:
    """`buffer_bytes` and `constants` are what the indices of ARENA and CONSTANT values name.

    `quantized`: which of the buffers are 8-bit tensors.
    """

    steps: tuple[Step, ...]
    buffer_bytes: tuple[int, ...]
    constants: tuple[Constant, ...]
    quantized: Mapping[int, QuantizedCopy] = field(default_factory=dict)

    def text(self) -> str:
        """One line a step, for `--dump-ir`."""
        lines = []
        for step in self.steps:
            values = ", ".join(f"{value.space.value}[{value.index}]" for value in step.values)
            entry = "" if step.entry is Entry.BOTH else f"  # {step.entry.value} only"
            lines.append(f"{step.symbol}({values}){entry}")
        return "\n".join(lines) + "\n"
