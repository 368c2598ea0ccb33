"""Lowered functions -> one relocatable ELF object, the same bytes every time."""

from __future__ import annotations

import os
from collections.abc import Mapping

import tvm
from tvm import tirx

from levit_deploy.compiler.object_file import finish_object
from levit_deploy.compiler.passes.raw_pointers import RawFunction


def emit_object(functions: Mapping[str, RawFunction], target: tvm.target.Target) -> bytes:
    """All functions through LLVM; the object's symbols are hidden and it has no debug info."""
    library = translate(functions, target)
    # In memory: on a full disk LLVM would end the process.
    with os.fdopen(os.memfd_create("kernels.o"), "rb") as file:
        library.write_to_file(f"/proc/self/fd/{file.fileno()}", "o")
        return finish_object(file.read())


def translate(
    functions: Mapping[str, RawFunction], target: tvm.target.Target
) -> tvm.runtime.Module:
    """All functions as LLVM has optimised them, to be written as an object or as assembly."""
    module = tvm.IRModule({symbol: raw.func for symbol, raw in functions.items()})
    module = tirx.transform.LowerIntrin()(module)
    return tvm.get_global_func("target.build.llvm")(module, target)
