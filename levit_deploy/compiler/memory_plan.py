"""A place in memory for every value of a program.

Buffers that live at the same time never overlap in the arena.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from levit_deploy.compiler.flat_program import Constant, FlatProgram, Step, Value
from levit_deploy.compiler.program import ALIGNMENT_BYTES, Arg, Entry, Space


@dataclass(frozen=True)
class Lifetime:
    """A buffer of `size_bytes` that holds a value from step `first` through step `last`."""

    size_bytes: int
    first: int
    last: int

    def meets(self, other: Lifetime) -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class MemoryPlan:
    """`offsets_bytes`: one for each lifetime, in their order, multiples of 64."""

    offsets_bytes: tuple[int, ...]
    arena_bytes: int


def aligned(size_bytes: int) -> int:
    """The next multiple of 64."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def plan_memory(lifetimes: Sequence[Lifetime]) -> MemoryPlan:
    """Largest buffer first, each into the lowest gap between those that are alive with it.

    Greedy by size (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference",
    2020, section 5.2).
    """
    offsets: dict[int, int] = {}
    order = sorted(range(len(lifetimes)), key=lambda i: (-lifetimes[i].size_bytes, i))
    for index in order:
        lifetime = lifetimes[index]
        neighbours = sorted(
            (offset, aligned(lifetimes[other].size_bytes))
            for other, offset in offsets.items()
            if lifetime.meets(lifetimes[other])
        )
        place = 0
        for offset, size in neighbours:
            if place + lifetime.size_bytes <= offset:
                break
            place = max(place, offset + size)
        offsets[index] = place
    arena = max((offsets[i] + aligned(t.size_bytes) for i, t in enumerate(lifetimes)), default=0)
    return MemoryPlan(tuple(offsets[i] for i in range(len(lifetimes))), arena)


@dataclass(frozen=True)
class Placement:
    """`args`: for each step the arguments of its call, scratch pointers last."""

    args: tuple[tuple[Arg, ...], ...]
    constants: bytes
    arena_bytes: int
    scratch_bytes: int
    selftest_image_offset: int


def place(flat: FlatProgram, image_bytes: int) -> Placement:
    """A place for every value of the program.

    The self-test's 8-bit image lives in the arena until the last step that reads the image.
    """
    image_read = max(
        (i for i, s in enumerate(flat.steps) if s.entry is not Entry.FLOAT and _reads_image(s)),
        default=0,
    )
    lifetimes = [*_lifetimes(flat), Lifetime(image_bytes, 0, image_read)]
    plan = plan_memory(lifetimes)
    constant_offsets, constants = _pack_constants(flat.constants)

    def argument(value: Value) -> Arg:
        if value.space is Space.ARENA:
            return Arg(value.space, plan.offsets_bytes[value.index])
        if value.space is Space.CONSTANT:
            return Arg(value.space, constant_offsets[value.index])
        return Arg(value.space)

    args: list[tuple[Arg, ...]] = []
    for step in flat.steps:
        scratch = [Arg(Space.SCRATCH)] if flat.kernels[step.symbol].scratch_bytes else []
        args.append((*map(argument, step.values), *scratch))
    scratch_bytes = max(aligned(kernel.scratch_bytes) for kernel in flat.kernels.values())
    return Placement(
        tuple(args), constants, plan.arena_bytes, scratch_bytes, plan.offsets_bytes[-1]
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
