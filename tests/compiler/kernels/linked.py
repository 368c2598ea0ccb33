"""Run generated kernels as the product does: lowered to C functions, linked, also under qemu."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.codegen import emit_object
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.llvm_target import llvm_target
from levit_deploy.compiler.tuning.assembly import lower
from levit_deploy.targets.target import Target
from tests.compiler.execute import link
from tests.compiler.kernels.running import Array
from tests.machine import prefix_for

_MAIN = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int32_t {symbol}({parameters}, int32_t begin, int32_t end);
static char *room(long bytes, long shift) {{
  char *data = aligned_alloc(64, (bytes + shift + 63) / 64 * 64);
  memset(data, 0xff, (bytes + shift + 63) / 64 * 64);
  return data + shift;
}}
int main(void) {{
  long sizes[] = {{{sizes}}}, shifts[] = {{{shifts}}};
  void *buffers[{count}];
  FILE *file = fopen("inputs.bin", "rb");
  for (int i = 0; i < {count}; i++) {{
    buffers[i] = room(sizes[i], shifts[i]);
    if (i < {inputs} && fread(buffers[i], 1, sizes[i], file) != (size_t)sizes[i]) return 2;
  }}
  fclose(file);
{calls}
  file = fopen("output.bin", "wb");
  fwrite(buffers[{inputs}], 1, sizes[{inputs}], file);
  return fclose(file);
}}
"""


def run_linked(
    kernel: Kernel,
    target: Target,
    inputs: Sequence[NDArray[np.generic]],
    output_size: int,
    folder: Path,
    ranges: Iterable[tuple[int, int]] | None = None,
    shift: int = 0,
) -> Array:
    """The flat output; it and the scratch start as NaN. Skips the test where nothing runs it.

    The caller's own buffers (`kernel.unaligned`) start `shift` bytes after a multiple of 64.
    """
    prefix = prefix_for(target)
    folder.mkdir(exist_ok=True)
    (folder / "kernel.o").write_bytes(emit_object(lower(kernel, target), llvm_target(target)))
    (folder / "inputs.bin").write_bytes(b"".join(a.tobytes() for a in inputs))
    sizes = [a.nbytes for a in inputs] + [4 * output_size]
    sizes += [kernel.scratch_bytes] * bool(kernel.scratch_bytes)
    arguments = ", ".join(f"buffers[{i}]" for i in range(len(sizes)))
    source = _MAIN.format(
        symbol=kernel.symbol,
        parameters=", ".join(["void *"] * len(sizes)),
        sizes=", ".join(map(str, sizes)),
        shifts=", ".join(str(shift * (i in kernel.unaligned)) for i in range(len(sizes))),
        count=len(sizes),
        inputs=len(inputs),
        calls="\n".join(
            f"  if ({kernel.symbol}({arguments}, {begin}, {end})) return 1;"
            for begin, end in ranges or [(0, kernel.tasks)]
        ),
    )
    (folder / "main.c").write_text(source)
    link(target, ["main.c", "kernel.o"], "program", folder)
    subprocess.run([*prefix, "./program"], cwd=folder, check=True, timeout=120)
    return np.fromfile(folder / "output.bin", np.float32)
