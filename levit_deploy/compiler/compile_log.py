"""The compile log: every call of a program as a line that people read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from levit_deploy.compiler.program import Entry, Program

_HEADINGS = ("", "kernel", "shape", "tile", "tasks", "Mmac", "kB", "entry")


class CallFacts(Protocol):
    """What a line tells of: a KernelCall, or what a manifest keeps of it."""

    @property
    def kind(self) -> str: ...
    @property
    def shape(self) -> str: ...
    @property
    def tile(self) -> str: ...
    @property
    def tasks(self) -> int: ...
    @property
    def multiply_adds(self) -> int: ...
    @property
    def bytes_moved(self) -> int: ...
    @property
    def entry(self) -> str: ...


def format_calls(program: Program) -> str:
    """A table of all calls, why integers are exact, and the totals of the float entry."""
    parts = [format_table(program.calls), format_exactness(program), format_summary(program)]
    return "\n\n".join(part for part in parts if part) + "\n"


def format_exactness(program: Program) -> str:
    """One line for each product of integers, with the number of its call: the instruction, and how
    far sums on the way can get for any activations. Empty if there is none."""
    calls = [(number, call) for number, call in enumerate(program.calls, 1) if call.exactness]
    width = len(str(len(program.calls)))
    lines = [f"{number:{width}}  {call.exactness}" for number, call in calls]
    return "\n".join(
        ["nothing saturates or wraps in products of integers:", *lines] if lines else []
    )


def format_table(calls: Iterable[CallFacts]) -> str:
    """One line for each call, in order.

    Mmac: million multiply-adds. kB: 1000 bytes read and written, each value once.
    """
    rows = [_HEADINGS, *(_row(number, call) for number, call in enumerate(calls, 1))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    numeric = {0, 4, 5, 6}
    lines = [
        "  ".join(
            cell.rjust(width) if column in numeric else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def format_summary(program: Program) -> str:
    """The totals of the float entry."""
    calls = [call for call in program.calls if call.entry in (Entry.BOTH, Entry.FLOAT)]
    multiply_adds = sum(call.multiply_adds for call in calls)
    lines = [
        f"{len(calls)} calls, {len({call.symbol for call in calls})} kernels, "
        f"{multiply_adds / 1e6:.1f} million multiply-adds",
        f"arena {program.arena_bytes / 1e3:.0f} kB, scratch {program.scratch_bytes / 1e3:.0f} kB a "
        f"worker, constants {len(program.constants) / 1e6:.2f} MB",
    ]
    exact = sum(bool(call.exactness) for call in calls)
    if exact:
        lines += [f"products of integers: {exact}, none of which can saturate or wrap"]
    return "\n".join(lines)


def _row(number: int, call: CallFacts) -> tuple[str, ...]:
    return (
        str(number),
        call.kind,
        call.shape,
        call.tile,
        str(call.tasks),
        f"{call.multiply_adds / 1e6:.2f}",
        f"{call.bytes_moved / 1e3:.0f}",
        "" if call.entry == Entry.BOTH else str(call.entry),
    )
