"""Kernels -> one relocatable object, through TVM's TIR and LLVM; the same bytes every time.

Before: `f(A: T.Buffer((M * K,), "float32"), ..., begin: T.int32, end: T.int32)`, flat loops with
explicit vectors.
After: `int32_t f(float *noalias A, ..., int32_t begin, int32_t end)`, returning 0, on plain
pointers and without a call into any runtime.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import BinaryIO

import tvm
from tvm import tirx
from tvm.ir import PointerType, PrimType

from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.llvm_target import llvm_target
from levit_deploy.compiler.llvm_text import finish_text
from levit_deploy.compiler.program import ALIGNMENT_BYTES
from levit_deploy.targets.target import Target

Functions = Mapping[str, tirx.PrimFunc]


def lower_kernels(
    kernels: Mapping[str, Kernel],
    unaligned: Mapping[str, Collection[int]],
    target: tvm.target.Target,
) -> Functions:
    """Every kernel as a C function, by symbol.

    `unaligned`: for each symbol the positions of parameters that may be any pointer; all others are
    aligned to 64 bytes.
    """
    passes = [tirx.transform.BindTarget(target), tirx.transform.StmtSimplify()]
    lowered: dict[str, tirx.PrimFunc] = {}
    for symbol, kernel in kernels.items():
        module = tvm.IRModule({symbol: kernel.func.with_attr("global_symbol", symbol)})
        module = tvm.transform.Sequential(passes)(module)
        lowered[symbol] = _on_raw_pointers(module[symbol], symbol, target, unaligned[symbol])
    return lowered


def emit_object(functions: Functions, target: Target) -> bytes:
    """All functions through LLVM; the object's symbols are hidden and it has no debug info."""
    return object_of(finish(translate(functions, llvm_target(target)), target))


def translate(functions: Functions, target: tvm.target.Target) -> tvm.runtime.Module:
    """All functions as LLVM has optimised them."""
    module = tirx.transform.LowerIntrin()(tvm.IRModule(dict(functions)))
    return tvm.get_global_func("target.build.llvm")(module, target)


def finish(module: tvm.runtime.Module, target: Target) -> tvm.runtime.Module:
    """What `translate` made, as `finish_text` changes it: to be an object, or assembly."""
    text = finish_text(module.inspect_source("ll"), target)
    with _memory_file("kernels.ll") as source:
        source.write(text.encode())
        source.flush()
        load = tvm.get_global_func("ffi.Module.load_from_file.ll")
        return load(f"/proc/self/fd/{source.fileno()}", "ll")


def object_of(module: tvm.runtime.Module) -> bytes:
    """What `finish` made as an object file."""
    # In memory: on a full disk LLVM would end the process.
    with _memory_file("kernels.o") as output:
        module.write_to_file(f"/proc/self/fd/{output.fileno()}", "o")
        return output.read()


def _memory_file(name: str) -> BinaryIO:
    return os.fdopen(os.memfd_create(name), "w+b")


def _on_raw_pointers(
    func: tirx.PrimFunc, symbol: str, target: tvm.target.Target, unaligned: Collection[int]
) -> tirx.PrimFunc:
    """The function on pointers instead of buffers.

    This takes the place of `tirx.transform.MakePackedAPI`, whose functions check and unpack
    DLTensors.
    """
    pointers: list[tirx.Var] = []
    declarations: list[tirx.Stmt] = []
    scalars: list[tirx.Var] = []
    for param in func.params:
        if tirx.is_buffer_var(param):
            kind = PointerType(PrimType(str(param.dtype)), "global")
            pointers.append(tirx.Var(f"{param.name}_ptr", kind))
            declarations.append(tirx.DeclBuffer(param, data=pointers[-1]))
        else:
            scalars.append(param)
    body = tirx.SeqStmt([*declarations, func.body, tirx.Return(tirx.IntImm("int32", 0))])
    for position, pointer in enumerate(pointers):
        if position not in unaligned:
            alignment = tirx.IntImm("int32", ALIGNMENT_BYTES)
            body = tirx.AttrStmt(pointer, "storage_alignment", alignment, body)
    raw = tirx.PrimFunc([*pointers, *scalars], body, ret_type=PrimType("int32"))
    attributes = {
        "global_symbol": symbol,
        "tirx.noalias": True,
        "calling_conv": 0,
        "target": target.host or target,
    }
    for key, value in attributes.items():
        raw = raw.with_attr(key, value)
    return raw
