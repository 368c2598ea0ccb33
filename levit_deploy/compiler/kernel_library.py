"""The side table of a compilation: every kernel that the program calls, by symbol."""

from __future__ import annotations

from dataclasses import dataclass, field

import tvm

from levit_deploy.compiler.flat_program import Constant
from levit_deploy.compiler.kernels.kernel import Kernel


@dataclass(frozen=True)
class Rgb8Twin:
    """The kernel that does for an 8-bit image what another one does for a float image.

    Same output; parameters: the image, `constants`, the output.
    """

    symbol: str
    constants: tuple[Constant, ...]


@dataclass
class KernelLibrary:
    """One Kernel for each distinct symbol; `rgb8_twins` by the symbol of the float form."""

    kernels: dict[str, Kernel] = field(default_factory=dict)
    rgb8_twins: dict[str, Rgb8Twin] = field(default_factory=dict)


def fallback_symbol(name: str, function: tvm.ir.GlobalVar) -> str:
    """C symbol of a function that default lowering made for the program `name`."""
    return f"{name}_{function.name_hint}"
