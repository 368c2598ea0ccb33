"""Writes calls of generated kernels into a Relax function, and the kernels into the library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from tvm import relax
from tvm.ir import Expr

from levit_deploy.compiler.groups.patterns import Float32
from levit_deploy.compiler.kernel_library import KernelLibrary, QuantizedCopy
from levit_deploy.compiler.kernels.gemm.float32 import gemm_kernel, pack_weights
from levit_deploy.compiler.kernels.gemm.int8 import default_tile, gemm_int8_kernel
from levit_deploy.compiler.kernels.gemm.int8_panels import pack_weights_int8
from levit_deploy.compiler.kernels.gemm.spec import GemmInt8Spec, GemmSpec, GemmTile, Layout
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.kernel import Activation, Kernel
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.kernels.quantize import QuantizeSpec, pack_quantization, quantize_kernel
from levit_deploy.compiler.tuning.tile_table import TileTable
from levit_deploy.export.exported import Normalization
from levit_deploy.targets.target import Target

Operand: TypeAlias = Expr | NDArray[np.generic]


@dataclass(frozen=True)
class Quantization:
    """q[k] = clamp(rint(x[k] * factors[k]), -zero_point, 255 - zero_point) + zero_point.

    `reader`: the node of the ONNX graph that wants it.
    """

    factors: Float32
    zero_point: int
    reader: str


@dataclass(frozen=True)
class KernelCalls:
    """`name` starts every symbol; `tiles` says how each kernel is cut for `target`.

    `normalization`: what kernels that read 8-bit images do to them first. `quantized`: the 8-bit
    copies made so far, by tensor, zero point and factors.
    """

    builder: relax.BlockBuilder
    library: KernelLibrary
    name: str
    target: Target
    tiles: TileTable
    normalization: Normalization
    quantized: dict[tuple[Expr, int, bytes], Expr] = field(default_factory=dict)

    def call(
        self,
        symbol: str,
        make: Callable[[str], Kernel],
        operands: Sequence[Operand],
        shape: Sequence[int],
        dtype: str = "float32",
        name: str = "",
    ) -> Expr:
        """Call a kernel that writes a tensor of `shape`; arrays become constants.

        `name`: what the tensor is called, made unique.

        `symbol` is completed by the program's name; it decides which kernel it is: `make` is asked
        for it only the first time.
        """
        symbol = self._add(symbol, make)
        inputs = [relax.const(o) if isinstance(o, np.ndarray) else o for o in operands]
        result = relax.TensorType(list(shape), dtype)
        return self.builder.emit(relax.call_dps_packed(symbol, relax.Tuple(inputs), result), name)

    def call_storing(
        self,
        symbol: str,
        make: Callable[[str, Stored], Kernel],
        operands: Sequence[Operand],
        shape: Sequence[int],
    ) -> Expr:
        """`call` of a kernel that can make an 8-bit copy of its float result, should a layer want
        one."""
        self.library.quantizing_twins[f"{self.name}_{symbol}"] = make
        return self.call(symbol, lambda symbol: make(symbol, Stored.FLOAT), operands, shape)

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

    def gemm_int8(
        self,
        spec: GemmSpec,
        x: Expr,
        quantization: Quantization,
        weight: NDArray[np.int8],
        multiplier: Float32,
        bias: Float32,
        shape: Sequence[int],
        residual: Expr | None = None,
    ) -> Expr:
        """`gemm` with 8-bit weights (depth, columns) on x, which is quantized first.

        `multiplier`: (columns,), what one step of x times one step of the weights is worth.
        """
        int8 = GemmInt8Spec(**vars(spec))
        target, tile = self.target, default_tile(int8, self.target)
        zero_point = quantization.zero_point
        panels = pack_weights_int8(weight, multiplier, bias, zero_point, tile, target)
        operands: list[Operand] = [self._quantize(x, int8.input_rows, quantization), panels]
        if residual is not None:
            operands.append(residual)
        symbol = gemm_symbol(spec, tile, "gemm_int8")

        def kernel(symbol: str, stored: Stored) -> Kernel:
            return gemm_int8_kernel(symbol, int8, tile, target, stored)

        if spec.layout is Layout.ROWS:
            return self.call_storing(symbol, kernel, operands, shape)
        return self.call(symbol, lambda symbol: kernel(symbol, Stored.FLOAT), operands, shape)

    def _quantize(self, x: Expr, rows: int, quantization: Quantization) -> Expr:
        """The 8-bit copy of x (.., rows, channels), as the target stores it."""
        factors, zero_point = quantization.factors, quantization.zero_point
        key = (x, zero_point, factors.tobytes())
        if key not in self.quantized:
            spec = QuantizeSpec(rows, len(factors))
            storage = isa_of(self.target).storage
            symbol = f"quantize_r{rows}_k{len(factors)}"
            self.library.quantizers.add(f"{self.name}_{symbol}")
            self.quantized[key] = self.call(
                symbol,
                lambda symbol: quantize_kernel(symbol, spec, self.target),
                [x, pack_quantization(factors, zero_point)],
                (storage.size(rows, len(factors)),),
                storage.dtype,
                f"quantized_for_{quantization.reader}",
            )
            self.library.quantized[self.quantized[key].name] = QuantizedCopy(
                rows=rows,
                channels=len(factors),
                signed=storage.dtype == "int8",
                zero=zero_point + storage.offset,
                steps=factors,
                strides=storage.strides(len(factors)),
            )
        copy = self.quantized[key]
        self.library.quantized[copy.name].readers.append(quantization.reader)
        return copy

    def _add(self, symbol: str, make: Callable[[str], Kernel]) -> str:
        full_symbol = f"{self.name}_{symbol}"
        if full_symbol not in self.library.kernels:
            self.library.kernels[full_symbol] = make(full_symbol)
        return full_symbol


def gemm_symbol(spec: GemmSpec, tile: GemmTile, family: str = "gemm") -> str:
    """Such as gemm_r196_n256_k128_hardswish_panels_6x16_u4."""
    words = [family, f"r{spec.rows}", f"n{spec.columns}", f"k{spec.depth}"]
    words += [spec.activation.value] * (spec.activation is not Activation.NONE)
    words += ["residual"] * spec.residual
    words += [spec.layout.value] * (spec.layout is not Layout.ROWS)
    words += [f"gather{spec.gather_side}"] * bool(spec.gather_side)
    return "_".join([*words, str(tile), f"u{tile.depth_unroll}"])
