"""Relax `main` -> FlatProgram: a list of calls on numbered buffers and constants.

Before:
    alloc = R.builtin.alloc_tensor((1, 196, 256));  R.call_packed("levit_gemm_...", x, w, b, alloc)
    y = R.reshape(alloc, (196, 256));               cls.fused_add(y, c, alloc1)
After:
    levit_gemm_...(image, constant[0], constant[1], arena[0])
    levit_fused_add(arena[0], constant[2], logits)
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import tvm
from tvm import relax

from levit_deploy.compiler.flat_program import Constant, FlatProgram, Step, Value
from levit_deploy.compiler.kernel_library import (
    KernelLibrary,
    QuantizedCopy,
    fallback_symbol,
)
from levit_deploy.compiler.program import Space
from levit_deploy.errors import DeployError

_ALIASES = ("relax.reshape", "relax.memory.view")


def flatten(module: tvm.IRModule, library: KernelLibrary, name: str) -> FlatProgram:
    """Read `main` binding by binding; renamed tensors vanish.

    Raises DeployError if something is left that only a virtual machine could run, or if the
    output is not computed by a kernel.
    """
    return _Flattener(library, name).run(module["main"])


class _Flattener:
    def __init__(self, library: KernelLibrary, name: str) -> None:
        self.library = library
        self.name = name
        self.values: dict[relax.Var, Value | tuple[Value, ...]] = {}
        self.steps: list[Step] = []
        self.buffer_bytes: list[int] = []
        self.quantized: dict[int, QuantizedCopy] = {}
        self.constants: list[Constant] = []
        self.constant_indices: dict[tuple[str, tuple[int, ...], bytes], int] = {}

    def run(self, main: relax.Function) -> FlatProgram:
        (image,) = main.params
        self.values[image] = Value(Space.IMAGE)
        for block in main.body.blocks:
            for binding in block.bindings:
                self._bind(binding.var, binding.value)
        output = self._value(main.body.body)
        if not isinstance(output, Value) or output.space is not Space.ARENA:
            raise DeployError(
                f"the output of `{self.name}` is not the result of a computation",
                hint="export a model whose output `logits` depends on its input `image`",
            )
        steps = tuple(
            replace(s, values=tuple(Value(Space.LOGITS) if v == output else v for v in s.values))
            for s in self.steps
        )
        found, known = len(self.quantized), len(self.library.quantized)
        assert found == known, f"{found} of {known} quantized tensors kept their names"
        return FlatProgram(steps, tuple(self.buffer_bytes), tuple(self.constants), self.quantized)

    def _bind(self, var: relax.Var, value: relax.Expr) -> None:
        if not isinstance(value, relax.Call):
            self.values[var] = self._value(value)
            self._note_quantized(var)
        elif isinstance(value.op, tvm.ir.GlobalVar):
            self._call(fallback_symbol(self.name, value.op), value.args)
        elif isinstance(value.op, relax.ExternFunc):
            self._call(str(value.op.global_symbol), value.args)
        elif value.op.name == "relax.builtin.alloc_tensor":
            self.values[var] = Value(Space.ARENA, len(self.buffer_bytes))
            self.buffer_bytes.append(_tensor_bytes(var))
        elif value.op.name in _ALIASES:
            self.values[var] = self._value(value.args[0])
        else:
            raise self._unsupported(value.op.name)

    def _note_quantized(self, var: relax.Var) -> None:
        buffer = self.values[var]
        if var.name in self.library.quantized and isinstance(buffer, Value):
            self.quantized[buffer.index] = self.library.quantized[var.name]

    def _call(self, symbol: str, args: list[relax.Expr]) -> None:
        if symbol not in self.library.kernels:
            raise self._unsupported(symbol)
        values: list[Value] = []
        for value in map(self._value, args):
            values.extend(value if isinstance(value, tuple) else (value,))
        self.steps.append(Step(symbol, tuple(values)))

    def _value(self, expr: relax.Expr) -> Value | tuple[Value, ...]:
        if isinstance(expr, tvm.ir.GenericConst):
            return self._constant(np.ascontiguousarray(expr.value.numpy()))
        if isinstance(expr, relax.Tuple):
            fields = map(self._value, expr.fields)
            return tuple(value for value in fields if isinstance(value, Value))
        if isinstance(expr, relax.TupleGetItem):
            values = self._value(expr.tuple_value)
            assert isinstance(values, tuple)
            field: Value = values[expr.index]
            return field
        if expr in self.values:
            return self.values[expr]
        raise self._unsupported(type(expr).__name__)

    def _constant(self, array: Constant) -> Value:
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constant_indices:
            self.constant_indices[key] = len(self.constants)
            self.constants.append(array)
        return Value(Space.CONSTANT, self.constant_indices[key])

    def _unsupported(self, what: str) -> DeployError:
        return DeployError(
            f"`{self.name}` needs `{what}` at run time, which a static library cannot do",
            hint="export the model with static shapes and without control flow",
        )


def _tensor_bytes(var: relax.Var) -> int:
    shape = [int(extent) for extent in var.ty.shape]
    return math.prod(shape) * np.dtype(str(var.ty.dtype)).itemsize
