"""Run a Program without the runtime room: a C main that makes the calls, linked and executed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.program import Entry, Program, Space
from levit_deploy.targets.target import Target
from levit_deploy.targets.toolchain import find_toolchain
from tests.machine import prefix_for

_MAIN = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
{declarations}
static void *read_file(const char *path) {{
  FILE *file = fopen(path, "rb");
  fseek(file, 0, SEEK_END);
  long size = ftell(file);
  rewind(file);
  char *data = aligned_alloc(64, (size_t)(size + 127) / 64 * 64);
  if (fread(data, 1, (size_t)size, file) != (size_t)size) exit(2);
  fclose(file);
  return data;
}}
int main(void) {{
  char *constants = read_file("constants.bin"), *image = (char *)read_file("image.bin") + {shift};
  char *arena = aligned_alloc(64, {arena}), *scratch = aligned_alloc(64, {scratch});
  char *logits = (char *)aligned_alloc(64, ({logits} + 127) / 64 * 64) + {shift};
  for (long i = 0; i < {arena}; i++) arena[i] = (char)0xff;
{calls}
  FILE *file = fopen("logits.bin", "wb");
  fwrite(logits, 1, {logits}, file);
  return fclose(file);
}}
"""


def run(
    program: Program,
    target: Target,
    image: NDArray[np.generic],
    folder: Path,
    *,
    entry: Entry = Entry.FLOAT,
    parts: int = 1,
    shift: int = 0,
) -> NDArray[np.float32]:
    """The logits of one image, float NCHW or 8-bit HWC as `entry` says.

    The arena starts as NaNs. Each call's tasks are done in `parts` pieces, last piece first. The
    caller's buffers start `shift` bytes after a multiple of 64.
    """
    prefix = prefix_for(target)
    folder.mkdir(exist_ok=True)
    (folder / "kernels.o").write_bytes(program.kernels_object)
    (folder / "constants.bin").write_bytes(program.constants)
    (folder / "image.bin").write_bytes(bytes(shift) + image.tobytes())
    calls = [call for call in program.calls if call.entry in (Entry.BOTH, entry)]
    declarations = {
        f"int32_t {call.symbol}({', '.join(['void *'] * len(call.args))}, int32_t, int32_t);"
        for call in calls
    }
    lines = []
    for call in calls:
        args = ", ".join(f"{arg.space.value} + {arg.offset_bytes}" for arg in call.args)
        bounds = [call.tasks * part // parts for part in range(parts + 1)]
        for part in reversed(range(parts)):
            lines.append(
                f"  if ({call.symbol}({args}, {bounds[part]}, {bounds[part + 1]})) return 1;"
            )
    spaces = "\n".join(lines)
    for space in Space:  # the C variables of _MAIN
        assert space.value not in ("constants",)
    source = _MAIN.format(
        declarations="\n".join(sorted(declarations)),
        calls=spaces.replace("constant +", "constants +"),
        arena=max(program.arena_bytes, 64),
        scratch=max(program.scratch_bytes, 64),
        logits=4 * program.classes,
        shift=shift,
    )
    (folder / "main.c").write_text(source)
    link(target, ["main.c", "kernels.o"], "program", folder)
    subprocess.run([*prefix, "./program"], cwd=folder, check=True, timeout=300)
    return np.fromfile(folder / "logits.bin", np.float32)


def link(target: Target, inputs: list[str], output: str, folder: Path) -> None:
    """C sources and objects of `folder` -> a static program, by the product's own tools."""
    names = [folder / name for name in inputs]
    find_toolchain(target).link_program(names, folder / output, ["-lm"])
