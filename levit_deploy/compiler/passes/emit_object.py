"""Lowered functions -> one relocatable ELF object, the same bytes every time."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import tvm
from tvm import tirx

from levit_deploy.compiler.object_file import finish_object
from levit_deploy.compiler.passes.raw_pointers import RawFunction


def emit_object(functions: Mapping[str, RawFunction], target: tvm.target.Target) -> bytes:
    """All functions through LLVM; the object's symbols are hidden and it has no debug info."""
    library = translate(functions, target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernels.o")
        library.write_to_file(str(path), "o")
        return finish_object(path.read_bytes())


def translate(
    functions: Mapping[str, RawFunction], target: tvm.target.Target
) -> tvm.runtime.Module:
    """All functions as LLVM has optimised them, to be written as an object or as assembly."""
    module = tvm.IRModule({symbol: raw.func for symbol, raw in functions.items()})
    module = tirx.transform.LowerIntrin()(module)
    return tvm.get_global_func("target.build.llvm")(module, target)
