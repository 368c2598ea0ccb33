"""The side table of a compilation: every kernel that the program calls, by symbol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import tvm
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.output import Stored

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class QuantizedCopy:
    """An 8-bit tensor that a kernel writes; the fields are those of program.QuantizedTensor.

    `readers`: grows with each call that reads it.
    """

    rows: int
    channels: int
    signed: bool
    zero: int
    steps: Float32
    strides: tuple[int, int, int]
    readers: list[str] = field(default_factory=list)


@dataclass
class KernelLibrary:
    """One Kernel for each distinct symbol.

    `rgb8_twins`: for the symbol of a kernel that reads a float image, the symbol of the one that
    does the same for an 8-bit image, with the same constants.

    `quantizers`: symbols of kernels (x, quantization, out) that only make an 8-bit copy of a float
    tensor. `quantizing_twins`: for the symbol of a kernel (inputs.., out) that writes a float
    tensor, what makes the kernel (inputs.., quantization, [out,] out_quantized) of a given symbol
    that makes the copy too, or instead.

    `quantized`: the 8-bit tensors, by the name of the variable that holds them in Relax.
    """

    kernels: dict[str, Kernel] = field(default_factory=dict)
    rgb8_twins: dict[str, str] = field(default_factory=dict)
    quantizers: set[str] = field(default_factory=set)
    quantizing_twins: dict[str, Callable[[str, Stored], Kernel]] = field(default_factory=dict)
    quantized: dict[str, QuantizedCopy] = field(default_factory=dict)


def fallback_symbol(name: str, function: tvm.ir.GlobalVar) -> str:
    """C symbol of a function that default lowering made for the program `name`."""
    return f"{name}_{function.name_hint}"
