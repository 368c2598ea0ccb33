"""FlatProgram -> places in memory: arena offsets, constant offsets, scratch offsets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from levit_deploy.compiler.flat_program import Constant, FlatProgram, Step, Value
from levit_deploy.compiler.memory_plan import Lifetime, aligned, plan_memory
from levit_deploy.compiler.program import Arg, Entry, Space


@dataclass(frozen=True)
class Placement:
    """`args`: for each step the arguments of its call, scratch pointers last."""

    args: tuple[tuple[Arg, ...], ...]
    constants: bytes
    arena_bytes: int
    scratch_bytes: int
    selftest_image_offset: int


def place(
    flat: FlatProgram, scratch_bytes: Mapping[str, tuple[int, ...]], rgb8_image_bytes: int
) -> Placement:
    """`scratch_bytes`: for each symbol the sizes of the scratch buffers that it takes.

    The self-test's 8-bit image lives in the arena until the last step that reads the image.
    """
    image_read = max(
        (i for i, s in enumerate(flat.steps) if s.entry is not Entry.FLOAT and _reads_image(s)),
        default=0,
    )
    lifetimes = [*_lifetimes(flat), Lifetime(rgb8_image_bytes, 0, image_read)]
    plan = plan_memory(lifetimes)
    constant_offsets, constants = _pack_constants(flat.constants)

    def argument(value: Value) -> Arg:
        if value.space is Space.ARENA:
            return Arg(value.space, plan.offsets_bytes[value.index])
        if value.space is Space.CONSTANT:
            return Arg(value.space, constant_offsets[value.index])
        return Arg(value.space)

    args: list[tuple[Arg, ...]] = []
    scratch_total = 0
    for step in flat.steps:
        scratch: list[Arg] = []
        offset = 0
        for size in scratch_bytes[step.symbol]:
            scratch.append(Arg(Space.SCRATCH, offset))
            offset += aligned(size)
        scratch_total = max(scratch_total, offset)
        args.append((*map(argument, step.values), *scratch))
    return Placement(
        tuple(args), constants, plan.arena_bytes, scratch_total, plan.offsets_bytes[-1]
    )


def _reads_image(step: Step) -> bool:
    return any(value.space is Space.IMAGE for value in step.values)


def _lifetimes(flat: FlatProgram) -> list[Lifetime]:
    """One for each buffer; a buffer that no step names has the size 0."""
    uses: list[list[int]] = [[] for _ in flat.buffer_bytes]
    for position, step in enumerate(flat.steps):
        for value in step.values:
            if value.space is Space.ARENA:
                uses[value.index].append(position)
    return [
        Lifetime(size, min(at), max(at)) if at else Lifetime(0, 0, 0)
        for size, at in zip(flat.buffer_bytes, uses, strict=True)
    ]


def _pack_constants(constants: tuple[Constant, ...]) -> tuple[list[int], bytes]:
    packed = bytearray()
    offsets = []
    for constant in constants:
        packed += bytes(aligned(len(packed)) - len(packed))
        offsets.append(len(packed))
        packed += constant.tobytes()
    return offsets, bytes(packed)
