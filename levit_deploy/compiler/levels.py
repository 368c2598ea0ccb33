"""One program for all CPUs of an architecture: a program for each kind, on the same constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.memory_plan import aligned
from levit_deploy.compiler.pipeline import compile_model
from levit_deploy.compiler.program import Arg, KernelCall, Program, Space
from levit_deploy.compiler.tiles.table import TileTable
from levit_deploy.export.exported import ExportedModel
from levit_deploy.network.arithmetic import Int8
from levit_deploy.network.network import Network
from levit_deploy.targets.target import Target

# Of all 8-bit weights, those that a level may have twice: with its code the library of levit_128s
# becomes 1.34 times as large as that of one CPU.
OWN_WEIGHTS = 0.25


def compile_levels(
    exported: ExportedModel,
    target: Target,
    *,
    tiles: TileTable,
    name: str,
    dump_ir: Path | None = None,
    on_phase: Callable[[str], None] | None = None,
) -> Program:
    """Compile a model for each of the levels of `target`; else as `compile_model`."""
    levels = [
        compile_model(
            exported,
            level,
            tiles=tiles.sharing(layers_apart(exported.network, level)),
            dump_ir=dump_ir / level.name if dump_ir else None,
            on_phase=(lambda phase, level=level: on_phase(f"{level.name}: {phase}"))  # type: ignore[misc]
            if on_phase
            else None,
            name=f"{name}_{level.name.replace('-', '_')}",
        )
        for level in target.levels_for(exported.precision)
    ]
    shared = share_constants(levels)
    return replace(
        shared[0],
        name=name,
        target=target.name,
        kernels_object=b"",
        arena_bytes=max(program.arena_bytes for program in shared),
        scratch_bytes=max(program.scratch_bytes for program in shared),
        levels=shared,
    )


def layers_apart(network: Network, level: Target) -> frozenset[str]:
    """The layers, by name, of whose weights `level` has its own copy, in its own order.

    What it costs to put shared weights in order grows with the rows that read them, which become
    fewer from the first layer to the last: so the first ones, up to OWN_WEIGHTS of all.
    """
    if not isa_of(level).products.shared_tile.rearranges_weights:
        return frozenset()
    layers = [layer for layer in network.layers() if isinstance(layer.arithmetic, Int8)]
    ends = np.cumsum([layer.weight.size for layer in layers])
    return frozenset(
        layer.name for layer, end in zip(layers, ends, strict=True) if end <= OWN_WEIGHTS * ends[-1]
    )


def share_constants(programs: Sequence[Program]) -> tuple[Program, ...]:
    """The same programs on one block of constants, which has equal ones once."""
    block, places = bytearray(), dict[bytes, int]()
    moved = []
    for program in programs:
        offsets = sorted(
            {arg.offset_bytes for call in program.calls for arg in call.args if _is_constant(arg)}
        )
        ends = [*offsets[1:], len(program.constants)]
        new: dict[int, int] = {}
        for start, end in zip(offsets, ends, strict=True):
            constant = program.constants[start:end]
            constant += bytes(aligned(len(constant)) - len(constant))
            if constant not in places:
                places[constant] = len(block)
                block += constant
            new[start] = places[constant]
        moved.append(tuple(_moved(call, new) for call in program.calls))
    constants = bytes(block)
    return tuple(
        replace(program, constants=constants, calls=calls)
        for program, calls in zip(programs, moved, strict=True)
    )


def _is_constant(arg: Arg) -> bool:
    return arg.space is Space.CONSTANT


def _moved(call: KernelCall, places: dict[int, int]) -> KernelCall:
    args = (
        replace(arg, offset_bytes=places[arg.offset_bytes]) if _is_constant(arg) else arg
        for arg in call.args
    )
    return replace(call, args=tuple(args))
