"""Run generated kernels as C functions in one program, here or under an emulator."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.codegen import emit_object, lower_kernels
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.llvm_target import llvm_target
from levit_deploy.targets.target import Target
from tests.compiler.execute import link
from tests.machine import prefix_for

Buffer = NDArray[np.generic]

_ALIGNMENT = 64
_MAIN = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
{declarations}
int main(void) {{
  char *memory = aligned_alloc(64, {bytes});
  FILE *file = fopen("memory.bin", "rb");
  if (fread(memory, 1, {bytes}, file) != {bytes}) return 2;
  fclose(file);
{calls}
  file = fopen("memory.bin", "wb");
  fwrite(memory, 1, {bytes}, file);
  return fclose(file);
}}
"""


@dataclass(frozen=True)
class Call:
    """One kernel, its inputs and constants, and what its outputs and scratch hold before."""

    kernel: Kernel
    inputs: Sequence[Buffer]
    outputs: Sequence[Buffer]
    ranges: Sequence[tuple[int, int]] | None = None  # default: all tasks at once


def run_linked(calls: Sequence[Call], target: Target, folder: Path) -> list[list[Buffer]]:
    """The outputs of each call, flat. Symbols are distinct. Skips where nothing runs `target`."""
    prefix = prefix_for(target)
    kernels = {call.kernel.symbol: call.kernel for call in calls}
    assert len(kernels) == len(calls), "symbols are distinct"
    tvm_target = llvm_target(target)
    aligned: dict[str, tuple[int, ...]] = dict.fromkeys(kernels, ())
    (folder / "kernels.o").write_bytes(
        emit_object(lower_kernels(kernels, aligned, tvm_target), tvm_target)
    )
    memory = bytearray()
    lines, declarations, places = [], [], []
    for call in calls:
        offsets = [_append(memory, buffer) for buffer in (*call.inputs, *call.outputs)]
        places.append(offsets[len(call.inputs) :])
        types = ", ".join(["void *"] * len(offsets))
        declarations.append(f"int32_t {call.kernel.symbol}({types}, int32_t, int32_t);")
        pointers = ", ".join(f"memory + {offset}" for offset in offsets)
        for begin, end in call.ranges or [(0, call.kernel.tasks)]:
            lines.append(f"  if ({call.kernel.symbol}({pointers}, {begin}, {end})) return 1;")
    source = _MAIN.format(
        declarations="\n".join(declarations), calls="\n".join(lines), bytes=len(memory)
    )
    (folder / "memory.bin").write_bytes(memory)
    (folder / "main.c").write_text(source)
    link(target, ["main.c", "kernels.o"], "program", folder)
    subprocess.run([*prefix, "./program"], cwd=folder, check=True, timeout=300)
    written = (folder / "memory.bin").read_bytes()
    return [
        [
            np.frombuffer(written, output.dtype, output.size, offset)
            for output, offset in zip(call.outputs, offsets, strict=True)
        ]
        for call, offsets in zip(calls, places, strict=True)
    ]


def _append(memory: bytearray, buffer: Buffer) -> int:
    """Add `buffer`, aligned; returns its offset."""
    offset = len(memory)
    memory += buffer.tobytes()
    memory += bytes(-len(memory) % _ALIGNMENT)
    return offset


def undefined(size: int, dtype: str) -> Buffer:
    """Memory whose content no kernel may rely on: NaN as float."""
    return np.full(size * np.dtype(dtype).itemsize, 0xFF, np.uint8).view(dtype)
