"""The compile log: every call of a program as a line that people read."""

from __future__ import annotations

from levit_deploy.compiler.program import Entry, KernelCall, Program

FALLBACK = "fallback"  # KernelCall.kind of what no generated kernel computes

_HEADINGS = ("", "kernel", "shape", "tile", "tasks", "Mmac", "kB", "entry")


def format_calls(program: Program) -> str:
    """A table of all calls in their order, the totals, and what fell back to default lowering.

    Mmac: million multiply-adds. kB: 1000 bytes read and written, each value once. The totals are
    those of the float entry.
    """
    rows = [_HEADINGS, *(_row(number, call) for number, call in enumerate(program.calls, 1))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    numeric = {0, 4, 5, 6}
    lines = [
        "  ".join(
            cell.rjust(width) if column in numeric else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", *_summary(program)]) + "\n"


def fallbacks(program: Program) -> list[str]:
    """Symbols of the calls that no generated kernel computes, each once, in their order."""
    symbols = [call.symbol for call in program.calls if call.kind == FALLBACK]
    return list(dict.fromkeys(symbols))


def _row(number: int, call: KernelCall) -> tuple[str, ...]:
    return (
        str(number),
        call.kind,
        call.shape,
        call.tile,
        str(call.tasks),
        f"{call.multiply_adds / 1e6:.2f}",
        f"{call.bytes_moved / 1e3:.0f}",
        "" if call.entry is Entry.BOTH else call.entry.value,
    )


def _summary(program: Program) -> list[str]:
    calls = [call for call in program.calls if call.entry is not Entry.RGB8]
    multiply_adds = sum(call.multiply_adds for call in calls)
    lines = [
        f"{len(calls)} calls, {len({call.symbol for call in calls})} kernels, "
        f"{multiply_adds / 1e6:.1f} million multiply-adds",
        f"arena {program.arena_bytes / 1e3:.0f} kB, scratch {program.scratch_bytes / 1e3:.0f} kB a "
        f"worker, constants {len(program.constants) / 1e6:.2f} MB",
    ]
    fallen = fallbacks(program)
    lines += [f"default lowering: {', '.join(fallen)}" if fallen else "default lowering: none"]
    return lines
