"""The candidates of one spec as a program that times them, and the file of what they read.

    kernels of one spec, their objects  ->  time_kernels (static), operands

What the program does, and why, is in csrc/time_kernels.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.program import ALIGNMENT_BYTES
from levit_deploy.compiler.tiles.registry import Spec, Tile
from levit_deploy.compiler.tuning.operands import Operand, Role, operands
from levit_deploy.targets.toolchain import Toolchain

COLD_BYTES = 24 << 20  # about all constants of LeViT-128S
MOST_COPIES = 128  # small constants cost little, cold or not
CALM = 1.15  # of the fastest calibration
PATIENCE = 200  # busy turns in a row
LONGEST_CALL_S = 60  # longer ones hang

_SOURCE = Path(__file__).parent / "csrc" / "time_kernels.c"
_HEADER = """\
#include <stddef.h>
#include <stdint.h>
enum {{ KERNELS = {kernels}, BUFFERS = {buffers}, COPIES = {copies} }};
#define OPERANDS_BYTES {operands_bytes}
enum role {{ INPUT, CONSTANT, OUTPUT, SCRATCH }};
struct buffer {{
    enum role role;
    size_t bytes; /* the most that a kernel has there */
}};
struct content {{
    size_t at, bytes; /* in the file of operands */
}};
struct kernel {{
    void (*call)(void **);
    struct content contents[BUFFERS];
}};
static const struct buffer buffers[] = {{{buffer_list}}};
{calls}
static const struct kernel kernels[] = {{{kernel_list}}};
"""
_CALL = """\
int32_t {symbol}({parameters}, int32_t, int32_t);
static void call_{symbol}(void **b) {{ {symbol}({arguments}, 0, {tasks}); }}
"""


@dataclass(frozen=True)
class Batch:
    """What is put on a machine, and the tiles of its kernels in their order."""

    spec: Spec
    tiles: tuple[Tile, ...]
    program: Path
    operands: Path


def build_batch(
    spec: Spec,
    tiles: Sequence[Tile],
    kernels: Sequence[Kernel],
    objects: Sequence[bytes],
    toolchain: Toolchain,
    folder: Path,
) -> Batch:
    """`kernels` are those of `spec` by `tiles`, with float results and symbols of their own.

    `objects`: of one kernel each. `folder`: an empty one. Raises DeployError if the program cannot
    be built.
    """
    target = toolchain.target
    content = bytearray()
    places: dict[bytes, int] = {}
    by_kernel = [
        operands(kernel, spec, tile, target) for kernel, tile in zip(kernels, tiles, strict=True)
    ]

    def place(operand: Operand) -> str:
        """Equal contents lie there once."""
        if operand.content is None:
            return "{0, 0}"
        if operand.content not in places:
            places[operand.content] = len(content)
            content.extend(operand.content + bytes(-operand.size % ALIGNMENT_BYTES))
        return f"{{{places[operand.content]}, {operand.size}}}"

    contents = [", ".join(map(place, found)) for found in by_kernel]
    (folder / "operands").write_bytes(content)
    (folder / "kernels.h").write_text(_header(kernels, by_kernel, contents, len(content)))
    paths = [folder / f"{kernel.symbol}.o" for kernel in kernels]
    for path, compiled in zip(paths, objects, strict=True):
        path.write_bytes(compiled)
    limits = {"CALM": CALM, "PATIENCE": PATIENCE, "LONGEST_CALL_S": LONGEST_CALL_S}
    flags = ("-s", "-I.", *(f"-D{name}={value}" for name, value in limits.items()))
    toolchain.link_program([_SOURCE, *paths], folder / "time_kernels", flags)
    return Batch(spec, tuple(tiles), folder / "time_kernels", folder / "operands")


def _header(
    kernels: Sequence[Kernel],
    by_kernel: Sequence[Sequence[Operand]],
    contents: Sequence[str],
    operands_bytes: int,
) -> str:
    roles = [operand.role for operand in by_kernel[0]]
    sizes = [max(operand.size for operand in each) for each in zip(*by_kernel, strict=True)]
    pairs = list(zip(roles, sizes, strict=True))
    cold_bytes = sum(size for role, size in pairs if role is Role.CONSTANT)
    arguments = ", ".join(f"b[{i}]" for i in range(len(roles)))
    calls = (
        _CALL.format(
            symbol=kernel.symbol,
            parameters=", ".join(["void *"] * len(roles)),
            arguments=arguments,
            tasks=kernel.tasks,
        )
        for kernel in kernels
    )
    symbols = [kernel.symbol for kernel in kernels]
    return _HEADER.format(
        kernels=len(kernels),
        buffers=len(roles),
        copies=min(max(COLD_BYTES // cold_bytes, 2), MOST_COPIES),
        operands_bytes=operands_bytes,
        buffer_list=", ".join(f"{{{role.name}, {size}}}" for role, size in pairs),
        calls="".join(calls),
        kernel_list=", ".join(
            f"{{call_{symbol}, {{{places}}}}}"
            for symbol, places in zip(symbols, contents, strict=True)
        ),
    )
