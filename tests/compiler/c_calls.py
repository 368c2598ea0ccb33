"""Calls of compiled kernels, one after the other, on one piece of memory.

Where this CPU runs the target they are made in this process, from a shared library; elsewhere in
one program under the emulator.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from levit_deploy.compiler.program import ALIGNMENT_BYTES
from levit_deploy.targets.target import Target
from levit_deploy.targets.toolchain import Toolchain, find_toolchain
from tests.machine import prefix_for

_SOURCE = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
{declarations}
int run_calls(char *memory);
__attribute__((visibility("default"))) int run_calls(char *memory) {{
{calls}
  return 0;
}}
#ifdef PROGRAM
int main(void) {{
  char *memory = aligned_alloc({alignment}, {bytes});
  FILE *file = fopen("memory", "rb");
  if (fread(memory, 1, {bytes}, file) != {bytes}) return 2;
  fclose(file);
  if (run_calls(memory)) return 1;
  file = fopen("memory", "wb");
  fwrite(memory, 1, {bytes}, file);
  return fclose(file);
}}
#endif
"""


@dataclass(frozen=True)
class CCall:
    """`symbol` does tasks [begin, end) on buffers at `offsets` in the memory."""

    symbol: str
    offsets: tuple[int, ...]
    begin: int
    end: int


def run_c_calls(
    target: Target, kernels_object: bytes, calls: Iterable[CCall], memory: bytes
) -> bytes:
    """The memory afterwards; it starts at a multiple of 64, and its size is one.

    Skips the test where nothing runs `target`.
    """
    prefix = prefix_for(target)
    lines, declarations = [], {}
    for call in calls:
        pointers = "".join(f"memory + {offset}, " for offset in call.offsets)
        lines.append(f"  if ({call.symbol}({pointers}{call.begin}, {call.end})) return 1;")
        parameters = "void *, " * len(call.offsets)
        declarations[call.symbol] = f"int32_t {call.symbol}({parameters}int32_t, int32_t);"
    source = _SOURCE.format(
        declarations="\n".join(declarations.values()),
        calls="\n".join(lines),
        alignment=ALIGNMENT_BYTES,
        bytes=len(memory),
    )
    toolchain = find_toolchain(target)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "calls.c").write_text(source)
        (work / "kernels.o").write_bytes(kernels_object)
        if not prefix:
            return _in_this_process(toolchain, memory, work)
        (work / "memory").write_bytes(memory)
        inputs = [work / "calls.c", work / "kernels.o"]
        toolchain.link_program(inputs, work / "program", ("-DPROGRAM",))
        subprocess.run([*prefix, "./program"], cwd=work, check=True, timeout=300)
        return (work / "memory").read_bytes()


def _in_this_process(toolchain: Toolchain, memory: bytes, work: Path) -> bytes:
    toolchain.compile(work / "calls.c", work / "calls.o")
    toolchain.link_shared([work / "calls.o", work / "kernels.o"], work / "calls.so")
    library = ctypes.CDLL(str(work / "calls.so"))
    room = np.empty(len(memory) + ALIGNMENT_BYTES, np.uint8)
    aligned = room[-room.ctypes.data % ALIGNMENT_BYTES :][: len(memory)]
    aligned[:] = np.frombuffer(memory, np.uint8)
    assert library.run_calls(ctypes.c_void_p(aligned.ctypes.data)) == 0
    return aligned.tobytes()
