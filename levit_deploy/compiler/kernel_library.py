"""The side table of a compilation: every kernel that the program calls, by symbol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import tvm

from levit_deploy.compiler.kernels.kernel import Kernel


@dataclass
class KernelLibrary:
    """One Kernel for each distinct symbol.

    `rgb8_twins`: for the symbol of a kernel that reads a float image, the symbol of the one that
    does the same for an 8-bit image, with the same constants.

    `quantizers`: symbols of kernels (x, quantization, out) that only make an 8-bit copy of a float
    tensor. `quantizing_twins`: for the symbol of a kernel (inputs.., out) that writes a float
    tensor, what makes the kernel (inputs.., quantization, [out,] out_quantized) of a given symbol
    that makes the copy too; the flag says whether it still writes the float tensor.
    """

    kernels: dict[str, Kernel] = field(default_factory=dict)
    rgb8_twins: dict[str, str] = field(default_factory=dict)
    quantizers: set[str] = field(default_factory=set)
    quantizing_twins: dict[str, Callable[[str, bool], Kernel]] = field(default_factory=dict)


def fallback_symbol(name: str, function: tvm.ir.GlobalVar) -> str:
    """C symbol of a function that default lowering made for the program `name`."""
    return f"{name}_{function.name_hint}"
