"""The side table of a compilation: every kernel that the program calls, by symbol."""

from __future__ import annotations

from dataclasses import dataclass, field

import tvm

from levit_deploy.compiler.kernels.kernel import Kernel


@dataclass
class KernelLibrary:
    """One Kernel for each distinct symbol.

    `rgb8_twins`: for the symbol of a kernel that reads a float image, the symbol of the one that
    does the same for an 8-bit image, with the same constants.
    """

    kernels: dict[str, Kernel] = field(default_factory=dict)
    rgb8_twins: dict[str, str] = field(default_factory=dict)


def fallback_symbol(name: str, function: tvm.ir.GlobalVar) -> str:
    """C symbol of a function that default lowering made for the program `name`."""
    return f"{name}_{function.name_hint}"
