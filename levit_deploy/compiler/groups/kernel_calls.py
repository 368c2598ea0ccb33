"""Writes calls of generated kernels into a Relax function, and the kernels into the library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from tvm import relax
from tvm.ir import Expr

from levit_deploy.compiler.groups.patterns import Float32
from levit_deploy.compiler.kernel_library import KernelLibrary
from levit_deploy.compiler.kernels.gemm import GemmSpec, GemmTile, Layout, gemm_kernel, pack_weights
from levit_deploy.compiler.kernels.kernel import Activation, Kernel
from levit_deploy.compiler.tuning.tile_table import TileTable
from levit_deploy.export.exported import Normalization
from levit_deploy.targets.target import Target

Operand: TypeAlias = Expr | NDArray[np.generic]


@dataclass(frozen=True)
class KernelCalls:
    """`name` starts every symbol; `tiles` says how each kernel is cut for `target`.

    `normalization`: what kernels that read 8-bit images do to them first.
    """

    builder: relax.BlockBuilder
    library: KernelLibrary
    name: str
    target: Target
    tiles: TileTable
    normalization: Normalization

    def call(
        self,
        symbol: str,
        make: Callable[[str], Kernel],
        operands: Sequence[Operand],
        shape: Sequence[int],
    ) -> Expr:
        """Call a kernel that writes a float32 tensor of `shape`; arrays become constants.

        `symbol` is completed by the program's name; it decides which kernel it is: `make` is asked
        for it only the first time.
        """
        symbol = self._add(symbol, make)
        inputs = [relax.const(o) if isinstance(o, np.ndarray) else o for o in operands]
        result = relax.TensorType(list(shape), "float32")
        return self.builder.emit(relax.call_dps_packed(symbol, relax.Tuple(inputs), result))

    def add_rgb8_twin(self, symbol: str, twin: str, make: Callable[[str], Kernel]) -> None:
        """Note the kernel `twin` as the form of the kernel `symbol` that reads 8-bit images."""
        self.library.rgb8_twins[f"{self.name}_{symbol}"] = self._add(twin, make)

    def gemm(
        self,
        spec: GemmSpec,
        x: Expr,
        weight: Float32,
        bias: Float32,
        shape: Sequence[int],
        residual: Expr | None = None,
    ) -> Expr:
        """x @ weight + bias with the epilogue of `spec`; `shape` is that of the result."""
        tile = self.tiles.gemm(spec, self.target)
        operands: list[Operand] = [x, pack_weights(weight, bias, tile)]
        if residual is not None:
            operands.append(residual)
        return self.call(
            gemm_symbol(spec, tile),
            lambda symbol: gemm_kernel(symbol, spec, tile, self.target),
            operands,
            shape,
        )

    def _add(self, symbol: str, make: Callable[[str], Kernel]) -> str:
        full_symbol = f"{self.name}_{symbol}"
        if full_symbol not in self.library.kernels:
            self.library.kernels[full_symbol] = make(full_symbol)
        return full_symbol


def gemm_symbol(spec: GemmSpec, tile: GemmTile) -> str:
    """Such as gemm_r196_n256_k128_hardswish_panels_6x16_u4."""
    words = ["gemm", f"r{spec.rows}", f"n{spec.columns}", f"k{spec.depth}"]
    words += [spec.activation.value] * (spec.activation is not Activation.NONE)
    words += ["residual"] * spec.residual
    words += [spec.layout.value] * (spec.layout is not Layout.ROWS)
    words += [f"gather{spec.gather_side}"] * bool(spec.gather_side)
    return "_".join([*words, str(tile), f"u{tile.depth_unroll}"])
