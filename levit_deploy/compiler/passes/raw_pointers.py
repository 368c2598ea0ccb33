"""TIR functions on buffers -> C functions on plain pointers, without a runtime.

Before: `f(A: T.Buffer((M * K,), "float32"), ..., begin: T.int32, end: T.int32)`, lowered to loops.
After: `int32_t f(float *noalias A, ..., int32_t begin, int32_t end)`, returning 0.

This takes the place of `tirx.transform.MakePackedAPI`, whose functions check and unpack DLTensors.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.ir import PointerType, PrimType

from levit_deploy.compiler.program import ALIGNMENT_BYTES

# A local array of this size or more does not go on the stack of whoever calls the library.
STACK_ARRAY_LIMIT_BYTES = 1024


@dataclass(frozen=True)
class RawFunction:
    """`scratch_bytes`: sizes of the scratch buffers, the last pointers before `begin`, `end`."""

    func: tirx.PrimFunc
    scratch_bytes: tuple[int, ...]


def raw_pointers(
    func: tirx.PrimFunc,
    symbol: str,
    target: tvm.target.Target,
    *,
    unaligned: Collection[int],
    lift_locals: bool,
) -> RawFunction:
    """`unaligned`: positions of parameters that may be any pointer; others are 64-byte aligned.

    `lift_locals`: large local arrays become pointer parameters, and a task range is added: for
    functions that were not written as kernels.
    """
    pointers: list[tirx.Var] = []
    declarations: list[tirx.Stmt] = []
    scalars: list[tirx.Var] = []
    for param in func.params:
        if tirx.is_buffer_var(param):
            pointer = _pointer(param.name, param.dtype)
            pointers.append(pointer)
            declarations.append(tirx.DeclBuffer(param, data=pointer))
        else:
            scalars.append(param)
    aligned = [p for position, p in enumerate(pointers) if position not in unaligned]
    body = func.body
    scratch: list[tuple[tirx.Var, int]] = []
    if lift_locals:
        body = _lift(body, scratch)
        aligned += [pointer for pointer, _ in scratch]
        scalars += [tirx.Var("begin", "int32"), tirx.Var("end", "int32")]
    body = tirx.SeqStmt([*declarations, body, tirx.Return(tirx.IntImm("int32", 0))])
    for pointer in aligned:
        body = tirx.AttrStmt(
            pointer, "storage_alignment", tirx.IntImm("int32", ALIGNMENT_BYTES), body
        )
    params = [*pointers, *(pointer for pointer, _ in scratch), *scalars]
    raw = tirx.PrimFunc(params, body, ret_type=PrimType("int32"))
    attributes = {
        "global_symbol": symbol,
        "tirx.noalias": True,
        "calling_conv": 0,
        "target": target.host or target,
    }
    for key, value in attributes.items():
        raw = raw.with_attr(key, value)
    return RawFunction(raw, tuple(size for _, size in scratch))


def _pointer(name: str, dtype: object) -> tirx.Var:
    return tirx.Var(f"{name}_ptr", PointerType(PrimType(str(dtype)), "global"))


def _lift(stmt: tirx.Stmt, scratch: list[tuple[tirx.Var, int]]) -> tirx.Stmt:
    """Replace allocations of large arrays by declarations on new pointers, listed in `scratch`."""
    if isinstance(stmt, tirx.SeqStmt):
        return tirx.SeqStmt([_lift(s, scratch) for s in stmt.seq])
    if isinstance(stmt, tirx.For):
        return tirx.For(
            stmt.loop_var,
            stmt.min,
            stmt.extent,
            stmt.kind,
            _lift(stmt.body, scratch),
            stmt.thread_binding,
            stmt.annotations,
            stmt.step,
        )
    if isinstance(stmt, tirx.While):
        return tirx.While(stmt.condition, _lift(stmt.body, scratch))
    if isinstance(stmt, tirx.IfThenElse):
        otherwise = None if stmt.else_case is None else _lift(stmt.else_case, scratch)
        return tirx.IfThenElse(stmt.condition, _lift(stmt.then_case, scratch), otherwise)
    if isinstance(stmt, tirx.AttrStmt):
        return tirx.AttrStmt(stmt.node, stmt.attr_key, stmt.value, _lift(stmt.body, scratch))
    if isinstance(stmt, tirx.AllocBuffer):
        return _lift_array(stmt, scratch)
    return stmt


def _lift_array(alloc: tirx.AllocBuffer, scratch: list[tuple[tirx.Var, int]]) -> tirx.Stmt:
    buffer = alloc.buffer
    dtype = tvm.DataType(str(buffer.dtype))
    elements = math.prod(int(extent) for extent in buffer.shape)
    size = elements * -(-dtype.bits * dtype.lanes // 8)
    if size < STACK_ARRAY_LIMIT_BYTES:
        return alloc
    pointer = _pointer(buffer.name, buffer.dtype)
    scratch.append((pointer, size))
    return tirx.DeclBuffer(buffer, data=pointer)
